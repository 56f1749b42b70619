"""Draws a chest on its grid: soft tissue first, then bones, vessels, airways, lungs and what blemishes them."""

from dataclasses import dataclass

import numpy as np

from train import phantom_bones as bones
from train.phantom_build import (
    Build,
    Polyline,
    airway_lines,
    chambers,
    great_vessels,
    oesophagus_line,
    random_build,
    sample,
)
from train.phantom_fields import COARSE, PAD, Floats, Points, Space, Upsampler, blend, coarse_size, smooth_noise, splat
from train.phantom_lungs import Trees, draw_blemishes, draw_fissures, draw_trees, grow_trees, parenchyma
from train.phantom_tissue import SLAB, Tissue, organ_distances, random_tissue, soft_tissue


@dataclass(frozen=True)
class Body:
    """A chest on its grid.

    Attributes:
        hu: (z, y, x) float32.
        lung: share of lung, vessels in it included.
        vessels: (n, 3) points (z, y, x) on vessels of 0.8 to 3 mm, for nodules that grow on them.
        vessel_radii_mm: (n,).
        space: the grid.
        middle_y: voxel that the field of view is centred on.
    """

    hu: Floats
    lung: Floats
    vessels: Points
    vessel_radii_mm: Points
    space: Space
    middle_y: float


def draw_body(rng: np.random.Generator, space: Space) -> Body:
    """A random person on `space`."""
    build = random_build(rng)
    tissue = random_tissue(rng)
    x, y, z = space.coarse_body()
    distance = organ_distances(rng, x, y, z, build)
    space, cut = _close_to(space, distance["skin"])
    x, y, z = (np.ascontiguousarray(axis[cut]) for axis in (x, y, z))
    distance = {name: np.ascontiguousarray(field[cut]) for name, field in distance.items()}
    up = Upsampler(space.shape)
    hu, lung = soft_tissue(rng, space, build, tissue, distance, up)
    scratch = np.zeros(space.shape, np.float32)
    _draw_mediastinum(rng, space, build, tissue, hu, scratch)
    _draw_bones(rng, space, build, tissue, hu, scratch)
    trees = grow_trees(rng, space, build, x, y, z, distance["lung"])
    for box in _lung_boxes(up, distance["lung"]):
        parenchyma(rng, space, hu, lung, box)
    draw_fissures(rng, space, build, hu, lung, distance["lung"], up)
    draw_blemishes(rng, space, hu, lung, distance["lung"], up)
    vessels, radii = draw_trees(space, trees, hu, lung, scratch, tissue.pulmonary, tissue.veins)
    _draw_airways(space, trees, hu, lung, scratch)
    middle = _table(rng, space, hu, distance["skin"], x, y)
    for face in (hu[:, 0], hu[:, -1], hu[..., 0], hu[..., -1]):
        face[...] = -1000  # the scanner repeats the faces beyond the grid
    return Body(hu, lung, vessels, radii, space, middle)


def _close_to(space: Space, skin: Floats) -> tuple[Space, tuple[slice, ...]]:
    """`space` without the air around the body, some kept below it for the table; and the coarse nodes that stay."""
    low, shape, cut = space.low_mm.copy(), list(space.shape), [slice(None)]
    for axis, before, after in ((1, 1, round(45 / (COARSE * space.step_mm))), (2, 1, 1)):
        hit = np.flatnonzero((skin < 0).any(axis=(0, 3 - axis)))
        first = max(0, int(hit[0]) - PAD - before)
        last = min(space.shape[axis], (int(hit[-1]) - PAD + after) * COARSE)
        shape[axis] = last - first * COARSE
        low[2 - axis] += first * COARSE * space.step_mm
        cut.append(slice(first, first + coarse_size(shape[axis])))
    near = Space((shape[0], shape[1], shape[2]), space.step_mm, low, space.rotation, space.scale, space.waves)
    return near, tuple(cut)


def _balls(space: Space, points: Points, radii_mm: Points, field: Floats) -> None:
    every = max(1, int(space.step_mm / 2))  # on coarse grids the balls lie closer than need be
    splat(field, space.to_voxel(points[::every]), np.asarray(radii_mm)[::every] / space.step_mm)


def _stroke(space: Space, line: Polyline, field: Floats, shrink: float = 0.0, squeeze: float = 1.0) -> None:
    points, radii = sample(line, 1.5)
    _balls(space, points, np.maximum(radii * squeeze - shrink, 0.2), field)


def _paint(hu: Floats, scratch: Floats, value: float | Floats) -> None:
    """Blend `value` where `scratch` was drawn, then wipe `scratch`."""
    for start in range(0, hu.shape[0], SLAB):
        drawn = scratch[start : start + SLAB]
        if drawn.any():
            blend(hu[start : start + SLAB], drawn, value if isinstance(value, float) else value[: len(drawn)])
            drawn[...] = 0


