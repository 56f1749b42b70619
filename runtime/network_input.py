"""What the network is fed: one definition, shared by detection and training.

`data` is the working volume's uint8 as (u8 - 128) / 128. `coord` tells the network where in the lung box each output
cell lies; it is relative to the whole, unpadded working volume, never to a window or crop of it, so that the same
place gives the same numbers whatever the tiling.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_models.rpn import anchors

STRIDE = anchors.STRIDE
"""Voxels per output cell along each axis."""

WINDOW_MULTIPLE = 16
"""Four poolings by two: every spatial extent fed to the network is a multiple of this."""

OUTSIDE = 170
"""uint8 value of everything outside the dilated lung, padding included (the value of soft tissue)."""


def to_input(u8: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., z, y, x) grey levels 0..255 -> float32 of the same shape, (u8 - 128) / 128, in [-1, 0.9921875]."""
    scaled = u8.astype(np.float32)
    scaled -= 128.0
    scaled *= 1.0 / 128.0
    return scaled


def coord_channels(extent_zyx: Sequence[int], start_zyx: Sequence[int], size_zyx: Sequence[int]) -> NDArray[np.float32]:
    """The `coord` blob of one window or crop.

    Channel 0, 1, 2 is the z, y, x position of each output cell's centre in the working volume, linear along its
    axis: (centre_voxel + 0.5) / extent - 0.5, so the volume's two faces are at -0.5 and 0.5. Cells in the padding
    go beyond that. An extent of 100 and a window that starts at voxel 32: the first cell's centre is at
    32 + 1.5 = 33.5, its coordinate 34 / 100 - 0.5 = -0.16.

    Args:
        extent_zyx: voxels of the whole working volume before any padding.
        start_zyx: the window's first voxel in it; may be negative.
        size_zyx: the window's voxels, multiples of 4.

    Returns:
        (3, size_z / 4, size_y / 4, size_x / 4) float32.

    Raises:
        ValueError: a size that is not a positive multiple of 4, or an extent that is not positive.
    """
    if any(size <= 0 or size % STRIDE for size in size_zyx) or any(extent <= 0 for extent in extent_zyx):
        raise ValueError(f"sizes {tuple(size_zyx)} must be positive multiples of 4, extents {extent_zyx} positive")
    cells = [size // STRIDE for size in size_zyx]
    coord = np.empty((3, *cells), dtype=np.float32)
    for axis, (extent, start, count) in enumerate(zip(extent_zyx, start_zyx, cells, strict=True)):
        along: Any = [None, None, None]
        along[axis] = slice(None)
        coord[axis] = ((start + anchors.cell_centres(count) + 0.5) / extent - 0.5)[tuple(along)]
    return coord
