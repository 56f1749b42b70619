"""Runs a predictor over the windows of a plan and puts the cores together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caffe_models.rpn.anchors import ANCHORS_VOXEL, VALUES_PER_ANCHOR
from runtime.cover import Window
from runtime.network_input import OUTSIDE, STRIDE, coord_channels
from runtime.plan import Plan

HEAD_CHANNELS = len(ANCHORS_VOXEL) * VALUES_PER_ANCHOR

Predictor = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""(data (1, 1, D, H, W) grey levels, coord (1, 3, D/4, H/4, W/4)) -> head (1, 15, D/4, H/4, W/4) float32."""


class HasVoxels(Protocol):
    """What is needed of a `WorkingVolume`."""

    @property
    def voxels(self) -> NDArray[np.uint8]:
        """(z, y, x) uint8."""


@dataclass(frozen=True)
class HeadOutput:
    """The network's output over the padded working volume.

    Attributes:
        values: (15, z/4, y/4, x/4) float32; channel = anchor * 5 + k, k = logit, dz, dy, dx, dlogd. Where nothing was
            computed the logits are -inf and the rest 0.
        covered: bool (z/4, y/4, x/4): cells that lie in the core of a window.
    """

    values: NDArray[np.float32]
    covered: NDArray[np.bool_]


def run_windows(
    working: HasVoxels,
    plan: Plan,
    predictor: Predictor,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> HeadOutput:
    """The head over the whole working volume, window by window.

    The volume is padded at its end to multiples of 16 by the value that stands for everything outside the lungs;
    `coord` stays relative to the unpadded volume (see `network_input`).

    Args:
        working: the working volume.
        plan: made by `plan_windows` for this volume's shape.
        predictor: an engine, or anything that takes a window; it must not keep or change the arrays.
        progress: called with (windows done, windows in all) after each.

    Raises:
        ValueError: a plan for another shape, or a predictor whose output has another.
    """
    voxels = working.voxels
    if any(not 0 <= p - n < 16 for p, n in zip(plan.padded_shape, voxels.shape, strict=True)):
        raise ValueError(f"the plan is for a padded shape of {plan.padded_shape}, the volume has {voxels.shape}")
    cells = [extent // STRIDE for extent in plan.padded_shape]
    values = np.zeros((HEAD_CHANNELS, *cells), dtype=np.float32)
    values[::VALUES_PER_ANCHOR] = -np.inf
    covered = np.zeros(cells, dtype=bool)
    for done, window in enumerate(plan.windows):
        data = crop(voxels, window)[None, None]
        coord = coord_channels(voxels.shape, window.start, window.size)[None]
        head = predictor(data, coord)
        wanted = (1, HEAD_CHANNELS, *(extent // STRIDE for extent in window.size))
        if head.shape != wanted:
            raise ValueError(f"the predictor gave {head.shape} for a window of {window.size}, not {wanted}")
        kept = tuple(slice(a // STRIDE, b // STRIDE) for a, b in zip(window.core_start, window.core_stop, strict=True))
        inside = tuple(
            slice((a - s) // STRIDE, (b - s) // STRIDE)
            for a, b, s in zip(window.core_start, window.core_stop, window.start, strict=True)
        )
        values[:, *kept] = head[0][:, *inside]
        covered[kept] = True
        if progress is not None:
            progress(done + 1, len(plan.windows))
    return HeadOutput(values, covered)


def crop(voxels: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """The window's voxels; what lies beyond the volume is 170. A view where the window lies inside."""
    stop = [start + size for start, size in zip(window.start, window.size, strict=True)]
    found = voxels[tuple(slice(a, b) for a, b in zip(window.start, stop, strict=True))]
    if found.shape == window.size:
        return found
    padded = np.full(window.size, OUTSIDE, dtype=np.uint8)
    padded[tuple(slice(0, n) for n in found.shape)] = found
    return padded
