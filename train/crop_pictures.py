"""Pictures of crops of a batch with what was asked for and what the network answered, for TensorBoard."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caffe_models.rpn.anchors import ANCHORS_VOXEL
from runtime.candidates import decode, nms
from runtime.drawing import Colour, draw_box
from train.dataset import IGNORE, TARGET

CROPS = 4
ANSWERS = 3
EDGE = 192
"""Pixels that a crop is enlarged to, at least."""

GREEN: Colour = (60, 220, 90)
YELLOW: Colour = (230, 200, 60)


def draw_crops(
    data: NDArray[np.float32],
    nodules: NDArray[np.float32],
    head: NDArray[np.float32],
    anchors: Sequence[float] = ANCHORS_VOXEL,
) -> NDArray[np.uint8]:
    """The first crops of a batch, a row each: the slice through a target, and the one through the strongest answer.

    Green: a target; yellow: a place that counts neither way; red: the strongest answers, the brighter the surer. A box
    is drawn in every slice that it reaches.

    Args:
        data: (n, 1, z, y, x), the network's input.
        nodules: (n, k, 5): z, y, x, diameter in voxels of the crop, kind.
        head: (n, 15, z/4, y/4, x/4).

    Returns:
        (height, width, 3) uint8.
    """
    rows = [_row(*one, anchors) for one in zip(data[:CROPS, 0], nodules, head, strict=False)]
    return np.concatenate(rows)


def _row(
    voxels: NDArray[np.float32], nodules: NDArray[np.float32], head: NDArray[np.float32], anchors: Sequence[float]
) -> NDArray[np.uint8]:
    found = nms(decode(head, -np.inf, anchors=anchors, max_candidates=200)).take(np.arange(ANSWERS)[: len(head)])
    boxes: list[tuple[NDArray[np.float32], float, Colour]] = []
    for logit, centre, diameter in zip(found.logit, found.centre_voxel, found.diameter_voxel, strict=True):
        boxes.append((centre, float(diameter), (90 + int(165 / (1 + np.exp(-float(logit)))), 40, 40)))
    for kind, colour in ((IGNORE, YELLOW), (TARGET, GREEN)):  # targets last, over all others
        boxes.extend((row[:3], float(row[3]), colour) for row in nodules if row[4] == kind)
    targets = nodules[nodules[:, 4] == TARGET]
    first = float(targets[0, 0]) if len(targets) else (len(voxels) - 1) / 2
    second = float(found.centre_voxel[0, 0]) if len(found) else first
    return np.concatenate([_slice(voxels, place, boxes) for place in (first, second)], axis=1)


def _slice(
    voxels: NDArray[np.float32], place: float, boxes: Sequence[tuple[NDArray[np.float32], float, Colour]]
) -> NDArray[np.uint8]:
    """An axial slice with the boxes that reach it; a dark line at its right and its foot."""
    index = int(np.clip(round(place), 0, len(voxels) - 1))
    zoom = -(-EDGE // len(voxels))
    grey = np.clip(voxels[index] * 128.0 + 128.0, 0, 255).astype(np.uint8)
    picture = np.repeat(np.kron(grey, np.ones((zoom, zoom), np.uint8))[..., None], 3, axis=2)
    for centre, diameter, colour in boxes:
        if abs(float(centre[0]) - index) <= max(diameter, 1.0) / 2:
            where = tuple((float(c) + 0.5) * zoom - 0.5 for c in centre[1:])
            draw_box(picture, (where[0], where[1]), diameter * zoom, colour)
    picture[-2:] = picture[:, -2:] = 24
    return picture
