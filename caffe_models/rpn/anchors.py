"""The anchors: cubes of three sizes round the centre of every output cell.

All lengths are voxels of the working volume, which are millimetres. Sizes 5, 10 and 20 follow the distribution of
nodule diameters (60 % of 3 to 10 mm, 40 % of 10 to 30 mm) as in DeepLung and NoduleNet.
"""

import numpy as np
from numpy.typing import NDArray

ANCHORS_VOXEL = (5.0, 10.0, 20.0)
"""Edge of each anchor."""

STRIDE = 4
"""Input voxels per output cell, on each axis."""

VALUES_PER_ANCHOR = 5
"""Channels of an anchor in the head: logit, dz, dy, dx, dlogd; channel = anchor * 5 + k."""

CELL_CENTRE_VOXEL = (STRIDE - 1) / 2.0
"""Where the centre of cell 0 lies: a cell covers voxels 0 to 3, and a voxel's centre is a whole number."""


def cell_centres(cells: int) -> NDArray[np.float64]:
    """(cells,) voxel positions of the cells' centres along one axis: 4 i + 1.5."""
    return STRIDE * np.arange(cells, dtype=np.float64) + CELL_CENTRE_VOXEL


def cells_near(centre: float, reach: float, cells: int) -> slice:
    """The cells of one axis whose centres lie closer than `reach` voxels to position `centre`; may be empty."""
    first = int(np.floor((centre - reach - CELL_CENTRE_VOXEL) / STRIDE)) + 1
    last = int(np.ceil((centre + reach - CELL_CENTRE_VOXEL) / STRIDE)) - 1
    start = min(max(first, 0), cells)
    return slice(start, max(start, min(last + 1, cells)))
