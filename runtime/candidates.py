"""Head output to candidates: decoding, then one candidate for all that mean the same nodule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from caffe_models.rpn import boxes
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE, VALUES_PER_ANCHOR, cell_centres
from runtime.tiling import HeadOutput

MAX_DLOGD = 4.0
"""Diameters stay within e^4 = 55 times the anchor and a 55th of it, so that a wild output cannot overflow."""

DECODE_MAX_CANDIDATES = 100_000
"""An untrained net says yes everywhere: half a million candidates, and 100 MB for nothing."""

LEAST_LOGIT = math.log(1e-4 / (1 - 1e-4))
"""Candidates below a probability of 0.0001 count for nothing: they get no place among the best of a scan, nor do they
have a say where a nodule is. The original's threshold of -3 is of a net as it was trained: once its probabilities are
calibrated, next to no false positive has 0.05, and a level of mining would have nothing left to learn from."""

NMS_IOU = 0.1
NMS_MAX_CANDIDATES = 2000

VOTE_ROOT = 3.0
"""A candidate's weight where a nodule is settled is this root of its odds. The square root, or the fourth, is nearly as
good; the odds themselves leave the likeliest cell all but alone (docs/voting.md)."""


@dataclass(frozen=True)
class Candidates:
    """What might be nodules, most likely first.

    Attributes:
        logit: (n,) float32; the probability is its sigmoid.
        centre_voxel: (n, 3) float32, (z, y, x) index positions in the working volume; a voxel's centre is a whole
            number.
        diameter_voxel: (n,) float32.
    """

    logit: NDArray[np.float32]
    centre_voxel: NDArray[np.float32]
    diameter_voxel: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.logit)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Candidates":
        """Those that a NumPy index or mask names, in its order."""
        return Candidates(self.logit[index], self.centre_voxel[index], self.diameter_voxel[index])


def decode(
    head: HeadOutput | NDArray[np.float32],
    threshold_logit: float,
    *,
    lung: NDArray[np.bool_] | None = None,
    anchors: Sequence[float] = ANCHORS_VOXEL,
    max_candidates: int = DECODE_MAX_CANDIDATES,
) -> Candidates:
    """Cells and anchors whose logit is at least `threshold_logit`, as spheres.

    With o the centre of the cell (4 i + 1.5) and a the anchor: centre = o + (dz, dy, dx) a, diameter = a exp(dlogd).
    Values that are not finite are dropped, as are centres outside the volume or `lung`.

    Args:
        head: (15, d, h, w); channel = anchor * 5 + k, k = logit, dz, dy, dx, dlogd.
        threshold_logit: least logit to keep.
        lung: bool (z, y, x) on the working volume: where a centre, rounded to a voxel, may lie.
        anchors: edge of each anchor in voxels.
        max_candidates: of more than so many in the lung, the highest logits (and those equal to the last of them).

    Returns:
        Candidates in a fixed order: by logit, equal ones by position and diameter.

    Raises:
        ValueError: a head whose channels are not five for each anchor.
    """
    values = head.values if isinstance(head, HeadOutput) else head
    if values.ndim != 4 or values.shape[0] != VALUES_PER_ANCHOR * len(anchors):
        raise ValueError(
            f"a head of shape {values.shape} does not hold five channels for each of {len(anchors)} anchors"
        )
    cells = values.shape[1:]
    by_anchor = values.reshape(len(anchors), VALUES_PER_ANCHOR, -1)
    places = [_places(one, edge, cells, threshold_logit, lung) for one, edge in zip(by_anchor, anchors, strict=True)]
    anchor = np.repeat(np.arange(len(anchors)), [len(place) for place in places])
    cell = np.concatenate(places)
    if len(cell) > max_candidates:
        logits = by_anchor[anchor, 0, cell]
        kept = logits >= np.partition(logits, len(logits) - max_candidates)[len(logits) - max_candidates]
        anchor, cell = anchor[kept], cell[kept]
    found = by_anchor[anchor, :, cell].astype(np.float64)
    edge = np.asarray(anchors, dtype=np.float64)[anchor]
    deltas = np.column_stack([found[:, 1:4], np.clip(found[:, 4], -MAX_DLOGD, MAX_DLOGD)])
    centre, diameter = boxes.decode(deltas, _origins(cell, cells), edge)
    candidates = Candidates(found[:, 0].astype(np.float32), centre.astype(np.float32), diameter.astype(np.float32))
    return candidates.take(_order(candidates))


def _places(
    values: NDArray[np.float32],
    edge: float,
    cells: tuple[int, ...],
    threshold_logit: float,
    lung: NDArray[np.bool_] | None,
) -> NDArray[np.intp]:
    """Flat numbers of the cells of one anchor, `values` (5, cells), that are candidates.

    The lung is asked before anything is left out: what a net says of the emptiness beyond it, where it was never
    taught, must not crowd out what it says of the inside.
    """
    cell = np.flatnonzero(values[0] >= threshold_logit)
    centre = [
        values[1 + axis, cell].astype(np.float64) * edge + cell_centres(n)[i]
        for axis, (n, i) in enumerate(zip(cells, np.unravel_index(cell, cells), strict=True))
    ]
    within = np.ones(len(cell), dtype=bool)
    for along, n in zip(centre, cells, strict=True):
        within &= (along >= -0.5) & (along < n * STRIDE - 0.5)
    cell = cell[within]
    if lung is not None:
        cell = cell[_inside([along[within] for along in centre], lung)]
    return cell[np.isfinite(values[:, cell]).all(axis=0)]


def _origins(cell: NDArray[np.intp], cells: tuple[int, ...]) -> NDArray[np.float64]:
    """Centres (n, 3) of the cells with these flat numbers."""
    index = np.unravel_index(cell, cells)
    return np.stack([cell_centres(n)[i] for n, i in zip(cells, index, strict=True)], axis=1)


def nms(
    candidates: Candidates,
    *,
    iou_threshold: float = NMS_IOU,
    max_candidates: int = NMS_MAX_CANDIDATES,
    max_kept: int | None = None,
    vote_root: float = VOTE_ROOT,
) -> Candidates:
    """Greedy non-maximum suppression, in which all that mean a nodule have a say where it is.

    The likeliest is kept, all that mean the same nodule are dropped, and so on. Two candidates mean the same nodule if
    the IoU of their cubes is above `iou_threshold`, or if their centres are closer than half of the larger radius. The
    second rule is for concentric ones: a 6 mm cube in the middle of a 20 mm cube has an IoU of 0.027 only, yet a nodule
    of 20 mm has no second one within 5 mm of its centre.

    The centre of what is left is the mean of those of the kept one and of the dropped ones near it, weighted by the
    cube root of their odds (box voting: Gidaris and Komodakis 2015). A nodule that lies between cells raises the logits
    of all of them: they say where it is better than the deltas of the likeliest alone, which lead it no more than some
    of the way from the cell's centre. Near is what lies within the kept one's radius or a stride, whichever is more: so
    far the likeliest cell may be off, and no nodule beside this one draws it further. Logit and diameter are the kept
    one's. What comes to lie within a stride of a likelier one, or within half of the larger radius, is dropped, too.

    Args:
        candidates: in any order; with all of `LEAST_LOGIT` and more, whatever will be reported.
        iou_threshold: as above; 0.1 as in DeepLung.
        max_candidates: only so many of the highest logits take part.
        max_kept: stop at so many: they are the first of what would be left. None: go through all.
        vote_root: which root of their odds is their weight, above 0; next to 0 the likeliest is alone.

    Returns:
        Those that are left, highest logit first; the order of equal ones is that of the positions they had, so that two
        runs give the same list.
    """
    best = candidates.take(_order(candidates)[:max_candidates])
    logit, centre, diameter = (a.astype(np.float64) for a in (best.logit, best.centre_voxel, best.diameter_voxel))
    place = np.arange(len(best))
    kept: list[np.intp] = []
    centres: list[NDArray[np.float64]] = []
    while len(place) and (max_kept is None or len(kept) < max_kept):
        first, rest = place[0], place[1:]
        iou = boxes.iou(centre[[first]], diameter[[first]], centre[rest], diameter[rest])[0]
        distance = ((centre[rest] - centre[first]) ** 2).sum(axis=1)
        near = np.maximum(diameter[rest], diameter[first]) / 4  # half of the radius
        apart = (iou <= iou_threshold) & (distance >= near**2)
        reach = max(float(STRIDE), diameter[first] / 2)
        voters = np.append(rest[~apart & (distance <= reach**2)], first)
        weight = np.exp((logit[voters] - logit[first]) / vote_root)
        place = rest[apart]
        settled = weight @ centre[voters] / weight.sum()
        away = np.linalg.norm(np.reshape(centres, (-1, 3)) - settled, axis=1)
        if np.all(away >= np.maximum(STRIDE, np.maximum(diameter[kept], diameter[first]) / 4)):  # no second one there
            kept.append(first)
            centres.append(settled)
    left = best.take(np.asarray(kept, dtype=np.intp))
    return replace(left, centre_voxel=np.reshape(centres, (-1, 3)).astype(np.float32))


def _order(candidates: Candidates) -> NDArray[np.intp]:
    z, y, x = candidates.centre_voxel.T
    return np.lexsort((candidates.diameter_voxel, x, y, z, -candidates.logit))


def _inside(centre: Sequence[NDArray[np.float64]], lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the voxels next to these centres, given axis by axis, are in the lung; beyond its array lies padding."""
    nearest = [np.floor(along + 0.5).astype(np.intp) for along in centre]
    inside = np.ones(len(nearest[0]), dtype=bool)
    for along, n in zip(nearest, lung.shape, strict=True):
        inside &= along < n
        np.minimum(along, n - 1, out=along)
    return np.asarray(inside & lung[tuple(nearest)])
