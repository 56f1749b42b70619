"""What the lung mask and the working volume are made of, written plainly with numpy and scipy: the reference for the
fast code, one primitive at a time. Slow, and nothing in it is clever."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bench.classic_mask import hull_slices
from runtime.coarse import CENTRAL, PADDING_HU, PADDING_PATCH

FAR_MM = 1e4
BALL_6 = ndimage.generate_binary_structure(3, 1)


def read_zraw(path: Path, shape: tuple[int, int, int]) -> Any:
    """A zlib-compressed int16 voxel file, floor at -1024 HU."""
    return np.maximum(np.frombuffer(zlib.decompress(path.read_bytes()), np.int16).reshape(shape), -1024)


def depth(mask: Any, spacing: Any, threads: int = 1) -> Any:
    """Distance in mm to the nearest centre outside the mask."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(mask, sampling=spacing)


def signed_distance(mask: Any, spacing: Any, threads: int = 1) -> Any:
    half = 0.5 * min(spacing)
    return np.clip(np.where(mask, depth(mask, spacing) - half, half - depth(~mask, spacing)), -FAR_MM, FAR_MM)


def dilate(mask: Any, radius_mm: float, spacing: Any) -> Any:
    return mask | (depth(~mask, spacing) <= radius_mm) if mask.any() else mask


def close(mask: Any, radius_mm: float, spacing: Any) -> Any:
    """By a ball, the volume continued beyond its faces by its outermost slices, where the mask touches them."""
    if not mask.any():
        return mask
    pad = [int(np.ceil(radius_mm / s)) + 2 for s in spacing]
    wide = np.pad(mask, [(n, n) for n in pad], mode="edge")
    grown = dilate(wide, radius_mm, spacing)
    shrunk = depth(np.pad(grown, 1), spacing)[1:-1, 1:-1, 1:-1] > radius_mm
    return mask | shrunk[tuple(slice(n, -n) for n in pad)]


def components(mask: Any) -> Any:
    labels, count = ndimage.label(mask, BALL_6)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)


def fill_holes(mask: Any, area_voxel: float) -> Any:
    filled = mask.copy()
    for k in range(len(mask)):
        holes, count = ndimage.label(ndimage.binary_fill_holes(mask[k]) & ~mask[k])
        for label in range(1, count + 1):
            if (holes == label).sum() <= area_voxel:
                filled[k] |= holes == label
    return ndimage.binary_fill_holes(filled)


def block_mean(hu: Any, factors: Any, low: int, high: int, padding: Any = None, threads: int = 1) -> Any:
    values = np.clip(hu, low, high).astype(np.float64)
    if padding is not None:
        values[:, padding] = low
    for axis, factor in enumerate(factors):
        starts = np.arange(0, values.shape[axis], factor)
        counts = np.diff([*starts, values.shape[axis]]).reshape([-1 if a == axis else 1 for a in range(3)])
        values = np.add.reduceat(values, starts, axis) / counts
    return np.rint(values).astype(np.int16)


def find_padding(hu: Any) -> Any:
    n, (height, width) = PADDING_PATCH, hu.shape[1:]
    if min(height, width) < 4 * n or hu[len(hu) // 2, 0, 0] < PADDING_HU:
        return None
    some = hu[np.linspace(0, len(hu) - 1, min(9, len(hu))).astype(int)]
    same = (some == hu[len(hu) // 2, 0, 0]).all(axis=0)
    if not all(
        same[rows, columns].all() for rows in (slice(n), slice(-n, None)) for columns in (slice(n), slice(-n, None))
    ):
        return None
    y, x = np.ogrid[:height, :width]
    central = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < CENTRAL * min(height, width)
    return ~(ndimage.binary_fill_holes(~same) | central)


def in_order(work: Any, items: Any, threads: int) -> Any:
    return [work(item) for item in items]


def linear(array: Any, taps: Any) -> Any:
    """`array` resampled by the dense matrices of its taps, in float64."""
    for axis, tap in enumerate(taps):
        matrix = np.zeros((tap.index.shape[1], array.shape[axis]))
        for i, w in zip(tap.index, tap.weight, strict=True):
            np.add.at(matrix, (np.arange(len(matrix)), i), w)
        used = slice(*tap.span)
        picked = np.moveaxis(array, axis, 0)[used].astype(np.float64)
        array = np.moveaxis(np.tensordot(matrix[:, used], picked, (1, 0)), 0, axis)
    return array


PRIMITIVES = {
    f.__name__: f
    for f in (
        depth,
        signed_distance,
        dilate,
        close,
        components,
        fill_holes,
        hull_slices,
        block_mean,
        find_padding,
    )
}
