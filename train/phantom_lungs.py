"""The inside of the lungs: parenchyma, fissures, vessels and bronchi, and harmless blemishes."""

from dataclasses import dataclass

import numpy as np

from train import phantom_anatomy as anatomy
from train.phantom_build import Build, airway_lines
from train.phantom_fields import COARSE, Floats, Points, Space, Upsampler, blend, smooth_noise, splat
from train.phantom_vessels import Tree, beside, grow

TIPS_PER_LITRE = 900


@dataclass(frozen=True)
class Trees:
    """Both lungs' trees; the bronchi as points with the radius of their lumen (mm, body axes)."""

    arteries: tuple[Tree, ...]
    veins: tuple[Tree, ...]
    airway_points: Points
    airway_radii: Points


def parenchyma(
    rng: np.random.Generator, space: Space, hu: Floats, lung: Floats, box: tuple[slice, slice, slice]
) -> None:
    """Lung tissue: denser where it hangs down, mottled by lobules, thinned by emphysema in some."""
    part = hu[box]
    shape = part.shape
    step = space.step_mm
    base = float(rng.uniform(-905, -835))
    slope = float(rng.uniform(0.1, 0.55)) * step
    rows = (np.arange(shape[1], dtype=np.float32) - shape[1] * 0.55) * np.float32(slope)
    value = smooth_noise(rng, shape, 2.2 / step) * np.float32(rng.uniform(7, 15))
    value += smooth_noise(rng, shape, 7 / step) * np.float32(rng.uniform(5, 12))
    value += smooth_noise(rng, shape, 35 / step) * np.float32(rng.uniform(4, 12))
    value += rows[None, :, None]
    value += np.float32(base)
    if rng.random() < 0.3:  # emphysema: holes, more of them in the upper lobes in most
        holes = smooth_noise(rng, shape, float(rng.uniform(3, 7)) / step)
        where = smooth_noise(rng, shape, 45 / step)
        threshold = float(rng.uniform(0.9, 2.0))
        depth = np.clip((holes + np.float32(0.7) * where - np.float32(threshold)) * 1.1, 0, 0.85)
        value += depth * (np.float32(rng.uniform(-960, -925)) - value)
    blend(part, lung[box], value)


def grow_trees(
    rng: np.random.Generator, space: Space, build: Build, x: Floats, y: Floats, z: Floats, lung: Floats
) -> Trees:
    """Trees for each lung; tips lie at least some mm under the pleura."""
    arteries, veins = [], []
    airway_points: list[Points] = []
    airway_radii: list[Points] = []
    density = TIPS_PER_LITRE * min(1.0, 1.6 / space.step_mm**1.2) * float(rng.uniform(0.8, 1.25))
    exponent = float(rng.uniform(2.65, 2.9))
    for side in (-1, 1):
        hilum = np.array([side * 44.0, 9.0, -20.0 + 4 * side])
        groups = [_tips(rng, build, x, y, z, lung, side, density, space) for _ in range(2)]
        artery = grow(rng, hilum, groups[0], 0.45, exponent)
        vein = grow(rng, np.array([side * 44.0, 1.0, -36.0]), groups[1], 0.45, exponent)
        arteries.append(artery)
        veins.append(vein)
        offset = beside(artery, np.array([-side * 0.6, 0.7, 0.4]))
        wanted = (artery.radius > 1.45) & (artery.tips > 6)
        points, radii = artery.curve(1.0, wanted, offset)
        airway_points.append(points)
        airway_radii.append(radii * float(rng.uniform(0.58, 0.78)))
        # from the main bronchus to the first branches
        main = np.array(airway_lines()["right" if side < 0 else "left"][-1])
        for i in np.flatnonzero((artery.parent == -1) & wanted):
            start, goal = main[:3], artery.start[i] + offset[i]
            t = np.linspace(0, 1, max(3, int(np.linalg.norm(goal - start))))[:, None]
            airway_points.append(start + t * (goal - start))
            airway_radii.append(np.linspace(min(4.6, main[3]), min(4.2, artery.radius[i] * 0.8), len(t)))
    return Trees(tuple(arteries), tuple(veins), np.concatenate(airway_points), np.concatenate(airway_radii))


def _tips(
    rng: np.random.Generator, build: Build, x: Floats, y: Floats, z: Floats, lung: Floats, side: int, density: float,
    space: Space,
) -> list[Points]:  # fmt: skip
    """Random points in each lobe of one lung."""
    index = np.argwhere((lung < -1.5) & (np.sign(x) == side))
    if not len(index):
        return []
    litres = len(index) * (COARSE * space.step_mm) ** 3 / 1e6
    count = max(20, int(density * litres))
    chosen = index[rng.integers(0, len(index), count)]
    at = tuple(chosen.T)
    points = np.stack([x[at], y[at], z[at]], axis=-1).astype(np.float64)
    points += rng.uniform(-2, 2, points.shape) * space.step_mm
    which = anatomy.lobe(points[:, 0], points[:, 1], points[:, 2], build)
    return [points[which == k] for k in np.unique(which)]


