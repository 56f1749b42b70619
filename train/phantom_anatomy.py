"""The large organs of a chest as signed distances (mm, negative inside) in the axes of a standard body."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.phantom_build import Build, Polyline, airway_lines, cavity_size, great_vessels, spine_y
from train.phantom_fields import Floats, Points

TO_THE_ARMS = ("a_brachiocephalic", "a_subclavian", "v_innominate", "v_innominate_right")
"""Great vessels that lie far from the midline: fat reaches from there to them, so that no lung lies behind them."""


def smooth_min(a: Floats, b: Floats, k: float) -> Floats:
    """Union of two distances with a fillet of about `k` mm (polynomial smooth minimum)."""
    h = np.maximum(k - np.abs(a - b), 0) / np.float32(k)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(k / 4))


def smooth_max(a: Floats, b: Floats, k: float) -> Floats:
    """Intersection with a rounded edge."""
    return -smooth_min(-a, -b, k)


def ellipsoid(
    x: Floats, y: Floats, z: Floats, centre: tuple[float, float, float], half: tuple[float, float, float]
) -> Floats:
    """Distance to an ellipsoid, to first order."""
    u, v, w = ((p - np.float32(c)) / np.float32(h) for p, c, h in zip((x, y, z), centre, half, strict=True))
    k0 = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
    k1 = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2) + np.float32(1e-6)
    return np.asarray(k0 * (k0 - 1) / k1, dtype=np.float32)


def tube(x: Floats, y: Floats, z: Floats, line: Polyline) -> Floats:
    """Distance to a tube of changing radius along straight pieces."""
    result = np.full_like(x, 1e3)
    points = np.asarray(line, dtype=np.float32)
    for p, q in pairwise(points):
        d = q[:3] - p[:3]
        t = ((x - p[0]) * d[0] + (y - p[1]) * d[1] + (z - p[2]) * d[2]) / max(1e-6, float(d @ d))
        np.clip(t, 0, 1, out=t)
        gap = (x - p[0] - t * d[0]) ** 2 + (y - p[1] - t * d[1]) ** 2 + (z - p[2] - t * d[2]) ** 2
        result = np.minimum(result, np.sqrt(gap) - (p[3] + (q[3] - p[3]) * t))
    return np.asarray(result, dtype=np.float32)


def superellipse(x: Floats, y: Floats, a: Floats, b: Floats, power: float) -> Floats:
    """Distance to |x/a|^n + |y/b|^n = 1 in the plane, to first order."""
    u, v = np.abs(x) / a, np.abs(y) / b
    r = (u**power + v**power + np.float32(1e-9)) ** np.float32(1 / power)
    gradient = np.sqrt((u ** (power - 1) / a) ** 2 + (v ** (power - 1) / b) ** 2) / r ** np.float32(power - 1)
    return np.asarray((r - 1) / np.maximum(gradient, np.float32(1e-4)), dtype=np.float32)


def cavity(x: Floats, y: Floats, z: Floats, build: Build) -> Floats:
    """The inside of the rib cage, lungs, mediastinum and upper belly together; open below."""
    a, b, middle = cavity_size(z, build)
    wide = a * (1 + np.float32(build.asymmetry) * np.sign(x) * np.minimum(1, np.abs(x) / 30))
    return superellipse(x, y - middle, np.maximum(wide, 4), np.maximum(b, 4), 2.35)


def dome(x: Floats, y: Floats, build: Build) -> Floats:
    """Height of the diaphragm above each (x, y)."""
    p = build.phase

    def one(top: float, cx: float, cy: float) -> Floats:
        r2 = ((x - cx) / 92) ** 2 + ((y - cy) / np.where(y > cy, 88, 105)) ** 2
        return np.asarray(top - 78 * r2**1.25 + 3 * np.sin(x / 19 + p[0]) + 3 * np.sin(y / 23 + p[1]))

    return np.maximum(one(build.dome_right_mm, -62, -18), one(build.dome_left_mm, 64, -8)).astype(np.float32)


def heart(x: Floats, y: Floats, z: Floats, build: Build) -> Floats:
    """Heart with its pericardium and fat; it rests on the diaphragm."""
    h = build.heart
    # its long axis points to the left, the front and below
    axis = np.array([0.72, -0.55, -0.42]) / np.linalg.norm([0.72, -0.55, -0.42])
    side = np.array([0.6, 0.8, 0.0])
    third = np.cross(axis, side)
    base = np.array([15.0, -28.0, -68.0])
    rel = [x - np.float32(base[0]), y - np.float32(base[1]), z - np.float32(base[2])]
    u, v, w = (sum(np.float32(d[i]) * rel[i] for i in range(3)) for d in (axis, side, third))
    zero = (0.0, 0.0, 0.0)
    left = ellipsoid(np.asarray(u), np.asarray(v), np.asarray(w), zero, (66 * h, 43 * h, 46 * h))
    right = ellipsoid(x, y, z, (-16, -27, -66), (34 * h, 36 * h, 46 * h))
    return smooth_min(left, right, 14)


def mediastinum(x: Floats, y: Floats, z: Floats, build: Build, heart_distance: Floats) -> Floats:
    """All that lies between the lungs: fat wraps the organs and fills their corners."""
    back = spine_y(z)
    p = build.phase
    shift = 5 * np.sin(z / 60 + p[4]) + 3 * np.sin(y / 24 + z / 45 + p[1])
    half = np.interp(y - (back - 60), (-110, -80, -45, -10, 30, 60), (1.0, 0.55, 0.75, 1.6, 1.2, 1.4)) * build.slab_mm
    half = half + np.interp(z, (-160, -40, 20, 70, 125), (2, 3, 6, 16, 22))
    # the front edges of the lungs nearly touch behind the breastbone below the arch, and diverge above and below
    result = (np.abs(x - shift) - half).astype(np.float32)
    spine = np.hypot(x, y - back) - np.float32(20)
    gutter = np.maximum(np.abs(x) - 17 - np.maximum(0, y - back) * 0.25, back - y).astype(np.float32)
    result = smooth_min(result, smooth_min(spine.astype(np.float32), gutter, 6), 12)
    result = smooth_min(result, heart_distance, 10)
    for name, line in great_vessels(build).items():
        if name in ("v_azygos", "a_carotid", "a_carotid_right"):
            continue
        result = smooth_min(result, tube(x, y, z, line) - np.float32(2.0), 8)
        for share in (0.75, 0.5, 0.25) if name in TO_THE_ARMS else ():
            nearer = [(px * share, py, pz, radius) for px, py, pz, radius in line]
            result = smooth_min(result, tube(x, y, z, nearer) - np.float32(3.0), 8)
    for line in airway_lines().values():
        result = smooth_min(result, tube(x, y, z, line) - np.float32(3.0), 7)
    for side in (-1, 1):  # hila
        result = smooth_min(result, ellipsoid(x, y, z, (side * 42, 10, -22), (12, 13, 20)), 9)
    return result


def outline(x: Floats, y: Floats, z: Floats, build: Build, cavity_distance: Floats) -> tuple[Floats, Floats]:
    """Body surface and the outside of the muscle layer under its fat."""
    p = build.phase
    a, b, middle = cavity_size(np.minimum(z, 50), build)
    angle = np.arctan2(y - middle, x)
    chest = superellipse(x, y - middle + 2, a + 14, b + 13, 2.5) - np.float32(build.muscle_mm)
    del cavity_distance
    # muscles and ligaments over the spinous processes, which end two centimetres below their vertebra
    chest = smooth_min(chest, np.hypot(x * 0.6, y - spine_y(z + 20) - 36).astype(np.float32) - 17, 12)
    # paraspinal muscles, shoulder blades' and breast muscles
    for side in (-1, 1):
        back = spine_y(np.minimum(z, 60))
        chest = smooth_min(chest, np.hypot(x - side * 30, y - back - 38).astype(np.float32) - 16, 16)
        chest = smooth_min(chest, ellipsoid(x, y, z, (side * 120, 45, 40), (42, 42, 95)), 25)
        chest = smooth_min(chest, ellipsoid(x, y, z, (side * 72, -68, 35), (52, 24, 60)), 20)
    chest = smooth_max(chest, z - np.float32(118), 50)
    neck = tube(x, y, z, [(0, 30, 60, 60), (0, 14, 130, 57), (0, 2, 330, 55)])
    muscle = smooth_min(chest, neck, 45)
    for side in (-1, 1):
        if build.arms_up:
            arm = [
                (side * 95, 15, 88, 44),
                (side * 150, 12, 118, 46),
                (side * 178, -5, 190, 42),
                (side * 170, -20, 330, 38),
            ]
        else:
            arm = [
                (side * 85, 12, 92, 40),
                (side * 160, 18, 88, 48),
                (side * 198, 22, 20, 44),
                (side * 222, 15, -300, 34),
            ]
        muscle = smooth_min(muscle, tube(x, y, z, [(float(i), float(j), float(k), float(r)) for i, j, k, r in arm]), 26)
    fat = build.fat_mm * (
        1 + 0.3 * np.sin(angle + p[5]) + 0.2 * np.sin(2 * angle + p[6] + z / 70) + 0.25 * np.sin(z / 90 + p[7])
    )
    # less fat on shoulders and neck, more on the belly
    fat = np.maximum(3, fat * np.interp(z, (-220, -120, 40, 110, 160), (1.25, 1.1, 0.9, 0.6, 0.4)))
    skin = muscle - fat.astype(np.float32)
    if build.breast_mm:
        r = build.breast_mm
        for side in (-1, 1):
            _, deep, middle_y = cavity_size(np.array(-45.0), build)
            front = float(middle_y - deep) - 20
            skin = smooth_min(
                skin, ellipsoid(x, y, z, (side * 72, front, -45 + 4 * np.sin(p[8])), (r * 1.35, r, r * 1.3)), 25
            )
    return skin, muscle


def lung_distance(
    x: Floats, y: Floats, z: Floats, build: Build, cavity_distance: Floats, between: Floats, base: Floats
) -> Floats:
    """Both lungs: the cavity, less the mediastinum, above the diaphragm. `base`: its height at each (x, y, z) node."""
    below = (base - z) * np.float32(0.75)
    # costal edges stay sharp, the rest is rounded
    shape = np.maximum(cavity_distance, below)
    front = (-y - 200).astype(np.float32)
    return smooth_max(np.maximum(shape, front), -between, 5)


def lobe(x: Points, y: Points, z: Points, build: Build) -> NDArray[np.int64]:
    """0 left upper, 1 left lower, 2 right upper, 3 right middle, 4 right lower."""
    oblique, horizontal = fissures(x, y, build)
    right = x < 0
    lower = z < oblique
    return np.where(right, np.where(lower, 4, np.where(z < horizontal, 3, 2)), np.where(lower, 1, 0))


def fissures(x: NDArray[Any], y: NDArray[Any], build: Build) -> tuple[NDArray[Any], NDArray[Any]]:
    """Heights of the oblique and (right) horizontal fissure above (x, y)."""
    p = build.phase
    wave = 5 * np.sin(x / 38 + p[9]) + 4 * np.sin(y / 33 + p[10])
    oblique = np.where(x < 0, -28, -14) + 1.15 * (y - 5) - 0.0022 * (np.abs(x) - 70) ** 2 + wave
    horizontal = -22 + 0.12 * y + 0.004 * (np.abs(x) - 70) ** 2 * 0.5 + 0.6 * wave + 5 * np.sin(p[11])
    return oblique, horizontal