def _draw_mediastinum(
    rng: np.random.Generator, space: Space, build: Build, tissue: Tissue, hu: Floats, scratch: Floats
) -> None:
    for centre, half in chambers(build):
        t = np.linspace(-1, 1, 9)
        for u in t:
            r = min(half) * float(np.sqrt(max(0.05, 1 - u * u)))
            point = np.array(
                [
                    [
                        centre[0] + u * max(0, half[0] - min(half)),
                        centre[1],
                        centre[2] + 0.6 * u * max(0, half[2] - min(half)),
                    ]
                ]
            )
            _balls(space, point, np.array([r]), scratch)
    _paint(hu, scratch, 0.5 * (tissue.veins + tissue.arteries))
    vessels = great_vessels(build)
    for kind, value in (("v_", tissue.veins), ("p_", tissue.pulmonary), ("a_", tissue.arteries)):
        for name, line in vessels.items():
            if name.startswith(kind):
                _stroke(space, line, scratch)
        _paint(hu, scratch, tissue.blood)
        for name, line in vessels.items():
            if name.startswith(kind):
                _stroke(space, line, scratch, shrink=1.0)
        _paint(hu, scratch, value)
    _stroke(space, oesophagus_line(), scratch)
    _paint(hu, scratch, 35.0)
    if rng.random() < 0.4:
        line = oesophagus_line()
        at = int(rng.integers(1, len(line) - 2))
        _stroke(space, [(*line[at][:3], 2.5), (*line[at + 1][:3], 1.5)], scratch)
        _paint(hu, scratch, -700.0)
    # lymph nodes: beside the trachea, under the carina, in the hila
    for _ in range(int(rng.integers(6, 22))):
        spot = rng.normal((rng.choice((-38, -14, 4, 14, 40)), 8, -15), (7, 12, 24))
        long = rng.normal(0, 3.5, 3)
        points = spot + np.linspace(-1, 1, 5)[:, None] * long
        _balls(space, points, np.full(5, rng.uniform(2.0, 4.5)), scratch)
    _paint(hu, scratch, tissue.blood)
    if rng.random() < 0.35:  # lime in the wall of the aorta, the coronaries, old lymph nodes
        wall, radii = sample(vessels["a_aorta"], 3.0)
        for i in rng.integers(0, len(wall), int(rng.integers(2, 12))):
            away = rng.normal(size=3)
            spot = wall[i] + away / np.linalg.norm(away) * radii[i] + rng.normal(0, 0.8, (4, 3))
            _balls(space, spot, np.full(4, rng.uniform(0.4, 1.3)), scratch)
        _paint(hu, scratch, float(rng.uniform(350, 800)))


def _draw_bones(
    rng: np.random.Generator, space: Space, build: Build, tissue: Tissue, hu: Floats, scratch: Floats
) -> None:
    rib, cartilage = bones.ribs(build, rng)
    _balls(space, cartilage.centres, cartilage.radii, scratch)
    _paint(hu, scratch, 95.0)
    low = space.low_mm[2] / space.scale[2]
    arches, bodies = bones.vertebrae((low, low + space.shape[0] * space.step_mm / space.scale[2]))
    for z, y, r in bodies:  # discs between, canal behind
        height = np.linspace(-9.0, 9.0, 10)
        disc = np.array([[u * r * 0.35, y + v * r * 0.2, z - 11.6] for u in (-1, 0, 1) for v in (-1, 1)])
        _balls(space, disc, np.full(len(disc), r * 0.72), scratch)
    _paint(hu, scratch, 75.0)
    canal = np.array([[0.0, y + r + 8, z + h] for z, y, r in bodies for h in (-12.0, -6.0, 0.0, 6.0)])
    _balls(space, canal, np.full(len(canal), 10.0), scratch)
    _paint(hu, scratch, 20.0)
    _balls(space, canal, np.full(len(canal), 6.0), scratch)
    _paint(hu, scratch, 38.0)
    columns = []
    for z, y, r in bodies:
        height = np.linspace(-9.2, 9.2, 12)
        waist = 1 - 0.09 * (1 - (height / 9.2) ** 2)
        for u, v, share in ((-0.42, 0.05, 0.62), (0.42, 0.05, 0.62), (0, -0.16, 0.74), (0, 0.1, 0.66)):
            columns.append((np.stack([u * r * waist, y + v * r + 0 * height, z + height], axis=-1), share * r * waist))
    body_points, body_radii = np.concatenate([c[0] for c in columns]), np.concatenate([c[1] for c in columns])
    flat = np.minimum(body_radii, 30)
    girdle, sternum = bones.shoulder_girdle(build, rng), bones.breastbone(build)
    mottle = smooth_noise(rng, (SLAB, *space.shape[1:]), 2.6 / space.step_mm)
    mottle *= np.float32(45)
    every = [
        (body_points, flat, 1.1), (arches.centres, arches.radii, 1.5), (rib.centres, rib.radii, 1.5),
        (girdle.centres, girdle.radii, 1.7), (sternum.centres, sternum.radii, 1.2),
    ]  # fmt: skip
    for points, radii, _ in every:
        _discs(space, points, radii, scratch, points is body_points)
    _paint(hu, scratch, tissue.cortex * 0.75)
    for points, radii, cortex in every:
        keep = radii > cortex + 0.3
        _discs(space, points[keep], radii[keep] - cortex, scratch, points is body_points)
    _paint(hu, scratch, tissue.marrow + mottle)


