"""Shape operations on coarse boolean volumes, in millimetres.

Everything here works on the 2 mm grid of the lung mask: distances by exact Euclidean transforms (edt), components by
cc3d, both of which know anisotropic voxels. Where only "nearer than so much?" is asked, the squared distance is built
up to that radius and no further (`within`), in 16 bits: a third of the time of the whole transform. Arrays are
(z, y, x); `spacing` is given in the array's order (z, y, x).
"""

from typing import Any

import cc3d
import edt
import fill_voids
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]

FAR_MM = 1e4


def depth(mask: Bools, spacing: Spacing, threads: int = 1) -> Floats:
    """Distance in mm of each voxel of the mask to the nearest centre outside it; 0 outside. Infinite if nothing is."""
    return _distances(np.ascontiguousarray(mask).view(np.uint8), spacing, threads)


def signed_distance(mask: Bools, spacing: Spacing, threads: int = 1) -> Floats:
    """Distance in mm to the mask's surface, which runs half-way between the centres: positive inside."""
    # with a label for either side one transform gives both distances
    away = _distances(mask.view(np.uint8) + np.uint8(1), spacing, threads)
    away -= np.float32(0.5 * min(spacing))
    # finite where the mask is all or nothing, since infinity cannot be interpolated
    np.minimum(away, np.float32(FAR_MM), out=away)
    np.negative(away, out=away, where=~mask)
    return away


def _distances(labels: NDArray[np.uint8], spacing: Spacing, threads: int) -> Floats:
    # bytes: of booleans edt takes half as long again
    return np.asarray(edt.edt(labels, anisotropy=spacing, black_border=False, parallel=threads), np.float32)


_FAR_SQUARE = 32767
"""Stands for every square beyond the radius; twice that still fits into 16 bits."""


def within(mask: Bools, radius_mm: float, spacing: Spacing) -> Bools:
    """All voxels whose centre is no further than `radius_mm` from one of the mask's.

    Squared distances, axis after axis: the least of the neighbours' squares along the axis plus that of the step
    between. They are rounded to 1 / 32000 of the radius' square, so only voxels at just that distance are in doubt.
    """
    unit = (_FAR_SQUARE - 767) / radius_mm**2
    squares = np.where(mask, np.uint16(0), np.uint16(_FAR_SQUARE))
    more = np.empty_like(squares)
    for axis in (2, 1, 0):
        nearest = squares.copy()
        for steps in range(1, min(int(radius_mm / spacing[axis]) + 1, mask.shape[axis])):
            np.add(squares, np.uint16(round((steps * spacing[axis]) ** 2 * unit)), out=more)
            ahead: list[slice] = [slice(None)] * 3
            behind: list[slice] = [slice(None)] * 3
            ahead[axis], behind[axis] = slice(steps, None), slice(None, -steps)
            for here, there in ((tuple(ahead), tuple(behind)), (tuple(behind), tuple(ahead))):
                np.minimum(nearest[here], more[there], out=nearest[here])
        squares = nearest
    return np.asarray(squares <= np.uint16(round(radius_mm**2 * unit)))


def dilate(mask: Bools, radius_mm: float, spacing: Spacing) -> Bools:
    """All voxels within `radius_mm` of the mask."""
    out = mask.copy()
    if mask.any():
        box = box_of(mask, reach(radius_mm, spacing))
        out[box] = within(mask[box], radius_mm, spacing)
    return out


