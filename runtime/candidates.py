"""Head output to candidates: decoding, then removal of boxes that mean the same nodule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caffe_models.rpn import boxes
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE, VALUES_PER_ANCHOR, cell_centres
from runtime.tiling import HeadOutput

MAX_DLOGD = 4.0
"""Diameters stay within e^4 = 55 times the anchor and a 55th of it, so that a wild output cannot overflow."""

DECODE_MAX_CANDIDATES = 100_000
"""An untrained net says yes everywhere: half a million candidates, and 100 MB for nothing."""

NMS_IOU = 0.1
NMS_MAX_CANDIDATES = 2000


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
        max_candidates: of more than so many, the highest logits (and those equal to the last of them) are decoded.

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
    by_anchor = values.reshape(len(anchors), VALUES_PER_ANCHOR, *cells)
    above = by_anchor[:, 0] >= threshold_logit
    if np.count_nonzero(above) > max_candidates:
        logits = by_anchor[:, 0][above]
        least = np.partition(logits, len(logits) - max_candidates)[len(logits) - max_candidates]
        above = by_anchor[:, 0] >= least
    anchor, *cell = np.nonzero(above)
    found = by_anchor[anchor, :, cell[0], cell[1], cell[2]].astype(np.float64)
    edge = np.asarray(anchors, dtype=np.float64)[anchor]
    origin = np.stack([cell_centres(n)[i] for n, i in zip(cells, cell, strict=True)], axis=1)
    deltas = np.column_stack([found[:, 1:4], np.clip(found[:, 4], -MAX_DLOGD, MAX_DLOGD)])
    centre, diameter = boxes.decode(deltas, origin, edge)
    within = (centre >= -0.5) & (centre < np.array(cells) * STRIDE - 0.5)
    keep = np.flatnonzero(np.isfinite(found).all(axis=1) & within.all(axis=1))
    if lung is not None:
        keep = keep[_inside(centre[keep], lung)]
    candidates = Candidates(
        found[keep, 0].astype(np.float32), centre[keep].astype(np.float32), diameter[keep].astype(np.float32)
    )
    return candidates.take(_order(candidates))


def nms(
    candidates: Candidates,
    *,
    iou_threshold: float = NMS_IOU,
    max_candidates: int = NMS_MAX_CANDIDATES,
    max_kept: int | None = None,
) -> Candidates:
    """Greedy non-maximum suppression: the likeliest is kept, all that mean the same nodule are dropped, and so on.

    Two candidates mean the same nodule if the IoU of their cubes is above `iou_threshold`, or if their centres are
    closer than half of the larger radius. The second rule is for concentric ones: a 6 mm cube in the middle of a 20 mm
    cube has an IoU of 0.027 only, yet a nodule of 20 mm has no second one within 5 mm of its centre.

    Args:
        candidates: in any order.
        iou_threshold: as above; 0.1 as in DeepLung.
        max_candidates: only so many of the highest logits take part.
        max_kept: stop at so many: they are the first of what would be left. None: go through all.

    Returns:
        Those that are left, highest logit first; the order of equal ones is that of their positions, so that two runs
        give the same list.
    """
    rest = candidates.take(_order(candidates)[:max_candidates])
    centre, diameter = rest.centre_voxel.astype(np.float64), rest.diameter_voxel.astype(np.float64)
    place = np.arange(len(rest))
    kept: list[np.intp] = []
    while len(place) and (max_kept is None or len(kept) < max_kept):
        kept.append(place[0])
        iou = boxes.iou(centre[:1], diameter[:1], centre[1:], diameter[1:])[0]
        distance = ((centre[1:] - centre[0]) ** 2).sum(axis=1)
        near = np.maximum(diameter[1:], diameter[0]) / 4  # half of the radius
        apart = np.flatnonzero((iou <= iou_threshold) & (distance >= near**2)) + 1
        place, centre, diameter = place[apart], centre[apart], diameter[apart]
    return rest.take(np.asarray(kept, dtype=np.intp))


def _order(candidates: Candidates) -> NDArray[np.intp]:
    z, y, x = candidates.centre_voxel.T
    return np.lexsort((candidates.diameter_voxel, x, y, z, -candidates.logit))


def _inside(centre: NDArray[np.float64], lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    shape = np.asarray(lung.shape)
    nearest = np.floor(centre + 0.5).astype(np.intp)
    inside = (nearest < shape).all(axis=1)  # beyond it lies the padding
    nearest = np.minimum(nearest, shape - 1)
    return np.asarray(inside & lung[nearest[:, 0], nearest[:, 1], nearest[:, 2]])