def _discs(space: Space, points: Points, radii: Points, field: Floats, flat: bool) -> None:
    """Balls, or for vertebral bodies discs: balls cut to a height of about 20 mm by drawing them thin."""
    if not flat:
        _balls(space, points, radii, field)
        return
    # a disc: rings of small balls fill a circle of the wanted radius
    all_points, all_radii = [], []
    for point, r in zip(points, radii, strict=True):
        small = min(3.2, r * 0.4)
        n = max(8, int(2 * np.pi * (r - small) / 3.2))
        t = np.arange(n) * 2 * np.pi / n
        ring = point + np.stack([np.cos(t), np.sin(t), 0 * t], axis=-1) * (r - small)
        all_points.append(ring)
        all_radii.append(np.full(n, small))
        inner = point + np.stack([np.cos(t), np.sin(t), 0 * t], axis=-1) * max(0.0, (r - small) * 0.5)
        all_points.append(inner)
        all_radii.append(np.full(n, small + 1.2))
    _balls(space, np.concatenate(all_points), np.concatenate(all_radii), field)


def _lung_boxes(up: Upsampler, lung: Floats) -> list[tuple[slice, slice, slice]]:
    box = up.box(lung, 2.0)
    return [] if box is None else [box]


def _draw_airways(space: Space, trees: Trees, hu: Floats, lung: Floats, scratch: Floats) -> None:
    points, radii = trees.airway_points, trees.airway_radii
    # bronchi run in the lung and the hilum; what strays into the heart is left out
    index = np.clip(np.rint(space.to_voxel(points)).astype(int), 0, np.asarray(lung.shape) - 1)
    hilum = np.linalg.norm((np.abs(points[:, 0]) - 42, points[:, 1] - 12, points[:, 2] + 22), axis=0) < 20
    keep = (lung[tuple(index.T)] > 0.5) | hilum
    points, radii = points[keep], radii[keep]
    for name, line in airway_lines().items():
        p, r = sample(line, 1.2)
        points, radii = np.concatenate([points, p]), np.concatenate([radii, r])
        del name
    wall = 0.45 + 0.11 * radii
    # thin walls are partial volume
    splat(scratch, space.to_voxel(points), (radii + wall) / space.step_mm, np.clip(0.35 + 0.2 * radii, 0, 1))
    _paint(hu, scratch, 15.0)
    _balls(space, points, radii, scratch)
    _paint(hu, scratch, -985.0)


def _table(rng: np.random.Generator, space: Space, hu: Floats, skin: Floats, x: Floats, y: Floats) -> float:
    """A curved table under the back; returns the voxel row in the middle of the body."""
    del x, y
    found = np.flatnonzero((skin < 0).any(axis=(0, 2)))
    scale = 4.0
    top, bottom = (found[0] - 2) * scale, (found[-1] - 2) * scale
    under = bottom + float(rng.uniform(3, 10)) / space.step_mm
    columns = np.arange(space.shape[2]) - space.shape[2] / 2
    sag = float(rng.uniform(0.00005, 0.0009)) * space.step_mm
    width = float(rng.uniform(190, 240)) / space.step_mm
    thick = float(rng.uniform(18, 60)) / space.step_mm
    for depth, value, half in ((0.0, float(rng.uniform(-820, -500)), 1.0), (thick, float(rng.uniform(-300, 400)), 0.9)):
        row = under + depth - sag * columns**2
        rows = np.arange(space.shape[1])[:, None]
        alpha = np.clip(half + 0.5 - np.abs(rows - row[None, :]), 0, 1) * (np.abs(columns) < width)[None, :]
        hit = np.flatnonzero(alpha.any(axis=1))
        if hit.size:
            rows_used = slice(int(hit[0]), int(hit[-1]) + 1)
            part = hu[:, rows_used]
            free = part < -900
            part += np.where(free, alpha[rows_used].astype(np.float32) * (np.float32(value) - part), 0)
    return float((top + bottom) / 2)
