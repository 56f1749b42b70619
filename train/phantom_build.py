"""A person's build: what differs between people, the spine and the rib cage, and the centre lines of what runs between.

Axes as in the patient system: x to the left, y to the back, z to the head; the carina is near (0, 20, 0).
"""

from dataclasses import dataclass

import numpy as np

from train.phantom_fields import Floats, Numbers, Points, path

Polyline = list[tuple[float, float, float, float]]
"""Points x, y, z and radius there, mm."""


@dataclass(frozen=True)
class Build:
    """What differs between people."""

    arms_up: bool
    fat_mm: float
    muscle_mm: float
    breast_mm: float
    slab_mm: float
    heart: float
    dome_right_mm: float
    dome_left_mm: float
    barrel: float
    asymmetry: float
    phase: tuple[float, ...]


def random_build(rng: np.random.Generator) -> Build:
    """A person."""
    return Build(
        arms_up=bool(rng.random() < 0.85),
        fat_mm=float(np.clip(rng.lognormal(2.45, 0.5), 4, 34)),
        muscle_mm=float(rng.uniform(1, 8)),
        breast_mm=float(rng.uniform(22, 50)) if rng.random() < 0.45 else 0.0,
        slab_mm=float(rng.uniform(1.5, 9)),
        heart=float(rng.uniform(0.85, 1.2)),
        dome_right_mm=float(rng.uniform(-118, -78)),
        dome_left_mm=float(rng.uniform(-130, -95)),
        barrel=float(rng.uniform(0.9, 1.15)),
        asymmetry=float(rng.uniform(-0.08, 0.08)),
        phase=tuple(float(v) for v in rng.uniform(0, 2 * np.pi, 12)),
    )


def spine_y(z: Numbers) -> Floats:
    """Middle of the vertebral bodies: the kyphosis of the chest."""
    height = np.asarray(z, dtype=np.float64)
    return (60 - 0.0011 * (height + 40) ** 2).astype(np.float32)


def cavity_size(z: Numbers, build: Build) -> tuple[Floats, Floats, Floats]:
    """Half-width, half-depth and middle y of the inside of the rib cage at height z."""
    height = np.asarray(z, dtype=np.float64)
    a = np.interp(height, (-200, -140, -60, 0, 40, 75, 98, 116, 124), (126, 132, 130, 122, 113, 98, 76, 46, 8))
    b = (
        np.interp(height, (-200, -140, -60, 0, 40, 75, 98, 116, 124), (82, 89, 91, 86, 76, 63, 49, 31, 6))
        * build.barrel
    )
    back = spine_y(height) + 31
    middle = back - b
    return a.astype(np.float32), b.astype(np.float32), middle.astype(np.float32)


