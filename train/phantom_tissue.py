"""Soft tissue: skin, fat, muscle, heart and the organs of the upper belly; where the lungs are."""

from dataclasses import dataclass

import numpy as np

from train import phantom_anatomy as anatomy
from train.phantom_build import Build
from train.phantom_fields import Floats, Space, Upsampler, blend, inside, smooth_noise

SLAB = 32


@dataclass(frozen=True)
class Tissue:
    """HU of this scan: contrast medium or none."""

    fat: float
    muscle: float
    blood: float
    arteries: float
    pulmonary: float
    veins: float
    liver: float
    spleen: float
    marrow: float
    cortex: float


def random_tissue(rng: np.random.Generator) -> Tissue:
    """Two scans in five with contrast medium, early or late."""
    contrast = rng.random() < 0.4
    arterial = float(rng.uniform(120, 340)) if contrast else 0.0
    early = float(rng.uniform(0, 1))
    blood = float(rng.uniform(32, 48))
    return Tissue(
        fat=float(rng.uniform(-112, -88)),
        muscle=float(rng.uniform(42, 62)),
        blood=blood,
        arteries=blood + arterial * (1 - 0.4 * early),
        pulmonary=blood + arterial * (0.5 + 0.5 * early),
        veins=blood + arterial * (0.4 + 0.6 * early),
        liver=float(rng.uniform(45, 65)) + 0.15 * arterial,
        spleen=float(rng.uniform(42, 52)) + 0.22 * arterial,
        marrow=float(rng.uniform(90, 240)),
        cortex=float(rng.uniform(600, 1000)),
    )


def organ_distances(rng: np.random.Generator, x: Floats, y: Floats, z: Floats, build: Build) -> dict[str, Floats]:
    """Signed distances (mm) at coarse nodes of skin, muscle, cavity, lung, heart, belly, liver, stomach, spleen."""
    # ribs, muscles and age leave no wall smooth
    bumps = 0.8 * smooth_noise(rng, x.shape, 4.5) + 2.2 * smooth_noise(rng, x.shape, 12.0)
    cavity = anatomy.cavity(x, y, z, build) + bumps
    heart = (anatomy.heart(x, y, z, build) + 0.8 * bumps).astype(np.float32)
    base = (anatomy.dome(x, y, build) + bumps).astype(np.float32)
    rough = 0.5 * bumps + 0.7 * smooth_noise(rng, x.shape, 3.5)
    between = (anatomy.mediastinum(x, y, z, build, heart) + rough).astype(np.float32)
    skin, muscle = anatomy.outline(x, y, z, build, cavity)
    lung = anatomy.lung_distance(x, y, z, build, cavity, between, base)
    top = (z - base) * np.float32(0.75)
    liver = anatomy.smooth_max(np.maximum(top + 3, cavity + 3), x * 0.7 + z * 0.45 + 25 - 0.12 * y + 3 * bumps, 25)
    wall = np.maximum(cavity + 4, top + 4)
    stomach = np.maximum(anatomy.ellipsoid(x, y, z, (58, -18, -143), (46, 54, 52)), wall)
    spleen = np.maximum(anatomy.ellipsoid(x, y, z, (92, 36, -150), (37, 46, 50)), wall)
    return {
        "skin": skin, "muscle": muscle, "cavity": cavity, "lung": lung, "heart": heart,
        "belly": np.maximum(top, cavity), "liver": liver.astype(np.float32),
        "stomach": stomach.astype(np.float32), "spleen": spleen.astype(np.float32),
    }  # fmt: skip


def soft_tissue(
    rng: np.random.Generator, space: Space, build: Build, tissue: Tissue, distance: dict[str, Floats], up: Upsampler
) -> tuple[Floats, Floats]:
    step = space.step_mm
    hu = np.full(space.shape, -1000, np.float32)
    lung = np.empty(space.shape, np.float32)
    coarse = distance["skin"].shape
    septa = smooth_noise(rng, coarse, 4.0)
    layers = smooth_noise(rng, coarse, 6.0)
    fade = smooth_noise(rng, coarse, 10.0)
    marble = smooth_noise(rng, coarse, 2.2)
    gas_level = float(rng.uniform(-45, -15)) if rng.random() < 0.8 else -1e3
    _, coarse_y, _ = space.coarse_body()
    for start in range(0, space.shape[0], SLAB):
        box = (slice(start, min(start + SLAB, space.shape[0])), slice(0, space.shape[1]), slice(0, space.shape[2]))
        part = hu[box]
        skin = up(distance["skin"], box)
        cavity = up(distance["cavity"], box)
        blend(part, inside(skin, step), 25.0)
        strands = up(marble, box)
        blend(part, inside(skin + 1.6, step), tissue.fat + 9 * strands)
        muscle_distance = up(distance["muscle"], box)
        # muscles are parted by sheets of fat that follow the ribs, and by a few that cross them; both come and go
        uneven, width = up(layers, box), up(fade, box)
        sheets = np.abs(cavity - 12 - 3 * uneven) - np.clip(1.1 + 1.5 * width, 0, 5)
        outer = np.abs(cavity - 21 - 6 * up(septa, box)) * np.float32(0.8) - np.clip(0.4 + 1.3 * uneven, 0, 4)
        across = np.abs(up(septa, box) + 0.05 * cavity) * np.float32(11) - np.clip(0.9 - 1.1 * width, 0, 2)
        parted = np.minimum(np.minimum(sheets, outer), across)
        muscle = inside(np.maximum(muscle_distance, -parted), step, 1.4)
        blend(part, muscle, tissue.muscle + 5 * strands)
        # inner lining of the chest wall, then the fat of mediastinum and belly
        blend(part, inside(cavity - 2.5, step), tissue.muscle - 5)
        blend(part, inside(cavity, step), tissue.fat + 10 + 12 * strands)
        lung[box] = inside(up(distance["lung"], box), step)
    for name, value, rim in (
        ("heart", tissue.fat + 20, 0.0), ("spleen", tissue.spleen, 0.0), ("liver", tissue.liver, 0.0),
        ("stomach", tissue.muscle, 0.0),
    ):  # fmt: skip
        small = up.box(distance[name], 8.0)
        if small is None:
            continue
        shape = up(distance[name], small)
        part = hu[small]
        mottle = 4 * up(marble, small)
        blend(part, inside(shape - rim, step), value + mottle)
        if name == "heart":
            # fat about the heart is thin over the right chambers and thick in the grooves
            fat = np.clip(3.5 + 2.5 * up(layers, small), 0.7, 12)
            blend(part, inside(shape + fat, step), 0.35 * tissue.veins + 0.65 * tissue.blood + mottle)
        if name == "stomach":
            filled = float(rng.uniform(0, 60))
            blend(part, inside(shape + 5, step), filled + 3 * mottle)
            gas = np.maximum(shape + 5, up(coarse_y, small) - np.float32(gas_level))
            blend(part, inside(gas, step), -980.0)
    # diaphragm and the belly's contents under it
    for start in range(0, space.shape[0], SLAB):
        box = (slice(start, min(start + SLAB, space.shape[0])), slice(0, space.shape[1]), slice(0, space.shape[2]))
        belly = up(distance["belly"], box)
        if belly.min() > 2:
            continue
        sheet = inside(belly - 0.3, step) * (1 - inside(belly + 2.6, step))
        blend(hu[box], sheet.astype(np.float32), tissue.muscle)
    return hu, lung