def draw_trees(
    space: Space, trees: Trees, hu: Floats, lung: Floats, scratch: Floats, artery_hu: float, vein_hu: float
) -> tuple[Points, Points]:
    """Arteries and veins; returns points (z, y, x) and radii (mm) of those a nodule may sit on."""
    spots: list[Points] = []
    sizes: list[Points] = []
    for group, value in ((trees.veins, vein_hu), (trees.arteries, artery_hu)):
        for tree in group:
            points, radii = tree.curve(0.7 * space.step_mm, np.ones(len(tree.parent), bool))
            where = space.to_voxel(points)
            splat(scratch, where, radii / space.step_mm)
            fit = np.flatnonzero((radii > 0.8) & (radii < 3))
            fit = fit[:: max(1, len(fit) // 2000)]
            spots.append(where[fit])
            sizes.append(radii[fit])
        for start in range(0, hu.shape[0], 32):
            drawn = scratch[start : start + 32]
            if drawn.any():
                blend(hu[start : start + 32], drawn, value)
                drawn[...] = 0
    del lung
    return np.concatenate(spots), np.concatenate(sizes)


def draw_fissures(
    rng: np.random.Generator, space: Space, build: Build, hu: Floats, lung: Floats, distance: Floats, up: Upsampler
) -> None:
    """Thin sheets between the lobes, faint, with gaps."""
    x, y, z = space.coarse_body()
    oblique, horizontal = anatomy.fissures(x, y, build)
    box = up.box(distance, 2.0)
    if box is None:
        return
    # the horizontal one ends at the oblique one
    for height, slope, only_right in ((oblique, 0.62, False), (horizontal, 0.95, True)):
        gap = ((z - height) * slope).astype(np.float32)
        if only_right:
            gap = np.where((x < 2) & (z > oblique), gap, 50).astype(np.float32)
        sheet = up(gap, box)
        np.abs(sheet, out=sheet)
        width = np.float32(max(0.9, space.step_mm))
        at = np.nonzero(sheet < width)
        strength = smooth_noise(rng, sheet.shape, 16 / space.step_mm)[at] * np.float32(0.14) + np.float32(0.3)
        alpha = (1 - sheet[at] / width) * np.clip(strength, 0, 0.6) * lung[box][at]
        hu[box][at] += alpha * (-250 - hu[box][at])
    del distance


def draw_blemishes(
    rng: np.random.Generator, space: Space, hu: Floats, lung: Floats, distance: Floats, up: Upsampler
) -> None:
    """What is no nodule: dependent density, apical and pleural thickening, bands, faint patches of ground glass."""
    box = up.box(distance, 2.0)
    if box is None:
        return
    step = space.step_mm
    shape = hu[box].shape
    part, inside = hu[box], lung[box]
    depth = -up(distance, box)
    if rng.random() < 0.7:
        # dependent density and small atelectases: along the back, in the lower half
        rows = np.clip((np.arange(shape[1]) / shape[1] - 0.55) * 3, 0, 1).astype(np.float32)[None, :, None]
        low = np.clip(1.1 - np.arange(shape[0]) / shape[0] * 1.6, 0, 1).astype(np.float32)[:, None, None]
        rough = np.clip(0.5 + 0.5 * smooth_noise(rng, shape, 9 / step), 0, 1.6)
        reach = np.float32(rng.uniform(2, 7))
        alpha = np.exp(-np.maximum(depth, 0) / reach) * rows * low * rough * np.float32(rng.uniform(0.2, 0.9))
        blend(part, np.clip(alpha, 0, 0.9) * inside, -80.0)
    # thickened pleura
    spots = smooth_noise(rng, shape, 22 / step)
    alpha = np.clip(1.2 - depth / np.float32(rng.uniform(0.8, 2.2)), 0, 1) * np.clip(
        spots - rng.uniform(0.9, 2.2), 0, 1
    )
    blend(part, alpha * inside, 0.0)
    if rng.random() < 0.4:  # caps of the apices
        top = np.clip(1 - (shape[0] - np.arange(shape[0])) * step / float(rng.uniform(15, 35)), 0, 1)
        rough = np.clip(0.6 + smooth_noise(rng, shape, 5 / step), 0, 1.5)
        alpha = np.exp(-np.maximum(depth, 0) / 3) * top.astype(np.float32)[:, None, None] * rough
        blend(part, np.clip(alpha, 0, 0.8) * inside, -100.0)
    if rng.random() < 0.35:  # faint patches, much larger than nodules
        patch = smooth_noise(rng, shape, float(rng.uniform(18, 40)) / step)
        fine = smooth_noise(rng, shape, 4 / step)
        alpha = np.clip((patch - rng.uniform(1.3, 2.2)) * 0.8, 0, 1) * (0.6 + 0.2 * fine) * 0.3
        blend(part, np.clip(alpha, 0, 0.4) * inside, -300.0)
    points = np.argwhere(inside[::6, ::6, ::6] > 0.9) * 6
    bands = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(0, 5))):  # scars and plate atelectases: bands that end at the pleura
        if not len(points):
            break
        start = points[int(rng.integers(len(points)))].astype(float)
        d = rng.normal(size=3) * (0.35, 1, 1)
        d /= np.linalg.norm(d)
        n = int(rng.uniform(12, 45) / step)
        bow = rng.normal(0, 0.012, 3)
        line = start + np.arange(0, n, 0.7)[:, None] * d + (np.arange(0, n, 0.7)[:, None] ** 2) * bow * step
        across = np.cross(d, rng.normal(size=3))
        across /= np.linalg.norm(across)
        for u in np.arange(0, rng.uniform(1, 9) / step, 0.7):
            r = rng.uniform(0.35, 0.75, len(line)) * np.clip(np.sin(np.linspace(0.1, 3.05, len(line))) * 1.5, 0.2, 1)
            splat(bands, line + across * u, r / step, float(rng.uniform(0.5, 1)))
    blend(part, bands * inside, -60.0)
