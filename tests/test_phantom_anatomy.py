"""The large organs of phantoms lie where they lie in people, for every build."""

import numpy as np
import pytest
from numpy.typing import NDArray

from train import phantom_anatomy as anatomy
from train.phantom_bones import vertebrae
from train.phantom_build import Build, great_vessels, random_build, sample

BUILDS = range(12)


def build_of(seed: int) -> Build:
    return random_build(np.random.default_rng(seed))


def lung_at(points: NDArray[np.float64], build: Build) -> NDArray[np.float32]:
    """Signed distances (mm, negative inside) to the lungs at points (n, 3) of x, y, z."""
    x, y, z = (np.ascontiguousarray(column, dtype=np.float32) for column in points.T)
    between = anatomy.mediastinum(x, y, z, build, anatomy.heart(x, y, z, build))
    cavity = anatomy.cavity(x, y, z, build)
    return anatomy.lung_distance(x, y, z, build, cavity, between, anatomy.dome(x, y, build))


@pytest.mark.parametrize("seed", BUILDS)
def test_no_lung_lies_behind_the_vessels_to_the_arms(seed: int) -> None:
    build = build_of(seed)
    vessels = great_vessels(build)
    for name in anatomy.TO_THE_ARMS:
        line, radii = sample(vessels[name], 4.0)
        share = np.linspace(0, 1, 20)[:, None, None]
        towards_the_midline = (line[None] * np.where(np.arange(3) == 0, share, 1.0)).reshape(-1, 3)
        assert (lung_at(towards_the_midline, build) >= 0).all(), name
        # and they leave the chest: at their end there is no lung to either side of them
        beside = line[-1] + radii[-1] * np.array([(0, 0, 0), (-2, 0, 0), (2, 0, 0), (0, -2, 0), (0, 2, 0)])
        assert (lung_at(beside, build) > 0).all(), name


@pytest.mark.parametrize("seed", BUILDS)
def test_vertebrae_lie_under_the_skin(seed: int) -> None:
    build = build_of(seed)
    balls, _ = vertebrae((-220.0, 110.0))
    x, y, z = np.asarray(balls.centres, dtype=np.float32).T
    skin, _ = anatomy.outline(x, y, z, build, anatomy.cavity(x, y, z, build))
    assert (skin + np.asarray(balls.radii) < 0).all()
