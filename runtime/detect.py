"""The chain: a scan in, ranked findings out, the time of each stage taken.

    file -> Volume -> LungMask -> WorkingVolume -> Plan -> engine -> HeadOutput -> Candidates -> Findings -> files

A `Detector` holds one engine and takes scan after scan through it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from caffe_models.errors import Rpn3dError
from runtime.budget import Budget, peak_resident_bytes
from runtime.candidates import decode, nms
from runtime.engines.base import EngineOptions, load_engine
from runtime.errors import ScanError
from runtime.explain import explain, plan_content
from runtime.find_scans import ScanSource, find_scans
from runtime.findings import MAX_PER_SCAN, to_findings
from runtime.lung_mask import find_lungs
from runtime.outputs import ResultFolder, ScanResult, as_content, file_sha256, versions
from runtime.pictures import draw_findings, draw_mask
from runtime.plan import plan_windows
from runtime.report_table import print_report
from runtime.speed import seconds_per_voxel
from runtime.tiling import run_windows
from runtime.volume import read_volume
from runtime.working_volume import make_working_volume


@dataclass(frozen=True)
class Settings:
    """How to detect.

    Attributes:
        budget: cores and memory that may be used.
        engine, precision: see `runtime.engines.base`.
        threshold: the least probability that is reported.
        max_per_scan: at most this many findings a scan.
        pictures: whether to draw the findings and the mask.
        weights: the .caffemodel, for the torch engine.
        cache_folder: where the engine may keep compiled models.
        explain: takes the lines that explain each scan's plan, before the network runs.
    """

    budget: Budget
    engine: str = "openvino"
    precision: str = "auto"
    threshold: float = 0.1
    max_per_scan: int = MAX_PER_SCAN
    pictures: bool = True
    weights: Path | None = None
    cache_folder: Path | None = None
    explain: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of all scans of one call: results in the order of the work, failures as (scan, one line)."""

    results: tuple[ScanResult, ...]
    failures: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "results": [as_content(result) for result in self.results],
            "failures": [{"source": source, "error": error} for source, error in self.failures],
        }


class Stopwatch:
    """Seconds by stage, in the order the stages were first entered."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class Detector:
    """A model, loaded once, and the chain that takes scans through it.

    Raises:
        NetError: the model cannot be loaded, see `load_engine`.
    """

    def __init__(self, model: str | Path, settings: Settings) -> None:
        self.settings = settings
        self.model = Path(model)
        watch = Stopwatch()
        with watch.stage("load"):
            options = EngineOptions(
                precision=settings.precision,
                threads=settings.budget.cpus,
                weights=settings.weights,
                cache_folder=settings.cache_folder,
            )
            self.engine = load_engine(settings.engine, self.model, options)
            weights = self.model.with_suffix(".bin")
            self.model_sha256 = file_sha256(weights if weights.is_file() else self.model)
        self.load_s = watch.seconds["load"]

    def _seconds_per_voxel(self) -> float:
        settings = self.settings
        return seconds_per_voxel(self.engine, settings.budget.cpus, self.model_sha256, settings.cache_folder)

    def detect(self, source: ScanSource, results: ResultFolder) -> ScanResult:
        """Take one scan through the chain and write its pictures and JSON, and the folder's CSV.

        Raises:
            ScanError: the scan cannot be read, or holds no lungs.
            Rpn3dError: the memory allowed is too small for any window.
            OSError: the results cannot be written.
        """
        settings = self.settings
        watch = Stopwatch()
        with watch.stage("read"):
            volume = read_volume(source)
        with watch.stage("mask"):
            lungs = find_lungs(volume, threads=settings.budget.cpus)
        with watch.stage("resample"):
            working = make_working_volume(volume, lungs, threads=settings.budget.cpus)
        with watch.stage("network"):
            plan = plan_windows(
                working.voxels.shape,
                working.lung,
                settings.budget.memory_bytes,
                self.engine.precision,
                settings.budget.cpus,
                engine=self.engine.name,
            )
            speed = self._seconds_per_voxel() if settings.explain else None
            if settings.explain is not None:
                for line in explain(
                    plan, settings.budget, self.engine.name, self.engine.precision, self.engine.notes, speed
                ):
                    settings.explain(line)
            head = run_windows(working, plan, self.engine)
        with watch.stage("decode"):
            threshold_logit = _logit(settings.threshold)
            candidates = nms(decode(head, threshold_logit, lung=working.lung))
            findings = to_findings(
                candidates,
                working.grid,
                volume,
                threshold=settings.threshold,
                max_per_scan=settings.max_per_scan,
            )
        if settings.pictures:
            with watch.stage("pictures"):
                draw_findings(results.file(volume.seriesuid, "_findings.png"), volume, findings)
                draw_mask(results.file(volume.seriesuid, "_mask.png"), volume, lungs)
        result = ScanResult(
            seriesuid=volume.seriesuid,
            source=volume.source,
            findings=findings,
            mask_volume_ml=lungs.volume_ml,
            fallbacks=lungs.fallbacks,
            notes=(*volume.notes, *self.engine.notes),
            engine=self.engine.name,
            precision=self.engine.precision,
            model_sha256=self.model_sha256,
            plan=plan_content(plan, speed),
            seconds=watch.seconds,
            peak_memory_bytes=peak_resident_bytes(),
            cpus=settings.budget.cpus,
            versions=versions(),
        )
        with watch.stage("write"):
            results.add(result)
        return result


def detect_all(
    detector: Detector,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    report: TextIO | None = None,
    say: Callable[[str], None] = lambda text: None,
    complain: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Detect in every scan found under `paths`; a scan that fails is named, and the others still run.

    Args:
        detector: the loaded model.
        paths: files, DICOM folders, or folders of scans.
        out: folder for the results.
        report: where the ranked lists are printed as they come; None: nowhere.
        say: takes one line of progress at a time.
        complain: takes one line for each scan that failed.
    """
    folder = ResultFolder(out)
    failures: list[tuple[str, str]] = []
    sources: list[ScanSource] = []
    for path in paths:
        try:
            sources += [s for s in find_scans([path]) if s not in sources]
        except ScanError as error:
            failures.append((str(path), str(error)))
            complain(f"rpn3d: {error}")
    results: list[ScanResult] = []
    for number, source in enumerate(sources, 1):
        say(f"[{number}/{len(sources)}] {source.path}")
        try:
            result = detector.detect(source, folder)
        except Rpn3dError as error:
            failures.append((str(source.path), str(error)))
            complain(f"rpn3d: {error}")
            continue
        results.append(result)
        if report is not None:
            print_report(result, stream=report)
    folder.write_csv()
    return Outcome(tuple(results), tuple(failures))


def _logit(probability: float) -> float:
    """The logit of a threshold; candidates below about 1 in 10,000 are never worth a place among the best."""
    floor = 1e-4
    p = min(max(probability, floor), 1 - 1e-9)
    return math.log(p / (1 - p))
