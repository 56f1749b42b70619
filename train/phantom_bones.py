"""Bones as balls along curves: ribs, spine, breastbone, shoulder blades, collar bones; cartilage apart."""

from dataclasses import dataclass

import numpy as np

from train.phantom_build import Build, cavity_size, spine_y
from train.phantom_fields import Points, path


@dataclass(frozen=True)
class Balls:
    """Balls in body mm: centres (n, 3) as x, y, z; radii (n,)."""

    centres: Points
    radii: Points

    @staticmethod
    def join(parts: "list[tuple[Points, Points]]") -> "Balls":
        """One set of balls."""
        return Balls(np.concatenate([p for p, _ in parts]), np.concatenate([r for _, r in parts]))


def wall_point(angle: Points, z: Points, offset: float, build: Build) -> Points:
    """Points (x, y, z) at `offset` mm outside the cavity; angle 0 at the back, pi/2 at the patient's left."""
    a, b, middle = cavity_size(np.minimum(z, 112.0), build)
    power = 2 / 2.35
    sine, cosine = np.sin(angle), np.cos(angle)
    x = (a * (1 + build.asymmetry * np.sign(sine)) + offset) * np.sign(sine) * np.abs(sine) ** power
    y = middle + (b + offset) * np.sign(cosine) * np.abs(cosine) ** power
    return np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1).astype(np.float64)


def ribs(build: Build, rng: np.random.Generator) -> tuple[Balls, Balls]:
    """Ribs 1-12 of both sides, and the cartilage of 1-9."""
    bone, cartilage = [], []
    for k in range(12):
        back_z = 112 - 23.0 * k - 0.12 * k * k + rng.uniform(-1.5, 1.5)
        drop = np.interp(k, (0, 2, 6, 11), (34, 72, 112, 85)) + rng.uniform(-5, 5)
        end = np.interp(k, (0, 1, 6, 9, 10, 11), (2.6, 2.55, 2.3, 2.0, 1.6, 1.0))
        thick = np.interp(k, (0, 1, 5, 11), (4.2, 4.6, 5.0, 4.0))
        for side in (-1, 1):
            angle = np.linspace(0.24, end, 22)
            z = back_z + 6 - drop * ((angle - 0.24) / (end - 0.24)) ** 0.95
            line = wall_point(side * angle, z, 5.5, build)
            line[0] = (side * 19, spine_y(back_z) + 8, back_z + 3)
            for shift in (-2.8, 2.8):
                shifted = line + np.array([0, 0, shift])
                bone.append(path(shifted, np.full(len(shifted), thick), 1.6))
            if k < 9:
                start = line[-1]
                to_z = 60 - 21.0 * min(k, 6) if k < 7 else -75
                goal = np.array([side * 17.0, 0, to_z])
                _, b, middle = cavity_size(np.array(min(to_z, 100.0)), build)
                goal[1] = float(middle - b) - 7
                if k >= 7:
                    goal[0] = side * 55.0
                mid = (start + goal) / 2 + [0, -4, -6 if k > 3 else 0]
                for shift in (-2.0, 2.0):
                    cartilage.append(
                        path(np.stack([start, mid, goal]) + np.array([0, 0, shift]), np.full(3, thick + 0.3), 1.6)
                    )
    return Balls.join(bone), Balls.join(cartilage)


