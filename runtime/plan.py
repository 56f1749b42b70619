"""How the working volume is cut into windows, so that the network's memory stays within the budget.

One window over everything is the reference: it computes each voxel once and every cell sees its whole surroundings.
Only where memory forbids it are there several, equal in size (one set of buffers), as large as fits. Neighbours
overlap by twice the margin, so that each window's core, the part that is kept, lies at least a margin away from any
cut. Starts are multiples of 16, the network's coarsest stride: windows at other offsets would pool other voxels
together and give other scores than the one window.

Spacing, with numbers: an axis of 320 voxels, margin 32. One window: 320. Two: n W - (n - 1) 64 >= 320 gives W = 192,
starts 0, 128, cores 0..160, 160..320. Three: W = 160 (149.3 rounded up to a multiple of 16), starts 0, 80, 160, cores
0..120, 120..200, 200..320. Of all such cuts of the three axes that fit, the one with the fewest computed voxels is
taken; windows without lung in their core count nothing, since they are left out.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory, resident_bytes
from runtime.network_input import STRIDE, WINDOW_MULTIPLE

Triple = tuple[int, int, int]

DEFAULT_MARGIN = 32

BYTES = {
    ("openvino", "f32"): (119e6, 219.0),
    ("openvino", "bf16"): (122e6, 112.6),
    ("openvino", "int8"): (70e6, 59.6),
    ("onnxruntime", "f32"): (78e6, 198.0),
    ("torch", "f32"): (91e6, 275.0),
    ("torch", "bf16"): (81e6, 173.0),
}
"""Engine and precision -> bytes that an engine takes: fixed, and for each voxel of the window, input included.

Peak resident memory of a process, less what it held before the model was loaded, with OpenVINO 2026.4 on one machine.
openvino f32, bf16: 64^3, 128^3, 192^3, 256^3 voxels, the line fits within 2 %. int8 (untrained weights), onnxruntime:
three sizes up to 192^3. torch: 64^3 and 128^3 alone, one thread; larger windows are extrapolated. One thread or two
made no difference to openvino at 128^3; more threads were not tried.
"""

HEAD_BYTES = 1.0
"""For each voxel of the padded volume: 15 float32 and a mask for 64 voxels, kept while windows run, rounded up."""

ENGINE_RESERVE = 0.03
"""Part of an engine's predicted memory kept free on top, for other processors and versions."""


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
class Plan:
    """Windows to run, in order. Their cores do not overlap and together hold every lung voxel.

    Attributes:
        windows: all of one size; none if there is no lung.
        padded_shape: the working volume's shape (z, y, x), each extent rounded up to a multiple of 16.
        margin_voxel: least distance from a core to a cut through the volume.
        predicted_peak_bytes: peak resident memory of the process.
        reason: one sentence: why these windows.
    """

    windows: tuple[Window, ...]
    padded_shape: Triple
    margin_voxel: int
    predicted_peak_bytes: int
    reason: str


