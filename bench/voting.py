"""Where findings lie: at the likeliest cell's word alone, or where all that mean the nodule see it.

    python -m bench.voting SCAN... --annotations annotations.csv --model rpn3d-int8.xml

Each scan goes through the network once; its candidates are then settled by `runtime.candidates.nms` with several roots
of the odds as their weights. Printed are the rows of docs/voting.md: how far the nodules' surest marks are from their
centres, by diameter, and the official evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from runtime.budget import make_budget
from runtime.candidates import LEAST_LOGIT, Candidates, decode, nms
from runtime.detect import Detector, Settings
from runtime.find_scans import find_scans
from runtime.findings import MAX_PER_SCAN, sigmoid
from runtime.froc import FrocResult, evaluate_marks
from runtime.mark_files import Marks, joined, read_annotations
from runtime.scan_stages import prepare

ALONE = 1e-6
ROOTS: Mapping[str, float] = {
    "the likeliest alone": ALONE,
    "odds": 1.0,
    "square root": 2.0,
    "cube root": 3.0,
    "4th root": 4.0,
    "6th root": 6.0,
}
BANDS_MM = ((3.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, 40.0))
BESIDE_MM = 3.0
"""A mark so far beyond a nodule's surface still means it, for the distance, though it is no hit."""
SURE = 0.3
"""Marks below are not asked where their nodule is."""


@dataclass(frozen=True)
class Outcome:
    """What one root gives.

    Attributes:
        root: its name in `ROOTS`.
        distances_mm: for each band of diameters the distances of the surest marks from the nodules' centres.
        froc: the official evaluation.
    """

    root: str
    distances_mm: tuple[NDArray[np.float64], ...]
    froc: FrocResult


def distances(marks: Marks, nodules: Marks) -> tuple[NDArray[np.float64], ...]:
    """For each band of diameters, how far the surest mark about each nodule is from its centre, in mm.

    Args:
        marks: with probabilities. nodules: with diameters in mm.
    """
    found: list[list[float]] = [[] for _ in BANDS_MM]
    rows = marks.rows_of()
    for uid, centre, diameter in zip(nodules.seriesuid, nodules.xyz_mm, nodules.value, strict=True):
        own = rows.get(uid, np.zeros(0, np.intp))
        apart = np.linalg.norm(marks.xyz_mm[own] - centre, axis=1)
        near = (apart <= diameter / 2 + BESIDE_MM) & (marks.value[own] >= SURE)
        if near.any():
            surest = np.flatnonzero(near)[np.argmax(marks.value[own][near])]
            for band, (low, high) in zip(found, BANDS_MM, strict=True):
                if low <= diameter < high:
                    band.append(float(apart[surest]))
    return tuple(np.array(band) for band in found)


def table(outcomes: Sequence[Outcome]) -> str:
    """Rows of docs/voting.md."""
    heads = [f"{low:g} to {high:g} mm" for low, high in BANDS_MM]
    lines = [
        "| weight | CPM | at 1/8 | at 2 | " + " | ".join(f"{head}: median, 9 in 10 within" for head in heads) + " |",
        "|---" * (4 + len(heads)) + "|",
    ]
    for one in outcomes:
        apart = [f"{np.median(d):.2f}, {np.quantile(d, 0.9):.2f}" if len(d) else "-" for d in one.distances_mm]
        first, at_two = one.froc.sensitivities[0], one.froc.sensitivities[4]
        lines.append(f"| {one.root} | {one.froc.cpm:.3f} | {first:.3f} | {at_two:.3f} | " + " | ".join(apart) + " |")
    return "\n".join(lines)


def main(
    scans: list[str],
    annotations: Annotated[Path, typer.Option(help="annotations.csv of these scans.")],
    model: Annotated[Path, typer.Option(help="The IR.")],
    cpus: int = 2,
) -> None:
    """Measure what the vote does for the place of findings, and for the evaluation."""
    nodules = read_annotations(annotations)
    detector = Detector(model, Settings(budget=make_budget(cpus=cpus), pictures=False))
    uids: list[str] = []
    found: dict[str, list[Marks]] = {name: [] for name in ROOTS}
    for source in find_scans(scans):
        scan = prepare(source, cpus, pictures=False)
        detector.wait()
        uid = scan.volume.seriesuid
        candidates = decode(detector.run(scan, detector.plan(scan)).head, LEAST_LOGIT, lung=scan.working.lung)
        for name, root in ROOTS.items():
            kept = nms(candidates, max_kept=MAX_PER_SCAN, vote_root=root)
            found[name].append(_marks(uid, kept, scan.working.grid.to_world(kept.centre_voxel.astype(np.float64))))
        uids.append(uid)
        print(f"{len(uids)}: {uid}, {len(candidates)} candidates", flush=True)
    outcomes = []
    for name, parts in found.items():
        marks = joined(parts, name)
        outcomes.append(Outcome(name, distances(marks, nodules), evaluate_marks(marks, nodules, None, uids)))
    print(table(outcomes))


def _marks(uid: str, kept: Candidates, world: NDArray[np.float64]) -> Marks:
    return Marks((uid,) * len(kept), world, sigmoid(kept.logit), uid)


if __name__ == "__main__":
    typer.run(main)
