"""Where voxels lie, in any orientation."""

import numpy as np
import pytest
import SimpleITK
from scan_files import ORIGIN_MM, SHAPE, SPACING_MM, rotation, signed_permutations, small_grid

from runtime.grid import Grid

DIRECTIONS = [*signed_permutations(), *(rotation(seed, 170) for seed in range(6))]
MIRRORED = [rotation(seed) @ np.diag([1, -1, 1]) for seed in range(3)]


def test_a_voxel_typed_by_hand() -> None:
    grid = Grid((10, 20, 30), (0.5, 2.0, 3.0), (-100.0, 50.0, 7.0))
    assert grid.to_world((2, 5, 4)).tolist() == [-98.0, 60.0, 13.0]
    assert grid.to_voxel((-98.0, 60.0, 13.0)).tolist() == [2.0, 5.0, 4.0]
    assert grid.voxel_ml == pytest.approx(0.003)
    assert grid.extent_mm == (30.0, 40.0, 15.0)


def test_a_turned_voxel_typed_by_hand() -> None:
    # x of the array runs to the head, y to the right, z to the back
    grid = Grid((10, 20, 30), (0.5, 2.0, 3.0), (1.0, 2.0, 3.0), (0, -1, 0, 0, 0, 1, 1, 0, 0))
    assert grid.to_world((2, 5, 4)).tolist() == [1.0 - 10.0, 2.0 + 6.0, 3.0 + 2.0]


@pytest.mark.parametrize("direction", [*DIRECTIONS, *MIRRORED])
def test_world_positions_are_those_of_simpleitk(direction: np.ndarray) -> None:
    grid = small_grid(direction)
    image = SimpleITK.Image([SHAPE[2], SHAPE[1], SHAPE[0]], SimpleITK.sitkUInt8)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_MM)
    image.SetDirection(grid.direction)
    z, y, x = 2.5, 7.0, 4.25
    truth = image.TransformContinuousIndexToPhysicalPoint((x, y, z))
    np.testing.assert_allclose(grid.to_world((z, y, x)), truth, atol=1e-9)
    np.testing.assert_allclose(grid.to_voxel(truth), (z, y, x), atol=1e-9)


def test_many_points_at_once() -> None:
    grid = small_grid(rotation(3))
    zyx = np.random.default_rng(0).uniform(-5, 20, (4, 5, 3))
    xyz = grid.to_world(zyx)
    assert xyz.shape == (4, 5, 3)
    np.testing.assert_allclose(grid.to_voxel(xyz), zyx, atol=1e-9)
    np.testing.assert_allclose(xyz[2, 3], grid.to_world(zyx[2, 3]), atol=1e-12)


@pytest.mark.parametrize("direction", [*DIRECTIONS, *MIRRORED])
def test_moved_keeps_every_voxel_at_its_place(direction: np.ndarray) -> None:
    grid = small_grid(direction)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    world = grid.to_world(places)
    for permutation in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0)):
        for flips in ((False, False, False), (True, False, True), (False, True, False), (True, True, True)):
            moved = grid.moved(permutation, flips)
            turned = np.flip(world.transpose(*permutation, 3), tuple(axis for axis in range(3) if flips[axis]))
            assert moved.shape == turned.shape[:3]
            index = np.stack(np.meshgrid(*(np.arange(n) for n in moved.shape), indexing="ij"), axis=-1)
            np.testing.assert_allclose(moved.to_world(index), turned, atol=1e-9)


@pytest.mark.parametrize("direction", list(signed_permutations()))
def test_canonical_undoes_every_turn_and_mirror(direction: np.ndarray) -> None:
    grid = small_grid(direction)
    assert grid.moved(*grid.to_canonical()).direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_canonical_of_an_oblique_scan_keeps_the_rotation(seed: int) -> None:
    turned = rotation(seed, 30)
    for permutation in signed_permutations():
        grid = small_grid(turned @ permutation)
        canonical = grid.moved(*grid.to_canonical())
        np.testing.assert_allclose(np.reshape(canonical.direction, (3, 3)), turned, atol=1e-12)


def test_canonical_is_a_fixed_point() -> None:
    for seed in range(20):
        grid = small_grid(rotation(seed, 180))
        canonical = grid.moved(*grid.to_canonical())
        assert canonical.to_canonical() == ((0, 1, 2), (False, False, False))


def test_canonical_at_45_degrees_still_uses_each_axis_once() -> None:
    half = np.sqrt(0.5)
    permutation, _ = small_grid([[half, -half, 0], [half, half, 0], [0, 0, 1]]).to_canonical()
    assert sorted(permutation) == [0, 1, 2]