def plan_windows(
    shape: Sequence[int],
    lung: NDArray[np.bool_],
    memory_bytes: int,
    precision: str,
    cpus: int = 1,
    *,
    engine: str = "openvino",
    margin_voxel: int = DEFAULT_MARGIN,
    held_bytes: int | None = None,
) -> Plan:
    """Cut a working volume into the windows that cost least within the memory.

    Args:
        shape: the working volume's (z, y, x).
        lung: bool of that shape; windows without any of it in their core are left out.
        memory_bytes: peak memory that the process may take.
        precision: what really runs: f32, bf16 or int8.
        cpus: threads of the engine; the prediction does not use them.
        engine: whose memory to predict.
        margin_voxel: least distance of a core from a cut.
        held_bytes: memory that the process holds already (the scan, libraries); None: what it holds now.

    Raises:
        Rpn3dError: not even the smallest windows fit; says the least memory that does.
    """
    if tuple(shape) != lung.shape or len(lung.shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)} and lung mask {lung.shape} must be one 3-D shape")
    if margin_voxel < 0:
        raise ValueError(f"margin_voxel {margin_voxel} is negative")
    padded = _triple(_round_up(extent, WINDOW_MULTIPLE) for extent in shape)
    held = resident_bytes() if held_bytes is None else held_bytes

    whole_head = int(HEAD_BYTES * math.prod(padded))

    def peak(size: Sequence[int]) -> int:
        return held + whole_head + engine_bytes(math.prod(size), precision, engine)

    cells = lung_cells(lung, padded)
    whole = peak(padded)
    if not cells.any():
        return Plan((), padded, margin_voxel, held, "there is no lung in the volume, so nothing is computed")
    if whole <= memory_bytes:
        window = Window((0, 0, 0), padded, (0, 0, 0), padded)
        reason = (
            f"one window of {_by(padded)} voxels holds the whole volume and takes {format_memory(whole)} "
            f"of the {format_memory(memory_bytes)} allowed"
        )
        return Plan((window,), padded, margin_voxel, whole, reason)

    table = _corner_sums(cells)
    best: tuple[tuple[int, int, Triple], tuple[_Cut, ...]] | None = None
    cuts = [list(axis_cuts(extent, margin_voxel)) for extent in padded]
    for cut in itertools.product(*cuts):
        size = _triple(axis.size for axis in cut)
        if peak(size) > memory_bytes:
            continue
        kept = int(np.count_nonzero(_lung_in_cores(table, cut)))
        cost = (kept * math.prod(size), kept, size)
        if best is None or cost < best[0]:
            best = cost, cut
    if best is None:
        least = peak(_triple(min(axis.size for axis in axes) for axes in cuts))
        raise Rpn3dError(
            f"memory of {format_memory(memory_bytes)} is too little for {engine} in {precision}: windows with a margin "
            f"of {margin_voxel} voxels need {format_memory(_round_up(least, 1 << 20))} at least; allow more memory"
        )
    (computed, kept, size), (z, y, x) = best
    windows = tuple(
        Window(
            (z.starts[i], y.starts[j], x.starts[k]),
            size,
            (z.bounds[i], y.bounds[j], x.bounds[k]),
            (z.bounds[i + 1], y.bounds[j + 1], x.bounds[k + 1]),
        )
        for i, j, k in np.argwhere(_lung_in_cores(table, (z, y, x))).tolist()
    )
    total = len(z.starts) * len(y.starts) * len(x.starts)
    reason = (
        f"{kept} windows of {_by(size)} voxels, since the whole volume would take {format_memory(whole)} of the "
        f"{format_memory(memory_bytes)} allowed; they compute {computed / math.prod(padded):.1f} times its voxels"
        + (f" ({total - kept} more hold no lung and are left out)" if total > kept else "")
    )
    return Plan(windows, padded, margin_voxel, peak(size), reason)


def engine_bytes(voxels: int, precision: str, engine: str = "openvino") -> int:
    """Memory that an engine takes for windows of so many voxels, its input and output included."""
    found = [BYTES.get((engine, kind)) for kind in precision.split("+")]  # "bf16+f32": convolutions of both kinds
    if None in found:
        known = ", ".join(f"{name} {kind}" for name, kind in BYTES)
        raise Rpn3dError(f"the memory of {engine} in {precision} is not known; known: {known}")
    fixed, each = max(entry for entry in found if entry is not None)
    return int((fixed + each * voxels) * (1 + ENGINE_RESERVE))


@dataclass(frozen=True)
class _Cut:
    """One axis cut into windows: their common size, their starts, and the bounds of their cores (one more)."""

    size: int
    starts: tuple[int, ...]
    bounds: tuple[int, ...]


def axis_cuts(extent: int, margin: int) -> Iterator[_Cut]:
    """Every way worth trying to cut an axis of `extent` voxels (a multiple of 16), from one window to the smallest."""
    overlap = _round_up(2 * margin, WINDOW_MULTIPLE)
    smallest = None
    for count in range(1, extent // WINDOW_MULTIPLE + 1):
        size = _round_up(math.ceil((extent + (count - 1) * overlap) / count), WINDOW_MULTIPLE)
        if smallest is not None and size >= smallest:
            continue  # more windows, none smaller
        smallest = size
        units = (extent - size) // WINDOW_MULTIPLE
        starts = tuple(WINDOW_MULTIPLE * (units * i // max(1, count - 1)) for i in range(count))
        # A core ends in the middle of the overlap; overlaps are multiples of 16, so that is a multiple of 8.
        inner = ((before + size + after) // 2 for before, after in itertools.pairwise(starts))
        yield _Cut(size, starts, (0, *inner, extent))


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


def _corner_sums(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sums over all boxes from the origin, with a border of zeros: any box's count is eight of them."""
    table = np.zeros([n + 1 for n in cells.shape], dtype=np.int64)
    table[1:, 1:, 1:] = cells.cumsum(0, dtype=np.int64).cumsum(1).cumsum(2)
    return table


def _lung_in_cores(table: NDArray[np.int64], cuts: Sequence[_Cut]) -> NDArray[np.int64]:
    corners: NDArray[np.int64] = table[np.ix_(*[np.asarray(cut.bounds) // STRIDE for cut in cuts])]
    for axis in range(3):
        corners = np.diff(corners, axis=axis)
    return corners


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _triple(values: Iterator[int]) -> Triple:
    z, y, x = values
    return z, y, x


def _by(size: Triple) -> str:
    return "x".join(map(str, size))
