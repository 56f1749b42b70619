"""Real nodules, cut out of their scans: what each adds to the lung around it.

The library's values end near -1172 and 391 HU: calcified nodules come out no brighter than that.
"""

import difflib
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from caffe_models.errors import Rpn3dError

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
WINDOW_HU = (-1200.0, 600.0)
DARK_HU = -500.0
"""Lung tissue lies below, vessels and walls above."""
WALL_HU = -200.0
FADE_MM = 2.0
ROOM = 9
"""Voxels about a nodule that are looked at."""


class InsertError(Rpn3dError):
    """A nodule library that cannot be used, or arrays that do not fit each other."""


@dataclass(frozen=True)
class RealNodule:
    """What one nodule adds to its lung.

    Attributes:
        name: in its library.
        diameter_mm: of the sphere of equal volume.
        added_hu: (z, y, x) float32 at 1 mm: HU above the lung around it, faded out at its rim.
        share: (z, y, x) float32: 1 inside the outline, 0 outside.
        centre: (z, y, x) centroid of the outline.
        grain_hu: standard deviation of the noise around it.
        wall: unit vector (z, y, x) towards the chest wall it sat on; None if it stood free.
        wall_mm: distance of the wall from the centre along that.
    """

    name: str
    diameter_mm: float
    added_hu: Floats
    share: Floats
    centre: Points
    grain_hu: float
    wall: Points | None
    wall_mm: float


@dataclass(frozen=True)
class NoduleLibrary:
    """Nodules to draw from, and where they came from."""

    nodules: tuple[RealNodule, ...]
    source: str


def load_nodules(path: str | Path) -> NoduleLibrary:
    """Read and check a library: `.npz` with u8 (n, s, s, s) uint8, mask bool, diameter_mm (n,), name (n,).

    Raises:
        InsertError: a missing file or array, a wrong shape or type, an empty outline, a diameter that does not fit it.
    """
    file = Path(path)
    try:
        with np.load(file, allow_pickle=False) as stored:
            missing = [k for k in ("u8", "mask", "diameter_mm", "name") if k not in stored]
            if missing:
                raise InsertError(
                    f"{file}: array {missing[0]} is missing; a library has u8, mask, diameter_mm and name"
                )
            u8, mask, diameter, name = (stored[k] for k in ("u8", "mask", "diameter_mm", "name"))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InsertError(f"{file}: not a nodule library ({error})") from error
    if u8.dtype != np.uint8 or u8.ndim != 4 or min(u8.shape) < 1:
        raise InsertError(f"{file}: u8 is {u8.dtype} {u8.shape}; it must be uint8 (n, z, y, x)")
    if mask.dtype != np.bool_ or mask.shape != u8.shape:
        raise InsertError(f"{file}: mask is {mask.dtype} {mask.shape}; it must be bool {u8.shape}")
    for key, array in (("diameter_mm", diameter), ("name", name)):
        if array.shape != u8.shape[:1]:
            raise InsertError(f"{file}: {key} has the shape {array.shape}; it must be {u8.shape[:1]}")
    nodules = []
    for k in range(len(u8)):
        from_mask = (6 * float(mask[k].sum()) / np.pi) ** (1 / 3)
        if not mask[k].any() or not 0.7 * from_mask < float(diameter[k]) < 1.4 * from_mask:
            raise InsertError(
                f"{file}: nodule {k} ({name[k]}): diameter_mm {float(diameter[k]):.1f} does not fit its mask "
                f"({from_mask:.1f} mm); remove it"
            )
        nodules.append(analyse(u8[k], mask[k], float(diameter[k]), str(name[k])))
    return NoduleLibrary(tuple(nodules), str(file))


def analyse(u8: NDArray[np.uint8], mask: NDArray[np.bool_], diameter_mm: float, name: str) -> RealNodule:
    """What the nodule `mask` in the cube `u8` (both (z, y, x), 1 mm) adds to its surroundings."""
    found = np.argwhere(mask)
    room = tuple(
        slice(max(0, int(a) - ROOM), int(b) + ROOM + 1) for a, b in zip(found.min(0), found.max(0), strict=True)
    )
    u8, mask = u8[room], mask[room]
    hu = to_hu(u8)
    outside, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    depth = outside - ndimage.distance_transform_edt(mask)
    shell = (outside > FADE_MM) & (outside <= 7)
    dark = shell & (hu < DARK_HU)
    lung = float(np.median(hu[dark])) if dark.sum() > 50 else -850.0
    added = hu - np.float32(lung)
    # beyond the outline it may fade, but not rise again into a wall or a vessel
    edge = ndimage.gaussian_filter(added, 0.7)[tuple(nearest)]
    added = np.where(outside > 0, np.minimum(added, edge), added)
    weight = np.clip((FADE_MM - depth) / (FADE_MM + 0.5), 0, 1)
    weight = weight * weight * (3 - 2 * weight)
    added = np.maximum(added, 0) * weight
    bright = shell & (hu > WALL_HU)
    direction, distance = None, 0.0
    labels, count = ndimage.label(bright)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        wall = labels == int(sizes.argmax())
        if wall.sum() > 0.15 * shell.sum():
            middle = np.argwhere(mask).mean(axis=0)
            towards = np.argwhere(wall).mean(axis=0) - middle
            length = float(np.linalg.norm(towards))
            if length > 1:
                direction = towards / length
                along = (np.argwhere(mask) - middle) @ direction
                distance = float(np.percentile(along, 97))
    keep = np.argwhere(weight > 0)
    low, high = keep.min(axis=0), keep.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return RealNodule(
        name, diameter_mm, np.ascontiguousarray(added[box], dtype=np.float32), mask[box].astype(np.float32),
        np.argwhere(mask).mean(axis=0) - low, grain(hu, dark), direction, distance,
    )  # fmt: skip


def to_hu(u8: NDArray[np.uint8]) -> Floats:
    """HU of the lung window's 0..255."""
    return u8.astype(np.float32) * np.float32((WINDOW_HU[1] - WINDOW_HU[0]) / 255) + np.float32(WINDOW_HU[0])


def to_u8(hu: Floats) -> NDArray[np.uint8]:
    """0..255 of the lung window."""
    scaled = (hu - np.float32(WINDOW_HU[0])) * np.float32(255 / (WINDOW_HU[1] - WINDOW_HU[0]))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def grain(hu: Floats, where: NDArray[np.bool_]) -> float:
    """Standard deviation of the finest noise in `where`, robust against vessels."""
    if where.sum() < 30:
        return 0.0
    fine = (hu - ndimage.gaussian_filter(hu, 1.0))[where]
    return float(1.4826 * np.median(np.abs(fine - np.median(fine))))


def without(library: NoduleLibrary, names: Collection[str]) -> NoduleLibrary:
    """The library less the nodules called `names`, say those of scans that a model is to be judged on.

    Raises:
        InsertError: a name that it does not hold, with the nearest ones it does.
    """
    known = {nodule.name for nodule in library.nodules}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            nearest = f"; nearest: {', '.join(near)}" if near else ""
            raise InsertError(f'{library.source}: holds no nodule "{name}" to leave out{nearest}')
    gone = set(names)
    kept = tuple(nodule for nodule in library.nodules if nodule.name not in gone)
    if not kept:
        raise InsertError(f"{library.source}: all of its {len(library.nodules)} nodules are to be left out")
    return NoduleLibrary(kept, library.source)
