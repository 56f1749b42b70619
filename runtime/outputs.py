"""The files of results: one JSON for each scan, and one submission CSV of all scans of the folder.

A scan's JSON is written as soon as the scan is done, then the CSV is written anew, whole, from all scans of this run,
in the order of their seriesuids. So an interrupted run leaves every finished scan in both, and the bytes of the CSV
depend on the results alone, not on the order of the work. Results of earlier runs in the folder keep their JSON, but a
submission holds the scans it was asked for and no others; `runtime.resume` finds those that need not be searched again.
"""

import csv
import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

from caffe_models.atomic import replacing
from runtime.errors import ScanError
from runtime.findings import Finding

SCHEMA_VERSION = 1
"""Of the JSON; raised when a key changes its meaning or goes away, not when one is added."""

CSV_NAME = "submission.csv"
CSV_HEADER = ("seriesuid", "coordX", "coordY", "coordZ", "probability")
COORD_DECIMALS = 6
PROBABILITY_DECIMALS = 12  # the sigmoids of logits up to 27 still differ


@dataclass(frozen=True)
class ScanResult:
    """All that is known about one scan when the chain has run; what its JSON is made of.

    Attributes:
        seriesuid: names the scan in the CSV.
        source: the file or folder it was read from.
        findings: ranked, see `Finding`.
        mask_volume_ml: of the lung mask before dilation.
        fallbacks: what the lung search had to fall back on, in words.
        notes: anything else a reader of the result should know.
        engine, precision: that really ran, not what was asked for.
        model_sha256: of the model's file.
        plan: how the scan was cut up; "windows" and "margin_voxel" at least.
        seconds: by stage, in the order of the chain.
        peak_memory_bytes: the process's largest resident set up to the end of this scan.
        cpus: the CPU budget in cores.
        versions: see `versions()`.
        search: settings that decide which findings are reported: "threshold", "max_per_scan".
        process: where in the life of its process the scan was taken through: "pid"; "first_window_s" and "done_s",
            seconds from the making of the process to the network's first window and to the end of all stages but
            writing (left out where the system does not say); "done_cpu_s", CPU seconds of the process by then.
    """

    seriesuid: str
    source: str
    findings: tuple[Finding, ...] = ()
    mask_volume_ml: float = math.nan
    fallbacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    engine: str = ""
    precision: str = ""
    model_sha256: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    cpus: float = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    search: Mapping[str, float] = field(default_factory=dict)
    process: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        """Sum over the stages."""
        return math.fsum(self.seconds.values())


def versions() -> dict[str, str]:
    """Versions of rpn3d, of what computes the results, and of Python; "not installed" where that is so."""
    found = {}
    for name in ("rpn3d", "openvino", "numpy", "SimpleITK"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(seriesuid: str) -> str:
    """A file name (without suffix) for any seriesuid: letters, digits, `.`, `_`, `-`, at most 100 of them.

    UIDs stay as they are. A name that had to be changed ends in eight digits of its hash, so that two seriesuids
    never meet in one file.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", seriesuid)
    name = re.sub(r"^[.-]+", "_", name)[:100].rstrip(".") or "_"
    if name == seriesuid:
        return name
    return f"{name[:91]}-{hashlib.sha256(seriesuid.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def to_json(result: ScanResult) -> str:
    """The result as JSON text, see `as_content`."""
    return json.dumps(as_content(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_content(result: ScanResult) -> dict[str, Any]:
    """What the JSON holds: `schema_version`, then the fields of `ScanResult`; NaN and infinity become None."""
    content: dict[str, Any] = _finite({"schema_version": SCHEMA_VERSION, "program": "rpn3d", **asdict(result)})
    return content


def from_json(text: str, source: str = "<text>") -> ScanResult:
    """The inverse of `to_json`; keys it does not know are left out.

    Raises:
        ScanError: not such JSON, or of another schema version.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ScanError(f"{source}: not JSON ({error}); expected the result of one scan") from error
    if not isinstance(content, dict) or content.get("program") != "rpn3d":
        raise ScanError(f'{source}: not the result of a scan (no "program": "rpn3d" in it)')
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise ScanError(f"{source}: schema_version {found}, this version of rpn3d reads {SCHEMA_VERSION}; detect anew")
    known = {name: content[name] for name in ScanResult.__dataclass_fields__ if name in content}
    try:
        known["findings"] = tuple(Finding(**finding) for finding in known.get("findings", ()))
        for name in ("fallbacks", "notes"):
            known[name] = tuple(known.get(name, ()))
        if known.get("mask_volume_ml") is None:
            known["mask_volume_ml"] = math.nan
        return ScanResult(**known)
    except TypeError as error:
        raise ScanError(f"{source}: incomplete result of a scan ({error}); detect anew") from error


def submission_csv(results: Sequence[ScanResult]) -> str:
    """The submission of several scans: a header, then one row a finding, by seriesuid, then by rank.

    Decimals are fixed, so equal results give equal bytes. A scan without findings has no row.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for result in sorted(results, key=lambda r: r.seriesuid):
        for finding in sorted(result.findings, key=lambda f: f.rank):
            place = (_fixed(v, COORD_DECIMALS) for v in (finding.x_mm, finding.y_mm, finding.z_mm))
            writer.writerow([result.seriesuid, *place, _fixed(finding.probability, PROBABILITY_DECIMALS)])
    return text.getvalue()


class ResultFolder:
    """A folder that results of scans are added to, one by one; earlier ones in it keep their JSON and pictures.

    Attributes:
        path: the folder, made if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._results: dict[str, ScanResult] = {}

    def file(self, seriesuid: str, ending: str = ".json") -> Path:
        """Where a file of this scan lies, e.g. `file(uid, "_findings.png")`."""
        return self.path / f"{safe_name(seriesuid)}{ending}"

    def add(self, result: ScanResult) -> Path:
        """Write the scan's JSON, then the CSV of all scans added so far; both whole or not at all.

        Returns:
            The JSON's path.

        Raises:
            ScanError: another source added to this folder just before carries the same seriesuid.
            OSError: the folder cannot be written, or the disk is full.
        """
        before = self._results.get(result.seriesuid, result).source
        if before != result.source:
            raise ScanError(
                f"{result.source}: has the seriesuid {result.seriesuid} of {before}, whose results lie in {self.path} "
                "already; give each of the two its own folder"
            )
        path = self.file(result.seriesuid)
        with replacing(path) as temporary:
            temporary.write_text(to_json(result), encoding="utf-8")
        self._results[result.seriesuid] = result
        self.write_csv()
        return path

    def keep(self, result: ScanResult) -> None:
        """Count a result whose JSON lies here already among those added."""
        self._results[result.seriesuid] = result

    def write_csv(self) -> Path:
        """Write `submission.csv` of all scans added; its header alone if there is none."""
        path = self.path / CSV_NAME
        with replacing(path) as temporary:
            temporary.write_bytes(submission_csv(list(self._results.values())).encode("utf-8"))
        return path


def read_results(folder: str | Path, *, skip_broken: bool = False) -> list[ScanResult]:
    """The results of all scans whose JSON lies in `folder`, by seriesuid; other JSON files are passed over.

    Raises:
        ScanError: a result is broken, or of another schema version; with `skip_broken` it is passed over, too.
    """
    found = []
    for path in Path(folder).glob("[!.]*.json"):
        text = path.read_text(encoding="utf-8")
        if '"program": "rpn3d"' not in text:
            continue
        try:
            found.append(from_json(text, str(path)))
        except ScanError:
            if not skip_broken:
                raise
    return sorted(found, key=lambda r: r.seriesuid)


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.000000"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