def touch(mask: Bools) -> Bools:
    """The mask and its neighbours: the eight in the slice and the two above and below."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    rows = out.copy()
    out[:, :, 1:] |= rows[:, :, :-1]
    out[:, :, :-1] |= rows[:, :, 1:]
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    return out


def reach(radius_mm: float, spacing: Spacing) -> tuple[int, int, int]:
    """Voxels along (z, y, x) that cover `radius_mm`, and one more."""
    z, y, x = (int(np.ceil(radius_mm / s)) + 1 for s in spacing)
    return z, y, x


def close(mask: Bools, radius_mm: float, spacing: Spacing) -> Bools:
    """Closing with a ball: fills what a ball of that radius rolling over the outside cannot reach.

    What touches one of the volume's faces is taken to go on beyond it, so that a lung cut off by the scan stays whole
    up to the cut.
    """
    if not mask.any():
        return mask.copy()
    pad = reach(radius_mm, spacing)
    box = box_of(mask)
    wide = mask[box]
    for axis, (part, size) in enumerate(zip(box, mask.shape, strict=True)):
        for side, at_face in enumerate((part.start == 0, part.stop == size)):
            widths = [(0, 0)] * 3
            widths[axis] = (0, pad[axis]) if side else (pad[axis], 0)
            wide = np.pad(wide, widths, mode="edge" if at_face else "constant")
    grown = within(wide, radius_mm, spacing)
    shrunk = ~within(~grown, radius_mm, spacing)
    out = mask.copy()
    out[box] |= shrunk[tuple(slice(n, -n) for n in pad)]
    return out


def components(mask: Bools) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """6-connected components: labels (z, y, x), 0 = background, and the number of voxels by label."""
    labels = np.asarray(cc3d.connected_components(mask, connectivity=6, out_dtype=np.uint32))
    counts = np.bincount(labels.ravel(), minlength=1).astype(np.int64)
    return labels, counts


def box_of(mask: Bools, pad: tuple[int, int, int] = (0, 0, 0)) -> Box:
    """The smallest box around a mask that is not empty, grown by `pad` voxels and cut at the array's faces."""
    ranges = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        ranges.append(slice(max(0, int(hits[0]) - pad[axis]), min(mask.shape[axis], int(hits[-1]) + 1 + pad[axis])))
    return ranges[0], ranges[1], ranges[2]


def fill_holes(mask: Bools, area_voxel: float) -> Bools:
    """Holes filled in 3-D, and those of at most `area_voxel` pixels in each axial slice.

    Larger holes of a slice are left alone: the dome of the diaphragm is one.
    """
    filled = mask.copy()
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        full = np.asarray(fill_voids.fill(mask[k].astype(np.uint8)), np.bool_)
        holes = full & ~mask[k]
        if holes.any():
            labels, counts = components(holes[None])
            small = counts <= area_voxel
            small[0] = False
            filled[k] |= small[labels[0]]
    return np.asarray(fill_voids.fill(filled.astype(np.uint8)), np.bool_)


def hull_slices(mask: Bools, limit: float) -> Bools:
    """Each axial slice replaced by its convex hull, unless the hull is more than `limit` times as large.

    The hull of a slice is what lies, row by row, between the lower envelope of the first pixels and the upper
    envelope of the last ones: no general hull code and no polygon filling is needed.
    """
    out = mask.copy()
    columns = np.arange(mask.shape[2])
    rows_of: Bools = np.any(mask, axis=2)
    first = mask.argmax(axis=2)
    last = mask.shape[2] - 1 - mask[:, :, ::-1].argmax(axis=2)
    for k in np.flatnonzero(np.any(rows_of, axis=1)):
        rows = np.flatnonzero(rows_of[k])
        every = np.arange(rows[0], rows[-1] + 1)
        left = np.interp(every, *_lower_envelope(rows, first[k, rows]))
        right = -np.interp(every, *_lower_envelope(rows, -last[k, rows]))
        hull = (columns >= left[:, None] - 1e-9) & (columns <= right[:, None] + 1e-9)
        if hull.sum() <= limit * mask[k].sum():
            out[k, every] = hull
    return out


def _lower_envelope(x: NDArray[Any], y: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Corners of the greatest convex function below the points; x ascending (monotone chain)."""
    xs: list[float] = []
    ys: list[float] = []
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        while len(xs) >= 2 and (ys[-1] - ys[-2]) * (px - xs[-2]) >= (py - ys[-2]) * (xs[-1] - xs[-2]):
            xs.pop()
            ys.pop()
        xs.append(px)
        ys.append(py)
    return xs, ys
