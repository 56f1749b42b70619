"""A scan at about 2 mm, which is all the lung mask looks at."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.grid import Grid
from runtime.morphology import Bools, Spacing, fill_holes
from runtime.threads import chunks, in_threads

COARSE_MM = 2.0
LOWEST_HU, HIGHEST_HU = -1100, 1000  # clipped before averaging: padding and metal must not weigh more than air and bone
PADDING_HU = -600  # lighter padding counts as air by itself
PADDING_PATCH = 6  # pixels of each corner that must all have one value to be called padding
CENTRAL = 0.45  # of the image's width: no padding comes nearer to its centre


@dataclass(frozen=True)
class Coarse:
    """Block means of a scan.

    Attributes:
        hu: int16 (z, y, x), clipped to [-1100, 1000].
        factors: voxels of the scan in one block along (z, y, x).
        spacing: mm along (z, y, x).
    """

    hu: NDArray[np.int16]
    factors: tuple[int, int, int]
    spacing: Spacing


def coarsen(hu: NDArray[np.int16], grid: Grid, threads: int = 1) -> Coarse:
    """The scan at about 2 mm; padding beyond a circular field of view counts as air."""
    factors, spacing = coarse_blocks(grid)
    return Coarse(block_mean(hu, factors, LOWEST_HU, HIGHEST_HU, find_padding(hu), threads), factors, spacing)


def coarse_blocks(grid: Grid) -> tuple[tuple[int, int, int], Spacing]:
    """Voxels in a block of about 2 mm and the block's mm, both along (z, y, x)."""
    x_mm, y_mm, z_mm = grid.spacing_mm
    fz, fy, fx = (max(1, round(COARSE_MM / s)) for s in (z_mm, y_mm, x_mm))
    return (fz, fy, fx), (z_mm * fz, y_mm * fy, x_mm * fx)


def find_padding(hu: NDArray[np.int16]) -> Bools | None:
    """(y, x) pixels beyond a circular field of view that were filled with something denser than air, else None."""
    n = PADDING_PATCH
    if hu.shape[1] < 4 * n or hu.shape[2] < 4 * n:
        return None
    value = hu[hu.shape[0] // 2, 0, 0]
    if value < PADDING_HU:
        return None  # counts as air anyway
    some = hu[np.linspace(0, hu.shape[0] - 1, min(9, hu.shape[0])).astype(int)]
    same = (some == value).all(axis=0)
    corners = [same[:n, :n], same[:n, -n:], same[-n:, :n], same[-n:, -n:]]
    if not all(corner.all() for corner in corners):
        return None
    y, x = (np.arange(size) - (size - 1) / 2 for size in same.shape)
    inside = fill_holes(~same[None], np.inf)[0]
    inside |= np.hypot(y[:, None], x) < CENTRAL * min(same.shape)
    return np.asarray(~inside)


def block_mean(
    hu: NDArray[np.int16],
    factors: tuple[int, int, int],
    low: int,
    high: int,
    padding: Bools | None = None,
    threads: int = 1,
) -> NDArray[np.int16]:
    """Means over blocks of `factors` (z, y, x) voxels of the clipped input; the last blocks may be smaller.

    Smoothing and subsampling in one pass over the scan, in slabs. `padding` (y, x) marks pixels that were never
    imaged; they count as `low`.
    """
    fz, fy, fx = factors
    shape = tuple(-(-n // f) for n, f in zip(hu.shape, factors, strict=True))
    out = np.empty(shape, np.int16)
    counts = np.outer(_counts(hu.shape[1], fy), _counts(hu.shape[2], fx))
    empty = None if padding is None else np.where(padding, np.int16(-32768), np.int16(32767))
    # sums of the usual blocks fit into 16 bits, which halves the time
    narrow = math.prod(factors) * max(abs(low), abs(high)) <= np.iinfo(np.int16).max
    kind = np.dtype(np.int16 if narrow else np.int32)

    def some(blocks: range) -> None:
        for k in blocks:
            slab = hu[k * fz : (k + 1) * fz]
            if empty is not None:
                slab = np.minimum(slab, empty)
            total = np.zeros(slab.shape[1:], kind)
            for plane in slab:
                total += np.clip(plane, np.int16(low), np.int16(high))
            flat = _strided_sum(_strided_sum(total, fy, 0), fx, 1)
            out[k] = np.rint(flat / (counts * slab.shape[0]))

    in_threads(some, chunks(shape[0], threads), threads)
    return out


def _counts(n: int, factor: int) -> NDArray[np.int32]:
    counts = np.full(-(-n // factor), factor, np.int32)
    counts[-1] = n - factor * (len(counts) - 1)
    return counts


def _strided_sum(flat: NDArray[Any], factor: int, axis: int) -> NDArray[Any]:
    if factor == 1:
        return flat
    total = flat[::factor].copy() if axis == 0 else flat[:, ::factor].copy()
    for offset in range(1, factor):
        part = flat[offset::factor] if axis == 0 else flat[:, offset::factor]
        total[: part.shape[0], : part.shape[1]] += part
    return total
