"""How well sets of anchors fit the nodules of an annotation file, without any training.

    python -m bench.anchors annotations.csv

Each nodule is put at places drawn at random between the cells of the output; its best overlap with an anchor of each
set, and how many anchors overlap it enough to be its positive in training, are rows of the table in
docs/convergence.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE
from caffe_models.rpn.boxes import iou
from caffe_models.rpn.targets import TargetRule
from runtime.mark_files import read_annotations

SETS: Mapping[str, tuple[float, ...]] = {"5, 10, 20": ANCHORS_VOXEL, "10, 30, 60": (10.0, 30.0, 60.0)}
CLASSES_MM = ((0.0, 5.0), (5.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, np.inf))
PLACES = 5
"""At which each nodule is tried."""
SEED = 1


@dataclass(frozen=True)
class Fit:
    """How a set fits nodules, one value a place tried.

    Attributes:
        best: (n,) highest overlap (intersection over union of cubes) with any anchor.
        enough: (n,) anchors whose overlap is at least that of a positive.
    """

    best: NDArray[np.float64]
    enough: NDArray[np.intp]


def fit(diameters_mm: Sequence[float], anchors: Sequence[float], places: int = PLACES, seed: int = SEED) -> Fit:
    """Overlaps of nodules, each at `places` places, with the anchors round them.

    Args:
        diameters_mm: of the nodules; voxels are millimetres.
        anchors: edges in voxels, each at every cell.
    """
    draw = np.random.default_rng(seed)
    least = TargetRule().positive_iou
    best, enough = [], []
    for diameter in diameters_mm:
        # An anchor whose centre is further away than this shares less than half of either cube with the nodule.
        reach = int(np.ceil(max(diameter, *anchors) / 2 / STRIDE)) + 1
        cells = STRIDE * np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(
            -1, 3
        )
        nodules = draw.uniform(-STRIDE / 2, STRIDE / 2, (places, 3))
        found = np.concatenate(
            [iou(nodules, np.full(places, diameter), cells, np.full(len(cells), edge)) for edge in anchors], axis=1
        )
        best.append(found.max(axis=1))
        enough.append((found >= least).sum(axis=1))
    return Fit(np.concatenate(best), np.concatenate(enough))


def markdown(diameters_mm: NDArray[np.float64]) -> str:
    """The table: one row for each class of sizes and set of anchors."""
    lines = [
        "| diameter | nodules | anchors | best overlap, median | 5 % have less than | no anchor overlaps by half "
        "| anchors that do, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for low, high in CLASSES_MM:
        inside = diameters_mm[(diameters_mm >= low) & (diameters_mm < high)]
        if not len(inside):
            continue
        size = f"{low:g} to {high:g} mm" if low else f"under {high:g} mm"
        size = f"{low:g} mm and more" if np.isinf(high) else size
        for name, anchors in SETS.items():
            one = fit(inside.tolist(), anchors)
            lines.append(
                f"| {size} | {len(inside)} | {name} | {np.median(one.best):.2f} | {np.quantile(one.best, 0.05):.2f} "
                f"| {(one.enough == 0).mean():.0%} | {np.median(one.enough):.0f} |"
            )
    return "\n".join(lines)


def main(
    annotations: Annotated[Path, typer.Argument(metavar="ANNOTATIONS.csv", help="LUNA16-style, with diameter_mm.")],
) -> None:
    """Print the table."""
    diameters = read_annotations(annotations).value
    if not (diameters > 0).any():
        raise Rpn3dError(f"{annotations}: holds no nodule with a diameter above 0; give one with some")
    print(markdown(diameters[diameters > 0]))


if __name__ == "__main__":
    import sys

    try:
        typer.run(main)
    except Rpn3dError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
