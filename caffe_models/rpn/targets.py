"""Targets of the region proposal network: what each anchor of a crop should say, and which anchors are not asked."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_models.rpn.anchors import ANCHORS_VOXEL, VALUES_PER_ANCHOR, cell_centres, cells_near
from caffe_models.rpn.boxes import encode, iou_of_volumes, overlap

POSITIVE, NEGATIVE, IGNORED = 1.0, 0.0, -1.0
"""Labels of anchors."""

TARGET, IGNORE, PADDING = 1, 0, -1
"""Kinds of nodules: to be found; neither to be found nor counted as background; no nodule, a row that fills up."""


@dataclass(frozen=True)
class TargetRule:
    """How anchors are labelled.

    Attributes:
        positive_iou: least overlap with a target for an anchor to be drawn as its positive.
        negative_iou: an anchor is background if its overlap with every nodule, ignored ones too, is below this.
        positives_per_nodule: most anchors drawn for one target; at least one is always found.
        anchors: edge of each anchor in voxels.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.02
    positives_per_nodule: int = 1
    anchors: tuple[float, ...] = ANCHORS_VOXEL


@dataclass(frozen=True)
class _Near:
    """The anchors of one size round one nodule that overlap it."""

    anchor: int
    window: tuple[slice, slice, slice]
    iou: NDArray[np.float64]


def anchor_targets(
    nodules: ArrayLike, cells: tuple[int, int, int], rule: TargetRule, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Labels and deltas of all anchors of a crop, in the layout of the head.

    A target's positives are drawn at random among its anchors of enough overlap; if there is none, the one of most
    overlap is taken, of several equal ones the nearest. Anchors below `negative_iou` are negative, all others ignored.

    Args:
        nodules: (n, 5): z, y, x, diameter in voxels of the crop, kind (1 target, 0 ignore, -1 padding).
        cells: output cells (z, y, x) of the crop.
        rule: thresholds and anchors.
        rng: for the draw.

    Returns:
        (5 * anchors, z, y, x) float32: channel = anchor * 5 + k; k = 0 is the label (1, 0 or -1), k = 1 to 4 are
        (dz, dy, dx, dlogd) where the label is 1, else 0.

    Raises:
        ValueError: a nodule without a positive diameter.
    """
    result = np.zeros((len(rule.anchors), VALUES_PER_ANCHOR, *cells), dtype=np.float32)
    labels = result[:, 0]
    targets: list[tuple[NDArray[np.float64], list[_Near]]] = []
    for row in np.asarray(nodules, np.float64).reshape(-1, 5):
        if row[4] == PADDING:
            continue
        if not row[3] > 0:
            raise ValueError(f"nodule {row.tolist()}: the diameter must be above 0")
        near = list(_overlapping(row, cells, rule))
        for one in near:
            view = labels[(one.anchor, *one.window)]
            view[one.iou >= rule.negative_iou] = IGNORED
        if row[4] == TARGET:
            targets.append((row, near))
    for row, near in targets:  # after all nodules were spared, so that none takes away another's positive
        anchor, index = _choose(row, near, labels, rule, rng)
        centres = np.stack([cell_centres(n)[i] for n, i in zip(cells, index, strict=True)], axis=1)
        edges = np.asarray(rule.anchors)[anchor]
        count = len(anchor)
        deltas = encode(np.tile(row[:3], (count, 1)), np.full(count, row[3]), centres, edges)
        result[anchor, 0, index[0], index[1], index[2]] = POSITIVE
        result[anchor, 1:, index[0], index[1], index[2]] = deltas
    return result.reshape(-1, *cells)


def _overlapping(row: NDArray[np.float64], cells: tuple[int, int, int], rule: TargetRule) -> Iterator[_Near]:
    """Only cells within reach of the nodule are looked at, and cubes overlap axis by axis: three short vectors."""
    for index, edge in enumerate(rule.anchors):
        reach = (edge + row[3]) / 2.0
        window = tuple(cells_near(row[axis], reach, cells[axis]) for axis in range(3))
        z, y, x = (overlap(cell_centres(cells[axis])[window[axis]], edge, row[axis], row[3]) for axis in range(3))
        if len(z) and len(y) and len(x):
            shared = z[:, None, None] * y[None, :, None] * x[None, None, :]
            yield _Near(index, (window[0], window[1], window[2]), iou_of_volumes(shared, edge, row[3]))


def _choose(
    row: NDArray[np.float64],
    near: list[_Near],
    labels: NDArray[np.float32],
    rule: TargetRule,
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Anchor numbers and cell indices (z, y, x) of the positives of one target; none if nothing overlaps it."""
    parts = []
    for one in near:
        place = np.indices(one.iou.shape).reshape(3, -1)
        place += np.array([[part.start] for part in one.window])
        parts.append(np.vstack([np.full((1, one.iou.size), one.anchor), place]))
    if not parts:
        return np.zeros(0, np.intp), [np.zeros(0, np.intp)] * 3
    every = np.concatenate(parts, axis=1)
    ious = np.concatenate([one.iou.ravel() for one in near])
    free = labels[tuple(every)] != POSITIVE  # another nodule's positive stays its own
    good = np.flatnonzero((ious >= rule.positive_iou) & free)
    if len(good):
        chosen = rng.choice(good, size=min(rule.positives_per_nodule, len(good)), replace=False)
    else:
        ious = np.where(free, ious, -1.0)
        best = np.flatnonzero(ious >= ious.max() - 1e-9)
        centres = np.stack([cell_centres(int(every[k].max()) + 1)[every[k][best]] for k in (1, 2, 3)], axis=1)
        distance = np.linalg.norm(centres - row[:3], axis=1)
        chosen = best[[int(np.argmin(distance))]]
    picked = every[:, chosen]
    return picked[0], [picked[1], picked[2], picked[3]]
