"""What the first layers need not compute: the emptiness around the lungs.

More than half of a window lies beyond the dilated lungs and holds one value, `OUTSIDE`. The first layers see a few
voxels around each of theirs, so there they give one answer for all of it, and near a face of the window, where the
padding of the convolutions begins, one for each distance from the face. That answer is computed once, in a window of a
few voxels that holds nothing else, and put together to any size; layers run over boxes around the lungs alone. Nothing
is approximated.

Spacing, with numbers: stride 2, halo 2. An output cell of two voxels sees two voxels more to each side, so only the
first and the last cell along an axis see beyond the window. Nothing but `OUTSIDE` along 16 voxels gives cells 0 (face),
1 to 6 (all alike), 7 (face); along 320 voxels it is cell 0, then 158 times cell 1, then cell 7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.network_input import OUTSIDE, WINDOW_MULTIPLE

PARTING_STEP = 8
"""Voxels between the columns at which a slab may be parted."""

EXTENT_MULTIPLE = 8
"""Of the boxes' extents: few shapes occur, and each one costs the choice of kernels."""


@dataclass(frozen=True)
class Box:
    """Rows and columns of a slab that are given to the layers (start, stop) and whose output is kept; (y, x)."""

    start: tuple[int, int]
    stop: tuple[int, int]
    core_start: tuple[int, int]
    core_stop: tuple[int, int]

    @property
    def area(self) -> int:
        """Given voxels of each slice."""
        return (self.stop[0] - self.start[0]) * (self.stop[1] - self.start[1])

    def cells(self, stride: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The core in output cells: of the window, and of what came for this box."""
        spans = list(zip(self.start, self.core_start, self.core_stop, strict=True))
        y, x = (slice(first // stride, last // stride) for _, first, last in spans)
        inner_y, inner_x = (slice((first - at) // stride, (last - at) // stride) for at, first, last in spans)
        return (y, x), (inner_y, inner_x)


class Emptiness:
    """What the layers give where a window holds `OUTSIDE` alone.

    Args:
        layers: (1, 1, D, H, W) uint8 -> (1, D / stride, H / stride, W / stride, channels).
        stride: of the output.
        halo: voxels to each side that an output sees, a multiple of `stride`.
    """

    def __init__(self, layers: Callable[[NDArray[np.uint8]], NDArray[Any]], stride: int, halo: int) -> None:
        self._border = halo // stride
        # One cell more than the faces', and no extent that the network itself would never be given.
        edge = -(-(2 * self._border + 1) * stride // WINDOW_MULTIPLE) * WINDOW_MULTIPLE
        self._cells = np.array(layers(np.full((1, 1, edge, edge, edge), OUTSIDE, dtype=np.uint8)))

    def over(self, cells: Sequence[int]) -> NDArray[Any]:
        """The answer for a window of so many output cells, (1, z, y, x, channels); a new array.

        Raises:
            ValueError: an extent that is shorter than the faces' cells.
        """
        return np.ascontiguousarray(self._cells[0][np.ix_(*map(self._along, cells))])[None]

    def _along(self, cells: int) -> NDArray[np.intp]:
        border, known = self._border, self._cells.shape[1]
        if cells < 2 * border + 1:
            raise ValueError(f"{cells} cells are fewer than the {2 * border + 1} of two faces and what lies between")
        index = np.full(cells, border, dtype=np.intp)
        index[:border] = np.arange(border)
        index[cells - border :] = np.arange(known - border, known)
        return index


def boxes(voxels: NDArray[np.uint8], stride: int, halo: int) -> list[Box]:
    """Boxes whose cores hold all that sees a voxel other than `OUTSIDE`: none, one, or two side by side.

    Args:
        voxels: (slices, height, width) uint8, height and width multiples of 16.
        stride: of the output; starts and cores are multiples of it.
        halo: voxels to each side that an output sees, a multiple of `stride`.

    Returns:
        In voxels of a slice. Cores of two may overlap; both are right there.
    """
    seen = (voxels != OUTSIDE).any(axis=0)
    if not seen.any():
        return []
    width = seen.shape[1]
    found = [_box(seen, 0, width, stride, halo)]
    for middle in range(PARTING_STEP, width, PARTING_STEP):
        if seen[:, :middle].any() and seen[:, middle:].any():
            pair = [_box(seen, 0, middle, stride, halo), _box(seen, middle, width, stride, halo)]
            if sum(box.area for box in pair) < sum(box.area for box in found):
                found = pair
    return found


def _box(seen: NDArray[np.bool_], first: int, last: int, stride: int, halo: int) -> Box:
    """Of what is seen in columns `first` to `last`."""
    rows, columns = (np.flatnonzero(seen[:, first:last].any(axis=axis)) for axis in (1, 0))
    spans = [
        _span(int(rows[0]), int(rows[-1]) + 1, seen.shape[0], stride, halo),
        _span(first + int(columns[0]), first + int(columns[-1]) + 1, seen.shape[1], stride, halo),
    ]
    start, stop, core_start, core_stop = ((spans[0][k], spans[1][k]) for k in range(4))
    return Box(start, stop, core_start, core_stop)


def _span(first: int, last: int, extent: int, stride: int, halo: int) -> tuple[int, int, int, int]:
    """Start, stop and core of what is given, so that all that sees `first` to `last` lies in the core."""
    start = max(0, first - 2 * halo) // stride * stride
    length = min(extent, -(-(last + 2 * halo - start) // EXTENT_MULTIPLE) * EXTENT_MULTIPLE)
    start = min(start, extent - length)
    stop = start + length
    return start, stop, start + halo if start else 0, stop - halo if stop < extent else extent
