"""How the working volume is cut into windows, so that the network's memory stays within the budget.

One window over all lungs is the reference: it computes each voxel once and every cell sees its whole surroundings. It
is left only where memory forbids it, or where windows over left and right lung alone leave out enough of what lies
between them. Several windows are equal in size (one set of buffers, one choice of kernels). Neighbours overlap by twice
the margin, so that each window's core, the part that is kept, lies at least a margin away from any cut. Of all sizes
that fit, the one whose windows compute the fewest voxels is taken; where windows lie is told in `cover`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory, resident_bytes
from runtime.cover import Triple, Window, cover, lung_cells, sizes_to_try
from runtime.engine_memory import HEAD_BYTES, engine_bytes
from runtime.network_input import WINDOW_MULTIPLE

DEFAULT_MARGIN = 32
"""Voxels; chosen from docs/margin.md."""

HELD_STEP = 16 << 20
"""What the process holds is rounded up to this: it differs by a few pages from run to run, and the plan must not."""

WINDOW_COST_VOXELS = 50_000
"""What a window costs beyond its voxels: buffers, primitives of a new shape, copies."""

MOST_TRIED = 12
"""Sizes looked at, the most promising ones first."""

KEPT_SHARE = 0.6
"""What an engine takes more if it keeps its memory from window to window, of what it takes for one: OpenVINO's both
stages at once. LIDC-IDRI-0002: 0.52 in int8, 0.44 in bf16, 0.39 in f32."""

ROOMY_SHARE = 0.5
"""Memory is kept where all that is needed takes this part of what is allowed at most: the rest is for other scans."""

WORTH = 0.95
"""The whole is cut, though it would fit, only if that computes less than this part of its voxels."""


@dataclass(frozen=True)
class Option:
    """One way of cutting.

    Attributes:
        count, size: windows, and voxels (z, y, x) of each.
        computed_voxels: of all windows together.
        peak_bytes: predicted peak memory of the process; fits: whether that is allowed.
    """

    count: int
    size: Triple
    computed_voxels: int
    peak_bytes: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """Windows to run, in order. Their cores do not overlap and together hold every lung voxel.

    Attributes:
        windows: all of one size; none if there is no lung.
        padded_shape: the working volume's shape (z, y, x), each extent rounded up to a multiple of 16.
        margin_voxel: least distance from a core to a cut through the volume.
        predicted_peak_bytes: peak resident memory of the process.
        reason: one sentence: why these windows.
        computed_voxels: of all windows together.
        lung_voxels: of the mask.
        held_bytes: what the process held before the network ran.
        others: what else was considered, the cheapest first: one window over all lungs, and the next two.
        keeps_memory: whether there is room for the engine to keep the windows' memory for the next scan.
    """

    windows: tuple[Window, ...]
    padded_shape: Triple
    margin_voxel: int
    predicted_peak_bytes: int
    reason: str
    computed_voxels: int = 0
    lung_voxels: int = 0
    held_bytes: int = 0
    others: tuple[Option, ...] = ()
    keeps_memory: bool = False


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
    may_keep: bool = False,
) -> Plan:
    """Cut a working volume into the windows that cost least within the memory.

    Args:
        shape: the working volume's (z, y, x).
        lung: bool of that shape; every voxel of it lies in a window's core.
        memory_bytes: peak memory that the process may take.
        precision: what really runs: f32, bf16 or int8.
        cpus: threads of the engine; windows run one after the other on all of them, so they change no choice.
        engine: whose memory to predict.
        margin_voxel: least distance of a core from a cut.
        held_bytes: memory that the process holds already (the scan, libraries); None: what it holds now, rounded up.
        may_keep: let the engine keep its memory for the next scan where there is room. It changes no window: what is
            held then counts twice, and there is room where even that fits.

    Raises:
        Rpn3dError: not even the smallest windows fit; says the least memory that does.
    """
    if tuple(shape) != lung.shape or len(lung.shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)} and lung mask {lung.shape} must be one 3-D shape")
    if margin_voxel < 0:
        raise ValueError(f"margin_voxel {margin_voxel} is negative")
    z, y, x = (-(-extent // WINDOW_MULTIPLE) * WINDOW_MULTIPLE for extent in shape)
    padded = (z, y, x)
    held = -(-resident_bytes() // HELD_STEP) * HELD_STEP if held_bytes is None else held_bytes
    cells = lung_cells(lung, padded)
    if not cells.any():
        return Plan((), padded, margin_voxel, held, "there is no lung in the volume, so nothing is computed")
    head = int(HEAD_BYTES * math.prod(padded))

    def option(size: Triple, count: int = 1) -> Option:
        peak = held + head + engine_bytes(math.prod(size), precision, engine)
        return Option(count, size, count * math.prod(size), peak, peak <= memory_bytes)

    lines = [np.asarray(cells.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    sizes = [sizes_to_try(line, margin_voxel) for line in lines]
    largest, least = (_triple([each[k] for each in sizes]) for k in (0, -1))
    whole = option(largest)
    found: list[Option] = []
    fitting = [size for size in _sizes(sizes) if option(size).fits]
    if whole.fits:
        # One step from the whole along one axis: enough to see left and right lung apart, and what else there is.
        fitting = [size for size in fitting if sum(a != b for a, b in zip(size, largest, strict=True)) <= 1]
        fitting = [size for size in fitting if math.prod(size) >= math.prod(largest) / 8]
    for size in sorted(fitting, key=lambda size: _regular(largest, size, margin_voxel))[:MOST_TRIED]:
        found.append(option(size, len(cover(cells, size, margin_voxel))))
    found.sort(key=lambda each: (_cost(each), each.count, each.size))
    if not found:
        needed = format_memory(-(-option(least).peak_bytes // (1 << 20)) * (1 << 20))
        raise Rpn3dError(
            f"memory of {format_memory(memory_bytes)} is too little for {engine} in {precision}: windows with a margin "
            f"of {margin_voxel} voxels need {needed} at least, {format_memory(held)} of it held already by libraries "
            "and the scan; allow more memory"
        )
    if whole.fits and _cost(found[0]) > WORTH * _cost(whole):
        found.sort(key=lambda each: (each.size != largest, _cost(each)))
    kept = int(KEPT_SHARE * engine_bytes(math.prod(found[0].size), precision, engine))
    keeps = may_keep and found[0].peak_bytes + kept <= ROOMY_SHARE * memory_bytes
    if keeps:
        found[0] = replace(found[0], peak_bytes=found[0].peak_bytes + kept)
    others = found[1:3]
    windows = tuple(cover(cells, found[0].size, margin_voxel))
    best = found[0]
    if best.size != largest and largest not in [other.size for other in others]:
        others.insert(0, whole)
    return Plan(
        windows,
        padded,
        margin_voxel,
        best.peak_bytes,
        _reason(best, whole, memory_bytes),
        best.computed_voxels,
        int(np.count_nonzero(lung)),
        held,
        tuple(others[:3]),
        keeps,
    )


def by(size: Sequence[int]) -> str:
    """A size as people write it: 320x224x304."""
    return "x".join(map(str, size))


def _reason(best: Option, whole: Option, memory_bytes: int) -> str:
    allowed = format_memory(memory_bytes)
    if best.size == whole.size and best.count == 1:
        return (
            f"one window of {by(best.size)} voxels holds all of the lungs and takes "
            f"{format_memory(best.peak_bytes)} of the {allowed} allowed"
        )
    share = best.computed_voxels / whole.computed_voxels
    why = (
        f"since they compute only {share:.2f} times the voxels of one over all of the lungs"
        if whole.fits
        else f"since one over all of the lungs would take {format_memory(whole.peak_bytes)} of the {allowed} allowed; "
        f"they compute {share:.2f} times its voxels"
    )
    return f"{best.count} window{'s' * (best.count > 1)} of {by(best.size)} voxels, {why}"


def _sizes(sizes: Sequence[Sequence[int]]) -> list[Triple]:
    return [_triple(size) for size in itertools.product(*sizes)]


def _cost(option: Option) -> int:
    return option.computed_voxels + option.count * WINDOW_COST_VOXELS


def _regular(extents: Triple, size: Triple, margin: int) -> int:
    """Voxels that a regular grid of such windows computes: a guess of what is worth trying first."""
    counts = [
        1 if one >= extent else math.ceil((extent - 2 * margin) / (one - 2 * margin))
        for extent, one in zip(extents, size, strict=True)
    ]
    return math.prod(counts) * (math.prod(size) + WINDOW_COST_VOXELS)


def _triple(values: Sequence[int]) -> Triple:
    z, y, x = values
    return z, y, x
