"""One synthetic chest CT, from its seed.

    person -> organs, bones, lungs, vessels, airways, nodules on a 1 mm grid -> scanner -> Volume

Everything follows from the seed: the same seed and options give the same bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.grid import Grid
from train.phantom_body import Body, draw_body
from train.phantom_fields import Points, Space
from train.phantom_nodules import PhantomNodule, Site, add_nodules, random_count, random_diameter
from train.phantom_scanner import random_scanner, take_scan

if TYPE_CHECKING:
    from runtime.volume import Volume

LUNGS_MM = (-195.0, 128.0)
"""Standard body: from the lowest recess to the highest apex."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan.

    Attributes:
        volume: the scan, as `read_volume` would give it.
        nodules: what is to be found in it, in world mm.
        lungs: (z, y, x) bool on `volume.grid`: both lungs with their vessels, without trachea and main bronchi.
        seed: where it came from.
        padding_hu: what the file holds where `volume.hu` is -1024 (outside a circular field of view).
    """

    volume: "Volume"
    nodules: tuple[PhantomNodule, ...]
    lungs: NDArray[np.bool_]
    seed: int
    padding_hu: int = -1024


def make_phantom(
    seed: int,
    *,
    size: int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    step_mm: float | None = None,
    nodules: int | None = None,
    diameters_mm: tuple[float, ...] | None = None,
    reoriented: bool = True,
) -> Phantom:
    """A chest CT.

    Args:
        seed: of everything.
        size: pixels of a slice's side; default 512.
        spacing_mm: (x, y, z); default random, 0.55-0.95 in the plane and 0.6-3 between slices. With `size` but no
            spacing the field of view stays that of 512 pixels.
        step_mm: grid on which the body is drawn; default 1 mm, coarser for coarse scans.
        nodules: how many to try to place; default random, 0 to 12.
        diameters_mm: their diameters; default random (60 % under 10 mm).
        reoriented: let some scans be flipped, permuted or oblique.
    """
    rng = np.random.default_rng([seed, 20170])
    pixels = size or 512
    field_mm = float(np.clip(rng.normal(365, 32), 0.55 * 512, 0.95 * 512))
    in_plane = round(field_mm / pixels, 6)
    slice_mm = float(
        rng.choice((0.625, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), p=(0.1, 0.05, 0.2, 0.25, 0.05, 0.1, 0.2, 0.05))
    )
    spacing = spacing_mm or (in_plane, in_plane, slice_mm)
    step = step_mm or float(np.clip(min(spacing), 1.0, 3.0))
    oblique = bool(reoriented and rng.random() < 0.12)
    space = _space(rng, step, field_mm if spacing_mm is None else pixels * max(spacing[:2]), oblique)
    body = draw_body(rng, space)
    space = body.space
    count = random_count(rng) if nodules is None else nodules
    wanted = list(diameters_mm) if diameters_mm is not None else [random_diameter(rng) for _ in range(count)]

    extent = np.asarray(space.shape) * step
    slices = int(extent[0] / spacing[2])
    start_z = (extent[0] - (slices - 1) * spacing[2]) / 2 / step
    centre_y = body.middle_y + rng.normal(0, 6) / step
    centre_x = -space.low_mm[0] / step + rng.normal(0, 6) / step
    z: Points = start_z + np.arange(slices) * spacing[2] / step - 0.5
    middle = np.arange(pixels, dtype=np.float64) - (pixels - 1) / 2
    y: Points = float(centre_y) + middle * (spacing[1] / step)
    x: Points = float(centre_x) + middle * (spacing[0] / step)
    low = np.maximum(0, [z[0], y[0], x[0]]) + 2
    high = np.minimum(np.asarray(space.shape) - 1, [z[-1], y[-1], x[-1]]) - 2
    site = Site(body.hu, body.lung, body.vessels, body.vessel_radii_mm, low, high, step)
    drawn = add_nodules(rng, site, wanted)
    scanner = random_scanner(rng, spacing[2])
    hu = take_scan(rng, scanner, body.hu, step, (z, y, x))

    direction = space.rotation if oblique else np.eye(3)  # oblique: in the world the patient lies straight
    origin = rng.uniform((-40, -40, -900), (40, 40, 300)) + direction @ (
        -0.5 * np.array([pixels, pixels, 0.0]) * spacing
    )
    grid = Grid(
        (slices, pixels, pixels),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (round(float(origin[0]), 4), round(float(origin[1]), 4), round(float(origin[2]), 4)),
        tuple(float(v) for v in direction.ravel()),
    )
    first, scale = np.array([z[0], y[0], x[0]]), np.array([spacing[2], spacing[1], spacing[0]]) / step
    found = []
    for one in drawn:
        wx, wy, wz = grid.to_world((one.centre - first) / scale)
        found.append(PhantomNodule(float(wx), float(wy), float(wz), one.diameter_mm, one.kind))
    lungs = _nearest(body, (z, y, x))
    permutation, flips = random_orientation(rng) if reoriented else ((0, 1, 2), (False, False, False))
    return Phantom(
        _volume(hu, grid, grid.moved(permutation, flips), seed), tuple(found), lungs, seed, scanner.padding_hu
    )


def _space(rng: np.random.Generator, step: float, field_mm: float, oblique: bool) -> Space:
    scale = np.exp(rng.normal(0, (0.06, 0.05, 0.08))) * float(np.exp(rng.normal(0, 0.05)))
    scale = np.clip(scale, 0.8, 1.2)
    tilt = np.deg2rad(rng.normal(0, (1.5, 1.5, 2.0)) + (rng.uniform(-9, 9, 3) if oblique else 0))
    # how much is seen above the apices and below the lungs
    low = LUNGS_MM[0] * scale[2] + 12 - rng.uniform(0, 55)
    high = LUNGS_MM[1] * scale[2] + 4 + rng.uniform(0, 35)
    width, depth = min(field_mm + 10, 480.0), min(field_mm + 10, 430.0)
    shape = tuple(int(v / step) for v in (high - low, depth, width))
    waves = np.concatenate(
        [rng.normal(0, 1, (7, 3)), rng.normal(0, 1.5, (7, 3)), rng.uniform(0, 2 * np.pi, (7, 1))], axis=1
    )
    waves[:, :3] *= (2 * np.pi / rng.uniform(90, 260, 7) / np.linalg.norm(waves[:, :3], axis=1))[:, None]
    return Space(
        (shape[0], shape[1], shape[2]),
        step,
        np.array([-width / 2, -depth / 2, low]),
        _rotation(tilt),
        scale,
        waves,
    )


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1.0]])
    return np.asarray(about_x @ about_y @ about_z)


def random_orientation(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How the file stores the scan: mostly as it is, often head first reversed, seldom coronal or sagittal."""
    draw = rng.random()
    if draw < 0.7:
        return (0, 1, 2), (False, False, False)
    if draw < 0.92:
        a, b, c = rng.random(3) < 0.5
        return (0, 1, 2), (bool(a), bool(b), bool(c))
    flips = rng.random(3) < 0.5
    return ((1, 0, 2) if draw < 0.96 else (2, 0, 1)), (bool(flips[0]), bool(flips[1]), bool(flips[2]))


def _nearest(body: Body, positions: tuple[NDArray[np.float64], ...]) -> NDArray[np.bool_]:
    inside = body.lung > 0.5
    for axis, p in enumerate(positions):
        index = np.rint(p).astype(int)
        good = (index >= 0) & (index < inside.shape[axis])
        inside = np.take(inside, index, axis=axis, mode="clip")
        shape = [1, 1, 1]
        shape[axis] = -1
        inside &= good.reshape(shape)
    return np.asarray(inside)


def seriesuid(seed: int) -> str:
    """A name of the form LUNA16 uses, 64 characters, one for each seed below 10^9."""
    digits = np.random.default_rng([seed, 16]).integers(1, 10, 21)  # a component of a UID has no leading zero
    return f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{''.join(str(d) for d in digits)}{seed:09d}"


def _volume(hu: NDArray[np.int16], grid: Grid, file_grid: Grid, seed: int) -> "Volume":
    from runtime.volume import Volume

    return Volume(hu=hu, grid=grid, file_grid=file_grid, seriesuid=seriesuid(seed), source=f"phantom {seed}", notes=())