def great_vessels(build: Build) -> dict[str, Polyline]:
    """Centre lines of what every mediastinum shows. `v_`: veins, `a_`: aorta and its branches, `p_`: pulmonary.

    Those to the arms leave the chest over the apex of the lung (arteries) and in front of it (veins); none ends in it.
    """
    h, p = build.heart, build.phase
    s = 1 + 0.12 * np.sin(p[2])
    top = 42 + 8 * np.sin(p[3])
    desc = [(26 - 0.07 * max(0, -z - 20), float(spine_y(z)) - 21, z, 12.5 * s) for z in range(0, -261, -26)]
    arch: Polyline = [
        (4, -18, -55, 15 * s),
        (-12, -22, -25, 16 * s),
        (-15, -22, 5, 16 * s),
        (-8, -14, top - 17, 15 * s),
        (8, 4, top - 9, 14 * s),
        (22, 24, top - 17, 13.5 * s),
        (28, 36, 10, 13 * s),
    ]
    return {
        "a_aorta": [*arch, *desc],
        "a_brachiocephalic": [
            (-6, -8, top - 8, 7),
            (-12, -4, top + 14, 6.5),
            (-22, 4, 85, 6),
            (-32, 10, 108, 5),
            (-50, 10, 124, 4.5),
            (-76, 5, 118, 4),
        ],
        "a_carotid": [(6, 2, top - 4, 4.5), (12, 6, top + 25, 4), (20, 10, 110, 4), (24, 8, 180, 3.5)],
        "a_subclavian": [
            (18, 14, top - 7, 5),
            (24, 22, top + 25, 4.5),
            (32, 18, 106, 4.5),
            (50, 10, 124, 4.5),
            (76, 5, 118, 4),
        ],
        "a_carotid_right": [(-22, 4, 85, 4.5), (-24, 8, 120, 4), (-26, 8, 180, 3.5)],
        "v_cava_superior": [(-30, -14, 52, 8.5), (-31, -14, 20, 9.5), (-30, -12, -20, 10), (-26, -8, -50 * h, 12)],
        "v_innominate": [(-30, -14, 52, 8), (-8, -27, 54, 7), (20, -24, 68, 6.5), (34, -30, 88, 6), (56, -38, 102, 6)],
        "v_innominate_right": [(-30, -14, 52, 8), (-33, -18, 75, 7), (-40, -30, 90, 6.5), (-56, -38, 102, 6)],
        "v_cava_inferior": [(-24, 2, -62, 13), (-26, 6, -95, 13), (-24, 12, -150, 12), (-20, 18, -250, 11)],
        "p_trunk": [(20, -46, -45, 14), (25, -34, -22, 14 * s), (24, -14, -8, 13.5 * s)],
        "p_left": [(24, -14, -8, 13 * s), (36, 2, -4, 11.5), (47, 14, -12, 9)],
        "p_right": [(24, -14, -8, 11.5), (4, -2, -16, 10.5), (-22, 3, -20, 10), (-44, 8, -24, 9)],
        "v_pulmonary_left": [(20, 12, -50, 8), (38, 8, -42, 6.5), (48, 4, -34, 5)],
        "v_pulmonary_right": [(-8, 12, -50, 8), (-30, 6, -44, 7), (-44, -2, -36, 5)],
        "v_azygos": [(-6, float(spine_y(-150)) - 19, -150, 3), (-8, float(spine_y(-40)) - 19, -40, 3.5),
                     (-12, 34, 14, 4), (-22, 14, 22, 4.5), (-30, -6, 20, 4.5)],
    }  # fmt: skip


def airway_lines() -> dict[str, Polyline]:
    """Trachea and main bronchi: lumen radius."""
    return {
        "trachea": [(0, 4, 210, 8), (0, 8, 140, 8.5), (1, 14, 90, 8.5), (2, 18, 40, 8.5), (0, 22, 4, 8.5)],
        "right": [(0, 22, 6, 8), (-10, 23, -6, 7), (-24, 21, -17, 6.3), (-36, 18, -25, 5.6)],
        "left": [(0, 22, 6, 7.5), (14, 22, -8, 6.2), (32, 19, -20, 5.5), (46, 17, -28, 5)],
    }


def oesophagus_line() -> Polyline:
    """Oesophagus, outer radius."""
    heights = (170, 110, 60, 20, -20, -70, -110, -135)
    return [(7 - 0.03 * z * (z < 0), min(float(spine_y(z)) - 22, 42.0), float(z), 6.5) for z in heights]


def chambers(build: Build) -> list[tuple[tuple[float, float, float], tuple[float, float, float]]]:
    """Blood pools in the heart: centre and half-axes."""
    h = build.heart
    return [
        ((38, -32, -82), (29 * h, 18 * h, 18 * h)),
        ((8, -50, -78), (24 * h, 15 * h, 22 * h)),
        ((-24, -20, -66), (19 * h, 22 * h, 30 * h)),
        ((6, 8, -52), (27 * h, 15 * h, 20 * h)),
    ]


def sample(line: Polyline, step: float = 1.5) -> tuple[Points, Points]:
    """A polyline as a smooth curve of points (n, 3) and radii."""
    array = np.asarray(line, dtype=float)
    return path(array[:, :3], array[:, 3], step)
