"""Whether a precision finds what float32 finds: the file that `--precision auto` goes by, see `runtime.proof`.

    rpn3d detect phantoms -o f32 --precision f32 --no-pictures       (and int8; and both over the real scans)
    python -m bench.precision_proof f32 int8 --annotations phantoms/annotations.csv \\
        --real-f32 real_f32 --real real_int8 --real-annotations real.csv -o caffe_models/rpn3d-proof.json

Compared are folders of results: what really ran, in which precision and with which model stands in their JSON. A
precision is proven when its CPM is at most 0.005 below that of f32 and every nodule of the real scans that f32 finds,
it finds too. Without real nodules nothing is proven.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from convert.provenance import file_sha256, noted
from runtime.findings import Finding
from runtime.froc import FrocResult, evaluate_marks
from runtime.mark_files import read_annotations, read_submission
from runtime.outputs import CSV_NAME, ScanResult, read_results
from runtime.proof import PRECISIONS, SCHEMA_VERSION, ProofError, read_proof

MOST_CPM_LOST = 0.005
LIKELY = 0.5
"""Findings of this probability and more are what a reader looks at; a real nodule is found by such a mark."""

WEIGHTS = Path(__file__).resolve().parent.parent / "caffe_models" / "rpn3d.caffemodel"


@dataclass(frozen=True)
class Folder:
    """Results of one precision over a set of scans.

    Attributes:
        path: of the folder.
        precision: that ran; model_sha256: of the model's file.
        scans: by seriesuid.
        froc: against the annotations.
    """

    path: Path
    precision: str
    model_sha256: str
    scans: Mapping[str, ScanResult]
    froc: FrocResult


def read_folder(path: Path, annotations: Path) -> Folder:
    """Read and evaluate the results of `rpn3d detect`; the scans that count are those with a JSON.

    Raises:
        Rpn3dError: no results, results of several precisions or models, or files that cannot be read.
    """
    scans = read_results(path) if path.is_dir() else []
    if not scans:
        raise Rpn3dError(f"{path}: holds no results of scans; give the folder that `rpn3d detect -o` wrote")
    kinds = sorted({(scan.precision, scan.model_sha256) for scan in scans})
    if len(kinds) > 1:
        found = ", ".join(f"{precision} of model {digest[:8]}" for precision, digest in kinds)
        raise Rpn3dError(f"{path}: holds results of {found}; detect into an empty folder, in one precision")
    uids = [scan.seriesuid for scan in scans]
    marks = read_submission(path / CSV_NAME)
    if sorted(marks.seriesuid) != sorted(scan.seriesuid for scan in scans for _ in scan.findings):
        raise Rpn3dError(
            f"{path / CSV_NAME}: is not of the scans whose JSON lies beside it; detect all of them into an empty folder"
        )
    froc = evaluate_marks(marks, read_annotations(annotations), None, uids)
    return Folder(path, *kinds[0], dict(zip(uids, scans, strict=True)), froc)


def partners(truth: Sequence[Finding], other: Sequence[Finding]) -> list[int | None]:
    """For each finding of `truth`, in order, the nearest of `other` within its radius that is not taken yet."""
    theirs = np.array([(f.x_mm, f.y_mm, f.z_mm) for f in other], dtype=np.float64).reshape(-1, 3)
    free: NDArray[np.bool_] = np.ones(len(other), dtype=bool)
    found: list[int | None] = []
    for finding in truth:
        apart = np.linalg.norm(theirs - (finding.x_mm, finding.y_mm, finding.z_mm), axis=1)
        near = np.where(free & (apart < finding.diameter_mm / 2), apart, np.inf)
        best = int(near.argmin()) if len(near) else 0
        if len(near) and np.isfinite(near[best]):
            free[best] = False
            found.append(best)
        else:
            found.append(None)
    return found


def compare(f32: Folder, other: Folder, real: tuple[Folder, Folder] | None = None) -> dict[str, Any]:
    """The entry of `other`'s precision in the proof.

    Args:
        f32, other: the same scans with annotations.
        real: the same two precisions over real scans.

    Raises:
        Rpn3dError: the folders do not belong together.
    """
    for first, second in [(f32, other), *([real] if real else [])]:
        _same_scans(first, second)
        if first.precision != "f32":
            raise Rpn3dError(f"{first.path}: ran in {first.precision}; the first folder must be f32")
        if second.precision not in PRECISIONS or second.precision == "f32":
            raise Rpn3dError(f"{second.path}: ran in {second.precision}; give one of bf16 and int8")
    for one in real or ():
        for same in (f32, other):
            if one.precision == same.precision and one.model_sha256 != same.model_sha256:
                raise Rpn3dError(f"{one.path}: ran with another model than {same.path}; detect anew with one of them")
    count = matched = 0
    likely, new = [0, 0], [0, 0]  # those with (without) a partner, and all
    shifts: list[float] = []
    for uid, scan in f32.scans.items():
        theirs = other.scans[uid].findings
        found = partners(scan.findings, theirs)
        count += len(found)
        for finding, partner in zip(scan.findings, found, strict=True):
            likely[1] += finding.probability >= LIKELY
            if partner is not None:
                matched += 1
                likely[0] += finding.probability >= LIKELY
                shifts.append(theirs[partner].probability - finding.probability)
        taken = set(found)
        strong = [k for k, finding in enumerate(theirs) if finding.probability >= LIKELY]
        new[0] += sum(k not in taken for k in strong)
        new[1] += len(strong)
    change = other.froc.cpm - f32.froc.cpm
    nodules = None if real is None else tuple(_found(folder.froc) for folder in real)
    all_found = None if nodules is None else bool(nodules[0]) and nodules[0] <= nodules[1]
    shift = np.abs(np.asarray(shifts, dtype=np.float64))
    return {
        "model_sha256": other.model_sha256,
        "cpm": round(other.froc.cpm, 4),
        "cpm_change": round(change, 4),
        "scans": len(other.scans),
        "nodules": len(other.froc.nodules),
        "findings": count,
        "matched_findings": _share(matched, count),
        "likely_findings": likely[1],
        "matched_likely_findings": _share(*likely),
        "new_likely_findings": _share(*new),
        "probability_shift_mean": None if not shifts else round(float(np.mean(shifts)), 4),
        "probability_shift_median": None if not shifts else round(float(np.median(shift)), 4),
        "probability_shift_p95": None if not shifts else round(float(np.percentile(shift, 95)), 4),
        "real_scans": None if real is None else len(real[0].scans),
        "real_nodules": None if real is None else len(real[0].froc.nodules),
        "real_nodules_found_f32": None if nodules is None else len(nodules[0]),
        "real_nodules_found_both": None if nodules is None else len(nodules[0] & nodules[1]),
        "real_nodules_found": all_found,
        "proven": bool(all_found) and bool(round(change, 9) >= -MOST_CPM_LOST),
    }


def add_to_proof(path: Path, weights: Path, f32: Folder, entry: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Write `entry` into the proof at `path`, beside what it holds for the same weights; whole or not at all.

    Returns:
        What the file holds now.

    Raises:
        Rpn3dError: the int8 model beside the weights is not the one that was measured.
    """
    digest = file_sha256(weights)
    beside = weights.with_name(f"{weights.stem}-{precision}.xml")
    if precision == "int8" and beside.is_file():
        if noted(beside, "caffemodel_sha256") != digest:
            raise Rpn3dError(f"{beside}: was made from other weights than {weights.name}")
        if (found := noted(beside, "bin_sha256")) != entry["model_sha256"]:
            raise Rpn3dError(
                f"{beside}: its weights are {str(found)[:8]}..., but the model that was measured is "
                f"{entry['model_sha256'][:8]}...; measure the one that is shipped"
            )
    kept: dict[str, Any] = {}
    try:
        if read_proof(path).weights_sha256 == digest:
            kept = json.loads(path.read_text(encoding="utf-8"))["precisions"]
    except ProofError:
        if path.is_file():
            raise
    plain = {"cpm": round(f32.froc.cpm, 4), "scans": len(f32.scans), "nodules": len(f32.froc.nodules)}
    content = {
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": digest,
        "precisions": {**kept, "f32": plain, precision: dict(entry)},
    }
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def markdown(content: Mapping[str, Any]) -> str:
    """A table of the proof, a row a precision, from the JSON alone."""
    lines = [
        "| precision | CPM | change | findings matched, of p >= 0.5 / of all | new of p >= 0.5 "
        "| shift of probability, median / 95 % | real nodules found | proven |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in content["precisions"].items():
        if name == "f32":
            lines.append(f"| f32 | {entry['cpm']:.3f} | | | | | | the measure |")
            continue
        real = "not measured"
        if entry["real_nodules_found"] is not None:
            real = f"{entry['real_nodules_found_both']} of {entry['real_nodules_found_f32']} that f32 finds"
        lines.append(
            f"| {name} | {entry['cpm']:.3f} | {entry['cpm_change']:+.3f} "
            f"| {_percent(entry['matched_likely_findings'])} / {_percent(entry['matched_findings'])} "
            f"| {_percent(entry['new_likely_findings'])} "
            f"| {_number(entry['probability_shift_median'])} / {_number(entry['probability_shift_p95'])} "
            f"| {real} | {'yes' if entry['proven'] else 'no'} |"
        )
    first = content["precisions"]["f32"]
    lines += [
        "",
        f"Against f32 over {first['scans']} scans with {first['nodules']} annotated nodules. Matched: a finding within "
        f"the radius of that of f32. Proven: CPM at most {MOST_CPM_LOST} lower, and every real nodule that f32 finds "
        f"with a probability of {LIKELY} or more is found so, too.",
    ]
    return "\n".join(lines)


def _same_scans(first: Folder, second: Folder) -> None:
    for a, b in ((first, second), (second, first)):
        if missing := sorted(set(a.scans) - set(b.scans)):
            raise Rpn3dError(f"{b.path}: lacks {len(missing)} scans of {a.path}, such as {missing[0]}")


def _found(froc: FrocResult) -> frozenset[int]:
    return frozenset(k for k, n in enumerate(froc.nodules) if n.probability is not None and n.probability >= LIKELY)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(
    f32: Annotated[Path, typer.Argument(metavar="F32", help="Results of `rpn3d detect --precision f32`.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Results of another precision, same scans.")],
    annotations: Annotated[Path, typer.Option(help="Of these scans.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The proof; other precisions in it are kept.")],
    real_f32: Annotated[Path | None, typer.Option(help="Results in f32 over real scans.")] = None,
    real: Annotated[Path | None, typer.Option(help="Results in the other precision over them.")] = None,
    real_annotations: Annotated[Path | None, typer.Option(help="Of the real scans.")] = None,
    weights: Annotated[Path, typer.Option(help="The caffemodel that all were made from.")] = WEIGHTS,
) -> None:
    """Measure what a precision costs against f32, and write it beside the weights."""
    named = (real_f32, real, real_annotations)
    if any(named) and not all(named):
        raise Rpn3dError("--real-f32, --real and --real-annotations belong together: give all three or none")
    first, second = read_folder(f32, annotations), read_folder(other, annotations)
    pair = None
    if real_f32 is not None and real is not None and real_annotations is not None:
        pair = (read_folder(real_f32, real_annotations), read_folder(real, real_annotations))
    content = add_to_proof(out, weights, first, compare(first, second, pair), second.precision)
    print(markdown(content))


if __name__ == "__main__":
    import sys

    try:
        typer.run(main)
    except Rpn3dError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