def vertebrae(z_range: tuple[float, float]) -> tuple[Balls, list[tuple[float, float, float]]]:
    """Arches and processes of all vertebrae; and (height, middle y, radius) of each vertebral body."""
    parts, bodies = [], []
    for k in range(-4, 17):
        z = 112 - 23.0 * k - 0.12 * k * k
        if not z_range[0] - 40 < z < z_range[1] + 40:
            continue
        y = float(spine_y(np.array(z)))
        size = float(np.interp(z, (-250, -100, 100, 180), (19, 17, 14, 10)))
        bodies.append((z, y, size))
        for s in (-1, 1):
            lines: list[list[tuple[float, float, float, float]]] = [
                [(s * size * 0.75, y + size * 0.6, z + 4, 4.5), (s * 13, y + size + 9, z + 4, 4.5)],
                [
                    (s * 13, y + size + 9, z + 3, 4.0),
                    (s * 11, y + size + 14, z - 2, 4.0),
                    (0, y + size + 19, z - 5, 4.0),
                ],
                [
                    (s * 13, y + size + 8, z + 3, 4.5),
                    (s * 24, y + size + 13, z + 4, 4),
                    (s * 33, y + size + 15, z + 4, 4.5),
                ],
                [(0, y + size + 19, z - 5, 3.5), (0, y + size + 26, z - 14, 3), (0, y + size + 30, z - 22, 4)],
            ]
            for line in lines:
                array = np.array(line)
                parts.append(path(array[:, :3], array[:, 3], 1.6))
    return Balls.join(parts), bodies


def shoulder_girdle(build: Build, rng: np.random.Generator) -> Balls:
    """Shoulder blades, collar bones, heads and shafts of the upper arms."""
    parts = []
    for s in (-1, 1):
        # blade: a triangular plate on the back of the chest, rotated outward when the arms are up
        out = 0.22 if build.arms_up else 0.0
        u, v = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 90), indexing="ij")
        keep = u < 1 - 0.93 * v
        u, v = u[keep], v[keep]
        angle = 0.62 + out + v * (0.28 + out) + u * 0.62
        z = 92 - 128 * v - u * 6
        plate = wall_point(s * angle, z, 17, build)
        plate[:, 1] += np.interp(z, (-40, 90), (2, 8))
        thin = np.where((u < 0.07) | (u > 0.85 - 0.93 * v), 3.6, 1.9)
        parts.append((plate, thin))
        x_arm = 158 if not build.arms_up else 146
        z_arm = 92 if not build.arms_up else 112
        spine = np.array([wall_point(np.array([s * 0.65]), np.array([70.0]), 24, build)[0],
                          wall_point(np.array([s * 1.0]), np.array([86.0]), 34, build)[0],
                          (s * x_arm, 26, z_arm + 18)])  # fmt: skip
        parts.append(path(spine, np.array([4, 5, 6.0]), 1.6))
        glenoid = np.array(
            [wall_point(np.array([s * 1.15]), np.array([80.0]), 17, build)[0], (s * (x_arm - 26), 20, z_arm - 4)]
        )
        parts.append(path(glenoid, np.array([4.5, 10.0]), 1.6))
        end = (s * 176, -6, 200) if build.arms_up else (s * 205, 22, -10)
        far = (s * 170, -20, 330) if build.arms_up else (s * 222, 15, -300)
        shaft = np.array(
            [(s * x_arm, 12, z_arm), ((s * x_arm + end[0]) / 2, 10, (z_arm + end[2]) / 2), end, far], float
        )
        parts.append(path(shaft, np.array([23, 13, 11, 11.0]), 2.5))
        parts.append((shaft[:1], np.array([24.0])))
        lift = 12 if build.arms_up else 0
        clavicle = np.array(
            [(s * 20, -46, 72), (s * 55, -46, 84), (s * 95, -18, 98 + lift), (s * (x_arm - 12), 4, z_arm + 22)], float
        )
        parts.append(path(clavicle, np.array([9, 6, 6, 6.5]), 1.6))
    del rng
    return Balls.join(parts)


def breastbone(build: Build) -> Balls:
    """Manubrium and body."""
    z = np.arange(70.0, -75.0, -1.6)
    _, b, middle = cavity_size(z, build)
    front = (middle - b) - 8
    half = np.interp(z, (-75, -60, -20, 38, 44, 60, 70), (6, 14, 17, 12, 17, 24, 14))
    parts = []
    for u in np.linspace(-1, 1, 13):
        parts.append((np.stack([u * half, front + 2 * u * u, z], axis=-1), np.full(z.size, 5.0)))
    return Balls.join(parts)
