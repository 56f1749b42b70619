"""Where the output cells lie."""

import numpy as np
import pytest

from caffe_models.rpn.anchors import ANCHORS_VOXEL, cell_centres, cells_near


def test_centres_and_sizes() -> None:
    assert cell_centres(4).tolist() == [1.5, 5.5, 9.5, 13.5]
    assert ANCHORS_VOXEL == (5, 10, 20)


@pytest.mark.parametrize("centre", [-30.0, -2.0, 0.0, 1.5, 9.5, 20.25, 31.0, 70.0])
@pytest.mark.parametrize("reach", [0.5, 4.0, 7.9, 40.0])
def test_cells_near_are_those_closer_than_the_reach(centre: float, reach: float) -> None:
    near = np.arange(8)[cells_near(centre, reach, 8)]
    assert near.tolist() == np.flatnonzero(np.abs(cell_centres(8) - centre) < reach).tolist()
