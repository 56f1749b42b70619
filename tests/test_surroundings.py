"""What a nodule lies against, from the voxels round it."""

import numpy as np
import pytest

from train.prepared_scan import TARGET, PreparedScan
from train.surroundings import dense_share


def in_lung(wall_from: int, nodule: tuple[float, float, float], diameter: float) -> float:
    voxels = np.full((50, 50, 50), 40, np.uint8)
    voxels[:, wall_from:] = 170
    z, y, x = np.ogrid[:50, :50, :50]
    distance = np.sqrt((z - nodule[0]) ** 2 + (y - nodule[1]) ** 2 + (x - nodule[2]) ** 2)
    voxels[distance <= diameter / 2] = 180
    row = np.array([*nodule, diameter, TARGET], dtype=np.float32)
    return dense_share(PreparedScan("one", voxels, np.ones(voxels.shape, bool), row[None], True), row)


@pytest.mark.parametrize("diameter", [4.0, 10.0, 24.0])
def test_a_nodule_alone_in_the_lung_has_no_wall(diameter: float) -> None:
    assert in_lung(50, (25, 25, 25), diameter) == 0


@pytest.mark.parametrize("diameter", [4.0, 10.0, 24.0])
def test_one_that_touches_a_wall_has_some_and_one_half_in_it_has_half(diameter: float) -> None:
    # a wall at one radius from the middle cuts (1 - 1 / t) / 2 off a shell of t radii: 8 % at 1.2, 21 % at 1.7
    assert 0.1 < in_lung(round(25 + diameter / 2), (25, 25, 25), diameter) < 0.25
    assert in_lung(25, (25, 24.5, 25), diameter) == pytest.approx(0.5, abs=0.03)


def test_a_shell_outside_of_the_scan_counts_only_what_is_in_it() -> None:
    assert in_lung(50, (0, 0, 0), 10.0) == 0
    assert in_lung(0, (0, 49, 0), 10.0) == 1
