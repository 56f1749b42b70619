"""Nodules: sizes, kinds, shapes, places."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.phantom_fields import Floats, Points, smooth_noise, splat

KINDS = ("solid", "part-solid", "ground-glass", "calcified")
SMALL_SHARE = 0.6
"""Nodules under 10 mm, as among the training data of the field."""


@dataclass(frozen=True)
class PhantomNodule:
    """A nodule: world centre (mm, LPS), diameter of the sphere of equal volume, and what it is made of.

    `kind` is one of `KINDS`, followed by `,` and its place: `isolated`, `juxtapleural` or `vascular`.
    """

    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    kind: str


@dataclass(frozen=True)
class Drawn:
    """A nodule on the grid: centre (z, y, x) voxels, diameter in mm, kind."""

    centre: Points
    diameter_mm: float
    kind: str


def random_diameter(rng: np.random.Generator) -> float:
    """Diameter in mm: 60 % from 3 to 10 mm, the rest from 10 to 30 mm with fewer large ones."""
    if rng.random() < SMALL_SHARE:
        return float(rng.uniform(3.0, 10.0))
    return float(10.0 * 3.0 ** (rng.random() ** 1.35))


def random_count(rng: np.random.Generator) -> int:
    """Nodules of a scan, 0 to 12; one scan in eight has none."""
    return 0 if rng.random() < 0.125 else int(rng.integers(1, 13))


def random_kind(rng: np.random.Generator, diameter_mm: float) -> str:
    """Ground-glass only where it can be seen: from 5 mm."""
    if diameter_mm < 5:
        return "calcified" if rng.random() < 0.12 else "solid"
    kind = str(rng.choice(KINDS, p=(0.68, 0.12, 0.12, 0.08)))
    return "solid" if kind == "calcified" and diameter_mm > 14 else kind


def make_shape(rng: np.random.Generator, diameter_mm: float, step_mm: float, spiculated: bool) -> tuple[Floats, Floats]:
    """Signed distance (voxels, negative inside) and spicules (0..1) of a lobulated body, in a cube around it."""
    radius = diameter_mm / 2 / step_mm
    half = int(np.ceil(radius * (2.6 if spiculated else 1.7) + 3))
    axis = np.arange(-half, half + 1, dtype=np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    # a stretched and turned ball
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    stretch = np.exp(rng.normal(0, 0.2, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    m = (q / stretch).T.astype(np.float32)
    u, v, w = (m[i, 0] * z + m[i, 1] * y + m[i, 2] * x for i in range(3))
    r = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
    edge = np.ones_like(r)
    rough = float(rng.uniform(0.03, 0.26)) if radius * step_mm > 2 else 0.05
    for k in range(7):
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        t = (n[0] * u + n[1] * v + n[2] * w) / r
        edge += np.float32(rough * rng.uniform(0.3, 1) / (1 + 0.35 * k)) * np.sin(
            np.float32(rng.uniform(1.5, 2.5 + k)) * t + np.float32(rng.uniform(0, 6.28))
        )
    distance = (r - radius * edge).astype(np.float32)
    distance += smooth_noise(rng, r.shape, 1.8 / step_mm) * np.float32(min(0.5, 0.1 * radius) * rng.uniform(0.2, 1))
    distance += smooth_noise(rng, r.shape, max(2.5, 0.5 * radius)) * np.float32(0.07 * radius * rng.uniform(0, 1))
    spikes = np.zeros_like(r)
    for _ in range(int(rng.integers(0, 4))):  # small vessels that run into it
        d = rng.normal(size=3)
        d /= np.linalg.norm(d)
        t = np.arange(0, half, 0.5)
        line = half + t[:, None] * d + (t[:, None] ** 2) * rng.normal(0, 0.15, 3) / max(half, 1)
        fade = np.clip((half - t) / 4, 0, 1)
        splat(spikes, line, np.full(t.size, float(rng.uniform(0.3, 0.45 + 0.05 * radius))) / step_mm, 0.85 * fade)
    if spiculated:
        for _ in range(int(rng.integers(6, 16))):
            d = rng.normal(size=3)
            d /= np.linalg.norm(d)
            bend = rng.normal(0, 0.25, 3)
            t = np.arange(0, 1, 0.4 / max(1.0, radius))
            long = radius * rng.uniform(0.4, 1.1)
            line = (
                half
                + (d * radius * 0.8)[None]
                + (d[None] + t[:, None] * bend[None]) * (t * (long + 0.2 * radius))[:, None]
            )
            splat(spikes, line, (1 - t) * rng.uniform(0.5, 1.0) / step_mm + 0.25, float(rng.uniform(0.4, 0.85)))
    return distance, spikes


@dataclass(frozen=True)
class Site:
    """Where nodules can be put, all on the grid of the phantom.

    Attributes:
        hu: the chest without nodules, changed in place.
        lung: share of lung in each voxel, vessels included.
        vessels: (n, 3) points (z, y, x) and their radii in mm, for nodules that grow on vessels.
        low, high: box (z, y, x) in which centres must lie.
    """

    hu: Floats
    lung: Floats
    vessels: Points
    vessel_radii: Points
    low: Points
    high: Points
    step_mm: float


def add_nodules(rng: np.random.Generator, site: Site, wanted: list[float]) -> list[Drawn]:
    """Draw nodules of about the diameters `wanted` (mm), largest first; one that finds no place is left out."""
    inside = np.flatnonzero((site.lung[::2, ::2, ::2] > 0.9).ravel())
    if not inside.size:
        return []
    coarse_shape = tuple(-(-n // 2) for n in site.lung.shape)
    done: list[Drawn] = []
    for diameter in sorted(wanted, reverse=True):
        kind = random_kind(rng, diameter)
        place = str(rng.choice(("isolated", "juxtapleural", "vascular"), p=(0.55, 0.25, 0.2)))
        for attempt in range(60):
            if attempt == 40:
                place = "isolated"
            centre = _propose(rng, site, inside, coarse_shape, place, diameter)
            if centre is None or np.any(centre < site.low + diameter / 2) or np.any(centre > site.high - diameter / 2):
                continue
            gap = diameter / 2 + 4
            if any(np.linalg.norm(centre - d.centre) * site.step_mm < gap + d.diameter_mm / 2 for d in done):
                continue
            if not _fits(site, centre, diameter, place):
                continue
            drawn = _draw(rng, site, centre, diameter, kind, place)
            if drawn is not None:
                done.append(drawn)
                break
    return done


def _propose(
    rng: np.random.Generator, site: Site, inside: NDArray[np.int64], shape: tuple[int, ...], place: str, diameter: float
) -> Points | None:
    if place == "vascular" and len(site.vessels):
        i = int(rng.integers(len(site.vessels)))
        away = rng.normal(size=3)
        away /= np.linalg.norm(away)
        return np.asarray(site.vessels[i] + away * (diameter / 2 + site.vessel_radii[i] * 0.4) / site.step_mm)
    centre = np.array(np.unravel_index(int(rng.choice(inside)), shape), dtype=float) * 2 + rng.uniform(-1, 1, 3)
    if place == "juxtapleural":
        # walk outwards to the pleura, then back by part of the radius
        away = rng.normal(size=3) * (0.6, 1, 1)
        away /= np.linalg.norm(away)
        for t in np.arange(0, 90.0):
            p = np.rint(centre + away * t).astype(int)
            if np.any(p < 0) or np.any(p >= site.lung.shape):
                return None
            if site.lung[tuple(p)] < 0.5:
                return np.asarray(centre + away * (t - diameter / 2 / site.step_mm * rng.uniform(0.35, 0.95)))
        return None
    return centre


def _box(site: Site, centre: Points, half: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    base = np.rint(centre).astype(int)
    low = np.maximum(0, base - half)
    high = np.minimum(site.hu.shape, base + half + 1)
    there = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    here = tuple(slice(int(a - b + half), int(c - b + half)) for a, b, c in zip(low, base, high, strict=True))
    return there, here


def _fits(site: Site, centre: Points, diameter: float, place: str) -> bool:
    """Enough lung in and around the ball, and little that is bright already."""
    radius = diameter / 2 / site.step_mm
    half = int(np.ceil(radius + 3))
    there, here = _box(site, centre, half)
    axis = np.arange(-half, half + 1)
    r = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)[here]
    lung, hu = site.lung[there], site.hu[there]
    ball, shell = r <= radius, (r > radius + 0.5) & (r <= radius + 2.5)
    if not ball.any() or not shell.any():
        return False
    dark = hu < -550
    need_lung, need_dark = {"isolated": (0.999, 0.88), "vascular": (0.98, 0.72), "juxtapleural": (0.6, 0.45)}[place]
    in_lung = lung[ball] > 0.5
    return bool(
        in_lung.mean() >= need_lung
        and dark[shell].mean() >= need_dark
        and (dark[ball] | ~(lung[ball] > 0.5)).mean() >= 0.8
    )


def _draw(rng: np.random.Generator, site: Site, centre: Points, diameter: float, kind: str, place: str) -> Drawn | None:
    solid = kind in ("solid", "calcified")
    spiculated = diameter > 7 and kind != "calcified" and rng.random() < 0.4
    distance, spikes = make_shape(rng, diameter, site.step_mm, spiculated)
    half = distance.shape[0] // 2
    there, here = _box(site, centre, half)
    distance, spikes = distance[here], spikes[here]
    lung = site.lung[there]
    # bring the part that lies in the lung to the wanted volume
    goal = np.pi / 6 * (diameter / site.step_mm) ** 3
    inner = distance
    for _ in range(3):
        volume = float((np.clip(0.5 - inner, 0, 1) * lung).sum())
        if volume <= 0:
            return None
        inner = inner - np.float32(np.clip((goal ** (1 / 3) - volume ** (1 / 3)) * 0.62, -1.5, 1.5))
    ramp = 1.0 if solid else float(rng.uniform(1.5, 3.0))
    alpha = np.clip(0.5 - inner / np.float32(ramp), 0, 1)
    visible = np.clip(0.5 - inner, 0, 1) * lung
    volume = float(visible.sum())
    hu = site.hu[there]
    texture = smooth_noise(rng, hu.shape, 2.0 / site.step_mm)
    if solid:
        value = float(rng.uniform(-40, 70)) + 12 * texture
        if kind == "calcified":
            value = value + float(rng.uniform(120, 500)) * np.clip(1.2 - np.exp(inner * 0.5) * 1.5, 0, 1)
        if diameter < 6:
            value = value - float(rng.uniform(0, 80))
        if diameter > 12 and kind == "solid" and rng.random() < 0.1:  # a cavity
            value = np.where(inner < -float(rng.uniform(3, 5)), -900.0, value)
        full = np.maximum(alpha, spikes * (inner > -1))
    else:
        value = float(rng.uniform(-680, -420)) + 45 * texture
        full = np.maximum(alpha, spikes * 0.35)
        if kind == "part-solid":
            shift = rng.normal(0, 0.12 * diameter / site.step_mm, 3)
            core, _ = make_shape(rng, diameter * float(rng.uniform(0.35, 0.65)), site.step_mm, False)
            small = core.shape[0] // 2
            axis = [np.arange(n) for n in inner.shape]
            origin = np.rint(centre).astype(int) - half
            index = [
                np.clip(a + there[k].start - origin[k] - half + small - round(float(shift[k])), 0, 2 * small)
                for k, a in enumerate(axis)
            ]
            core_alpha = np.clip(0.5 - core[np.ix_(*index)] / 1.5, 0, 1)
            value = value + core_alpha * (float(rng.uniform(-60, 40)) - value)
    # vessels run on through what is less dense than they are
    result = (
        hu + full * lung * np.maximum(value - hu, 0)
        if not (solid and np.min(value) < -500)
        else hu + full * lung * (value - hu)
    )
    site.hu[there] = result
    grid = [np.arange(s.start, s.stop) for s in there]
    middle = np.array(
        [float((visible.sum(axis=tuple(a for a in range(3) if a != k)) * grid[k]).sum()) / volume for k in range(3)]
    )
    size = float((6 * volume / np.pi) ** (1 / 3)) * site.step_mm
    if size < 2.5 or np.linalg.norm(middle - centre) > diameter:
        return None
    return Drawn(middle, size, f"{kind},{place}")
