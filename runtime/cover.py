"""Windows of one size that cover the lungs: as few as their shape needs, not a regular grid over the box.

Along an axis windows are placed from the first lung cell on, each as far along as its margin allows; where the lungs
pause, the next window begins at the next lung cell. The part of the lungs within one such window's core is then covered
along the second axis, and so on: over an apex of the lungs there are fewer windows than over their base, and left and
right lung get windows of their own where that is less. All orders of the axes are tried.

Starts are multiples of 16, the network's coarsest stride: windows at other offsets would pool other voxels together
and give other scores than one window over everything.

Spacing, with numbers: an axis of 320 voxels full of lung, margin 32, windows of 192. The first starts at 0 and may keep
0..160; the second starts at 160 - 32 = 128 and ends with the axis.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.network_input import STRIDE, WINDOW_MULTIPLE

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """One window. All in voxels (z, y, x) of the working volume padded at its end to multiples of 16.

    Attributes:
        start, size: what the network is given; multiples of 16.
        core_start, core_stop: the part whose output is kept, half-open; multiples of 4.
    """

    start: Triple
    size: Triple
    core_start: Triple
    core_stop: Triple


@dataclass(frozen=True)
class Span:
    """A window along one axis."""

    start: int
    core_start: int
    core_stop: int


def cover(cells: NDArray[np.bool_], size: Triple, margin: int) -> list[Window]:
    """The fewest windows of this size found whose cores hold every cell once.

    Args:
        cells: output cells (4 voxels) that hold any lung; the volume they stand for is a multiple of 16.
        size: multiples of 16, no larger than the volume, at least `least_size(margin)` or as large as it.
        margin: least voxels between a core and a cut; cuts are all faces but the volume's own.
    """
    several = [axis for axis in range(3) if size[axis] < cells.shape[axis] * STRIDE]
    rest = [axis for axis in range(3) if axis not in several]
    # An axis that one window spans needs no place among the others.
    tried = ([*order, *rest] for order in itertools.permutations(several))
    return min((list(_cover(cells, size, margin, order, {})) for order in tried), key=len)


def _cover(
    cells: NDArray[np.bool_], size: Triple, margin: int, order: Sequence[int], spans: dict[int, Span]
) -> Iterator[Window]:
    if not order:
        z, y, x = (spans[axis] for axis in range(3))
        yield Window(
            (z.start, y.start, x.start),
            size,
            (z.core_start, y.core_start, x.core_start),
            (z.core_stop, y.core_stop, x.core_stop),
        )
        return
    axis = order[0]
    line = np.asarray(cells.any(axis=tuple(other for other in range(3) if other != axis)))
    for span in place(line, size[axis], margin):
        kept = [slice(None)] * 3
        kept[axis] = slice(span.core_start // STRIDE, span.core_stop // STRIDE)
        # The other axes keep their extent; along this one the part is all that its windows need to know of.
        yield from _cover(cells[tuple(kept)], size, margin, order[1:], {**spans, axis: span})


def place(line: NDArray[np.bool_], size: int, margin: int) -> list[Span]:
    """Windows of `size` along an axis whose cores hold all cells set in `line`; none where none is set."""
    extent = len(line) * STRIDE
    wanted = STRIDE * np.flatnonzero(line)
    if not len(wanted):
        return []
    if size >= extent:
        return [Span(0, 0, extent)]
    starts: list[int] = []
    firsts: list[int] = []
    at = int(wanted[0])
    while True:
        start = min(max(0, (at - margin) // WINDOW_MULTIPLE * WINDOW_MULTIPLE), extent - size)
        starts.append(start)
        firsts.append(at)
        left = wanted[wanted >= _last(start, size, extent, margin)]
        if not len(left):
            break
        at = int(left[0])
    # The last one need not reach beyond the lungs: drawn back, it overlaps more, and every core keeps more distance.
    end = _round_up(int(wanted[-1]) + STRIDE + margin)
    starts[-1] = max(0, min(starts[-1], end - size), starts[-2] + WINDOW_MULTIPLE if len(starts) > 1 else 0)
    spans = []
    begin = 0 if starts[0] == 0 else firsts[0]
    for k, start in enumerate(starts):
        stop = following = _last(start, size, extent, margin)
        if k + 1 < len(starts):
            middle = (starts[k + 1] + start + size) // 2 // STRIDE * STRIDE
            # Where two overlap enough they meet in the middle; else there is a pause between them.
            if start + size - starts[k + 1] >= 2 * margin and middle <= firsts[k + 1]:
                stop = following = min(middle, stop)
            else:
                following = firsts[k + 1]
        spans.append(Span(start, begin, stop))
        begin = following
    return spans


def sizes_to_try(line: NDArray[np.bool_], margin: int) -> list[int]:
    """Sizes along an axis, largest first: what covers all cells by one window, two, three ..., and each run of them."""
    extent = len(line) * STRIDE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    runs = STRIDE * edges.reshape(-1, 2)
    sizes = set()
    for first, last in [(int(runs[0, 0]), int(runs[-1, 1])), *(map(tuple, runs.tolist()) if len(runs) > 1 else ())]:
        length = min(extent, _round_up(last + margin)) - max(0, (first - margin) // WINDOW_MULTIPLE * WINDOW_MULTIPLE)
        overlap = _round_up(2 * margin)
        for count in range(1, length // WINDOW_MULTIPLE + 1):
            size = _round_up(math.ceil((length + (count - 1) * overlap) / count))
            sizes.add(min(extent, max(size, least_size(margin))))
    return sorted(sizes, reverse=True)


def least_size(margin: int) -> int:
    """Least extent of a window that keeps anything after its margins, wherever the lungs begin."""
    return _round_up(2 * margin + WINDOW_MULTIPLE)


def lung_cells(lung: NDArray[np.bool_], padded: Triple) -> NDArray[np.bool_]:
    """Which output cells of the padded volume hold any lung: (z / 4, y / 4, x / 4) of `padded`."""
    cells = np.asarray(lung, dtype=bool)
    for axis in range(3):
        # OR of whole slices: 30 times faster on a large mask than logical_or.reduceat
        first: list[slice] = [slice(None)] * 3
        first[axis] = slice(0, None, STRIDE)
        joined = cells[tuple(first)].copy()
        for offset in range(1, STRIDE):
            first[axis] = slice(offset, None, STRIDE)
            part = cells[tuple(first)]
            joined[tuple(slice(0, n) for n in part.shape)] |= part
        cells = joined
    extra = [(0, p // STRIDE - n) for p, n in zip(padded, cells.shape, strict=True)]
    return np.pad(cells, extra)


def _last(start: int, size: int, extent: int, margin: int) -> int:
    """Where the core of a window ends at the latest."""
    return extent if start + size == extent else (start + size - margin) // STRIDE * STRIDE


def _round_up(value: int, multiple: int = WINDOW_MULTIPLE) -> int:
    return -(-value // multiple) * multiple
