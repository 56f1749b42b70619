"""Where findings lie: at the likeliest cell's word alone, or where all that mean the nodule see it.

    python -m bench.voting SCAN... --annotations annotations.csv --model rpn3d-int8.xml

Each scan goes through the network once; its candidates are then settled by `runtime.candidates.nms` with several roots
of the odds as their weights. Printed are the rows of docs/voting.md: how far the nodules' surest marks are from their
centres, by diameter, and the official evaluation.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench.evaluation_distances import marks_apart
from bench.evaluation_figures import SIZES_MM, size_label
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
SURE = 0.3
"""Marks below are not asked where their nodule is."""


def table(outcomes: Mapping[str, FrocResult]) -> str:
    """Rows of docs/voting.md, of the evaluation of each root's marks."""
    lines: list[str] = []
    for name, froc in outcomes.items():
        apart = marks_apart(froc, SURE)
        cells = []
        for low, high in pairwise(SIZES_MM):
            away = [one.distance_mm for one in apart if low <= one.nodule.diameter_mm < high]
            cells.append("{:.2f}, {:.2f}".format(*np.quantile(away, (0.5, 0.9))) if away else "-")
        beside = sum(not one.hit for one in apart)
        first, at_two = froc.sensitivities[0], froc.sensitivities[4]
        lines.append(f"| {name} | {froc.cpm:.3f} | {first:.3f} | {at_two:.3f} | {beside} | {' | '.join(cells)} |")
    sizes = [f"{size_label(low, high)} mm: median, 9 in 10 within" for low, high in pairwise(SIZES_MM)]
    heads = ["weight", "CPM", "found at 1/8", "at 2", "marks beside", *sizes]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines])


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
    print(table({name: evaluate_marks(joined(parts, name), nodules, None, uids) for name, parts in found.items()}))


def _marks(uid: str, kept: Candidates, world: NDArray[np.float64]) -> Marks:
    return Marks((uid,) * len(kept), world, sigmoid(kept.logit), uid)


if __name__ == "__main__":
    typer.run(main)
