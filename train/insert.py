"""Real nodules into other lungs: into prepared volumes (1 mm, uint8) and into scans in HU at their own spacing.

A nodule is taken as what it adds to the lung around it, faded out within 2 mm of its outline, and added to the lung
it comes to. So the grain, the vessels and the level of the new place go on through its rim and nothing marks a
seam; where something as bright is there already (a vessel, the chest wall) nothing is added.

Nodules that sat on the chest wall are turned so that they sit on a wall again; others are turned at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from runtime.volume import Volume
from train.nodule_library import (
    DARK_HU,
    WALL_HU,
    Floats,
    InsertError,
    NoduleLibrary,
    Points,
    RealNodule,
    grain,
    load_nodules,
    to_hu,
    to_u8,
)

__all__ = ["InsertError", "Inserted", "NoduleLibrary", "insert_in_volume", "insert_nodules", "load_nodules", "to_hu"]

SOLID_HU = 0.0
FAINTEST_HU = 100.0
"""What a nodule must add within its outline, on average, to count as one."""
TRIES = 30
GAP_MM = 5.0
"""Between the surfaces of neighbours."""
POINT_SPREAD_MM = 0.7
"""Sigma of a CT at 1 mm; a shrunken nodule is blurred back to it."""


@dataclass(frozen=True)
class Inserted:
    """An inserted nodule: centre (z, y, x) in voxels of the array it was put into, with fractions; diameter in mm."""

    centre_voxel: tuple[float, float, float]
    diameter_mm: float
    name: str
    at_wall: bool

    @property
    def row(self) -> tuple[float, float, float, float]:
        """(z, y, x, diameter_mm)."""
        return (*self.centre_voxel, self.diameter_mm)


def insert_nodules(
    rng: np.random.Generator,
    voxels: NDArray[np.uint8],
    lung: NDArray[np.bool_],
    library: NoduleLibrary,
    count: int,
    *,
    taken: Sequence[Sequence[float]] = (),
    scale: tuple[float, float] = (0.85, 1.1),
    small_share: float = 0.3,
) -> tuple[NDArray[np.uint8], tuple[Inserted, ...]]:
    """Put `count` nodules into a 1 mm lung-window volume (window [-1200, 600] as 0..255, 170 outside the lung).

    Args:
        voxels: (z, y, x), left as it is.
        lung: (z, y, x), the lung mask, dilated or not; centres lie in lung tissue inside it.
        taken: nodules that are there already, (z, y, x, diameter, ...) each; inserted ones keep clear of them.
        scale: range of the change of size.
        small_share: share of nodules shrunk further, to 0.5-1 of their size, so that small ones exist.

    Returns:
        A new volume and the nodules; fewer than `count` if no place was found for some.

    Raises:
        InsertError: arrays that do not fit each other, or an empty library.
    """
    if voxels.dtype != np.uint8:
        raise InsertError(f"voxels are {voxels.dtype}; insert_nodules takes uint8, insert_in_volume takes scans in HU")
    place = Place(voxels.copy(), lung, np.ones(3))
    return place.voxels, _insert(rng, place, library, count, taken, scale, small_share)


def insert_in_volume(
    rng: np.random.Generator,
    volume: Volume,
    lung: NDArray[np.bool_],
    library: NoduleLibrary,
    count: int,
    *,
    taken: Sequence[Sequence[float]] = (),
    scale: tuple[float, float] = (0.85, 1.1),
    small_share: float = 0.3,
) -> tuple[Volume, tuple[Inserted, ...]]:
    """The same for a scan in HU on its own grid; `lung` is on `volume.grid`, `taken` and results are in its voxels.

    World positions are `volume.grid.to_world(nodule.centre_voxel)`.
    """
    place = Place(volume.hu.copy(), lung, np.asarray(volume.grid.spacing_mm[::-1]))
    done = _insert(rng, place, library, count, taken, scale, small_share)
    return replace(volume, hu=place.voxels), done


@dataclass(frozen=True)
class Place:
    """A volume that nodules are put into: its voxels (uint8 lung window, or HU), lung mask, (z, y, x) spacing in mm."""

    voxels: NDArray[Any]
    lung: NDArray[np.bool_]
    spacing: Points

    def hu(self, box: tuple[slice, ...]) -> Floats:
        """HU of the voxels in `box`."""
        part = self.voxels[box]
        return to_hu(part) if part.dtype == np.uint8 else part.astype(np.float32)

    def add(self, box: tuple[slice, ...], before: Floats, after: Floats) -> None:
        """Set HU; voxels that do not change keep their very value."""
        part = self.voxels[box]
        new = to_u8(after) if part.dtype == np.uint8 else np.rint(after)
        part[...] = np.where(after - before > 0.5, new, part)


def _insert(
    rng: np.random.Generator,
    place: Place,
    library: NoduleLibrary,
    count: int,
    taken: Sequence[Sequence[float]],
    scale: tuple[float, float],
    small_share: float,
) -> tuple[Inserted, ...]:
    lung, shape = place.lung, place.voxels.shape
    if lung.shape != shape or lung.dtype != np.bool_:
        raise InsertError(f"the lung mask is {lung.dtype} {lung.shape}; it must be bool {shape}")
    if not library.nodules:
        raise InsertError(f"{library.source}: holds no nodules")
    near = [(np.asarray(t[:3], float), float(t[3])) for t in taken]
    inside = np.flatnonzero(lung)
    done: list[Inserted] = []
    for _ in range(count if inside.size else 0):
        nodule = library.nodules[int(rng.integers(len(library.nodules)))]
        size = float(rng.uniform(*scale)) * (float(rng.uniform(0.5, 1.0)) if rng.random() < small_share else 1.0)
        for _ in range(TRIES):
            start = np.array(np.unravel_index(int(inside[rng.integers(inside.size)]), shape), dtype=float)
            one = _try(rng, place, nodule, size, start, near)
            if one is not None:
                near.append((np.asarray(one.centre_voxel), one.diameter_mm))
                done.append(one)
                break
    return tuple(done)


def _box(centre: Points, half: Points, shape: tuple[int, ...]) -> tuple[slice, ...]:
    low = np.maximum(0, np.floor(centre - half)).astype(int)
    high = np.minimum(shape, np.ceil(centre + half) + 1).astype(int)
    return tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))


def _try(
    rng: np.random.Generator,
    place: Place,
    nodule: RealNodule,
    size: float,
    start: Points,
    near: list[tuple[Points, float]],
) -> Inserted | None:
    """Put the nodule at `start`, or at the wall beyond it; None if it does not fit there."""
    spacing, shape = place.spacing, place.voxels.shape
    turn = random_turn(rng)
    centre = start + rng.uniform(-0.5, 0.5, 3)
    if nodule.wall is not None:
        found = find_wall(rng, place, start)
        if found is None:
            return None
        point, normal = found
        turn = _turn_to(turn @ nodule.wall, normal) @ turn
        centre = point - normal * (nodule.wall_mm * size - 0.5) / spacing
    diameter = nodule.diameter_mm * size
    if any(np.linalg.norm((centre - other) * spacing) < (diameter + width) / 2 + GAP_MM for other, width in near):
        return None
    reach = diameter / 2 / spacing + 1
    if np.any(centre < reach) or np.any(centre > np.asarray(shape) - 1 - reach):
        return None
    box = _box(centre, (np.linalg.norm(nodule.added_hu.shape) / 2 * size + 2) / spacing, shape)
    before = place.hu(box)
    added, share = _render(nodule, turn, size, spacing, centre, box)
    body = share > 0.5
    if body.sum() < 4:
        return None
    dark = (before < DARK_HU) & place.lung[box]
    middle = tuple(int(c) - s.start for c, s in zip(np.rint(centre), box, strict=True))
    if dark[body].mean() < (0.7 if nodule.wall is not None else 0.9) or not dark[middle]:
        return None
    noise = grain(before, dark)
    if nodule.grain_hu > 1.3 * noise and nodule.grain_hu > 15:
        added = ndimage.gaussian_filter(added, 0.6 / spacing)
    # a faint veil that the new lung's noise hides is no target
    if float(added[body].mean()) < max(FAINTEST_HU, 1.5 * noise):
        return None
    level = float(np.median(before[dark]))
    # noise in the lung is no tissue: only what stands out of it takes the nodule's place
    already = np.clip(1.25 * (before - level) / (SOLID_HU - level) - 0.25, 0, 1)
    place.add(box, before, before + added * (1 - already))
    z, y, x = (float(v) for v in centre)
    return Inserted((z, y, x), diameter, nodule.name, nodule.wall is not None)


def _render(
    nodule: RealNodule, turn: Points, size: float, spacing: Points, centre: Points, box: tuple[slice, ...]
) -> tuple[Floats, Floats]:
    """The nodule on the voxels of `box`: HU added and share of the outline; thick voxels average finer samples."""
    parts = np.maximum(1, np.rint(spacing)).astype(int)
    count = np.array([s.stop - s.start for s in box])
    first = np.array([s.start for s in box]) - 0.5 + 0.5 / parts
    # output sample i lies at voxel first + i / parts; back to the cube: turn^T (mm from the centre) / size
    back = turn.T / size
    matrix = back * (spacing / parts)
    offset = nodule.centre + back @ ((first - centre) * spacing)
    result = []
    for source in (nodule.added_hu, nodule.share):
        fine = ndimage.affine_transform(source, matrix, offset, output_shape=tuple(count * parts), order=1)
        shape = [int(v) for pair in zip(count, parts, strict=True) for v in pair]
        result.append(fine.reshape(shape).mean(axis=(1, 3, 5)))
    added, share = result
    if size < 0.98:
        added = ndimage.gaussian_filter(added, POINT_SPREAD_MM * float(np.sqrt(1 - size * size)) / spacing)
    return np.asarray(added, np.float32), np.asarray(share, np.float32)


def random_turn(rng: np.random.Generator) -> Points:
    """A random rotation, mirrored or not."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def _turn_to(a: Points, b: Points) -> Points:
    """The rotation that brings unit vector `a` to `b` the shortest way."""
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -0.9999:
        other = np.cross(a, np.eye(3)[int(np.argmin(np.abs(a)))])
        other /= np.linalg.norm(other)
        return np.asarray(2 * np.outer(other, other) - np.eye(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + cosine))


def find_wall(rng: np.random.Generator, place: Place, start: Points) -> tuple[Points, Points] | None:
    """Walk from `start` to a wall of the lung: the point on it (voxels) and its outward normal in mm; None if lost."""
    spacing, last = place.spacing, np.asarray(place.voxels.shape) - 1
    away = rng.normal(size=3) * (0.5, 1, 1)
    away /= np.linalg.norm(away)
    for t in np.arange(0, 80.0, 1.5):
        point = start + away * t / spacing
        if np.any(point < 6 / spacing) or np.any(point > last - 6 / spacing):
            return None
        if float(place.hu(_box(point, 1.5 / spacing, place.voxels.shape)).mean()) < WALL_HU:
            continue
        bright = place.hu(_box(point, 6 / spacing, place.voxels.shape)) > WALL_HU
        if not 0.3 < bright.mean() < 0.75:
            return None  # a vessel, or a corner
        grid = np.indices(bright.shape).reshape(3, -1).T * spacing
        normal = grid[bright.ravel()].mean(axis=0) - grid[~bright.ravel()].mean(axis=0)
        length = float(np.linalg.norm(normal))
        return (point, normal / length) if length > 2 else None
    return None
