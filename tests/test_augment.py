"""Augmentation: rows and coordinates follow the warp; masked voxels stay; grey levels vary as said, and no further."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from runtime.network_input import OUTSIDE
from train.augment import MAX_NODULES, CropMap, Variation, Warp, cut, kernel, random_matrix, random_warp, smooth, vary
from train.dataset import IGNORE, TARGET, PreparedScan

STILL = Variation(crop=32, warp_share=0, blur_voxel=0, sharpen_share=0, thick_voxel=0, noise=0, contrast=0, shift=0)
WARPED = replace(STILL, crop=48, warp_share=1)
SHAPE = (90, 100, 110)
UPRIGHT = np.array([1.0, 0.0, 0.0])


def blob(centre: np.ndarray, sigma: float = 2.0) -> PreparedScan:
    """A Gaussian blob of peak 200 on nothing, and a nodule row that says where it is."""
    z, y, x = np.indices(SHAPE)
    square = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
    voxels = np.round(200 * np.exp(-square / (2 * sigma**2))).astype(np.uint8)
    rows = np.array([(*centre, 4 * sigma, TARGET)], np.float32)
    return PreparedScan("blob", voxels, np.ones(SHAPE, bool), rows, True)


@pytest.mark.parametrize("seed", range(12))
def test_the_row_of_a_nodule_follows_the_warp(seed: int) -> None:
    """Centre within 0.1 voxel on each axis, diameter within 4 %, measured on the warped picture itself."""
    rng = np.random.default_rng(seed)
    centre = np.array([45.0, 50.0, 55.0]) + rng.uniform(-0.5, 0.5, 3)
    scan = blob(centre)
    other = centre + rng.uniform(-6, 6, 3)  # the crop is cut round another place: the blob is free to move
    crop = cut(scan, other, np.full(3, 23.5), WARPED, rng)
    light = np.where(crop.voxels == OUTSIDE, 0, crop.voxels)
    assert np.allclose(ndimage.center_of_mass(light), crop.nodules[0, :3], atol=0.1)
    # the blob's mass grows with the volume
    grown = (light.sum(dtype=float) / scan.voxels.sum(dtype=float)) ** (1 / 3)
    assert crop.nodules[0, 3] / scan.nodules[0, 3] == pytest.approx(grown, rel=0.04)


def test_the_coordinates_follow_the_warp() -> None:
    """A scan whose grey level is its x position: each cell's coordinate is the grey level in the cell's middle."""
    shape = (100, 100, 100)
    ramp = np.broadcast_to((2 * np.arange(100)).astype(np.uint8), shape).copy()
    scan = PreparedScan("ramp", ramp, np.ones(shape, bool), np.zeros((0, 5), np.float32), True)
    for seed in range(4):
        crop = cut(scan, np.full(3, 50.0), np.full(3, 15.5), replace(WARPED, crop=32), np.random.default_rng(seed))
        middle = crop.voxels.reshape(8, 4, 8, 4, 8, 4)[:, 1:3, :, 1:3, :, 1:3].mean(axis=(1, 3, 5))
        assert np.allclose((middle / 2 + 0.5) / 100 - 0.5, crop.coord[2], atol=2e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_warp_keeps_its_bounds_its_still_point_and_its_orientation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    variation = Variation(crop=64, warp_voxel=2.5)
    still = rng.uniform(10, 50, 3)
    warp = random_warp(variation, still, rng)
    assert np.allclose(warp.at(still[None]), 0, atol=1e-12)
    full = CropMap(np.eye(3), np.zeros(3), warp).grid(np.arange(64.0))
    moved = full - np.indices((64, 64, 64))
    assert np.ptp(moved, axis=(1, 2, 3)).max() <= 2 * 2.6  # 2.5 to either side, before the still point is held
    jacobian = np.stack([np.stack(np.gradient(axis)) for axis in full])
    assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0.2  # never folded


def test_one_control_point_makes_the_cubic_b_spline() -> None:
    """By hand: 1/6, 4/6, 1/6 at the neighbouring control points, 1/48, 23/48, 23/48, 1/48 half way between."""
    control = np.zeros((3, 6, 6, 6))
    control[0] = np.arange(6.0)[:, None, None]
    warp = Warp(control, 4.0, 13)
    assert warp.weights(np.array([4.0]))[0] == pytest.approx([0, 1 / 6, 4 / 6, 1 / 6, 0, 0])
    assert warp.weights(np.array([6.0]))[0] == pytest.approx([0, 1 / 48, 23 / 48, 23 / 48, 1 / 48, 0])
    # a linear function is reproduced: control point k stands at 4 (k - 1), so the value at 7 is 1 + 7 / 4
    assert warp.at(np.array([[7.0, 1.0, 11.0]]))[0] == pytest.approx([2.75, 0, 0])


def test_to_crop_is_the_inverse_of_to_scan() -> None:
    rng = np.random.default_rng(3)
    variation = Variation(crop=64, warp_voxel=3.0, warp_spacing=(16, 16))
    for _ in range(20):
        warp = random_warp(variation, np.full(3, 31.5), rng)
        crop_map = CropMap(random_matrix(variation, rng), rng.uniform(0, 100, 3), warp)
        points = rng.uniform(0, 63, (5, 3))
        for point, there in zip(points, crop_map.to_scan(points), strict=True):
            assert np.allclose(crop_map.to_crop(there), point, atol=0.03)


def test_what_the_mask_has_cut_away_stays_exactly_whatever_is_done() -> None:
    voxels = np.full((32, 32, 32), OUTSIDE, np.float32)
    voxels[:, 8:24] = 50.0
    for seed in range(6):
        wild = Variation(crop=32, sharpen_share=0.5)
        out = vary(voxels, UPRIGHT, wild, np.random.default_rng(seed))
        assert (out[voxels == OUTSIDE] == OUTSIDE).all()
        assert not (out[:, 8:24] == voxels[:, 8:24]).all()
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 255
    assert (voxels[:, 8:24] == 50).all(), "the argument was written to"


def test_nothing_asked_nothing_done() -> None:
    voxels = np.random.default_rng(0).uniform(0, 255, (16, 16, 16)).astype(np.float32)
    assert np.array_equal(vary(voxels, UPRIGHT, STILL, np.random.default_rng(1)), voxels)


def test_noise_is_mostly_low_seldom_high_and_as_strong_when_correlated() -> None:
    noisy = replace(STILL, noise=10.0)
    voxels = np.full((24, 24, 24), 100.0, np.float32)
    outs = [vary(voxels, UPRIGHT, noisy, np.random.default_rng(seed)) - 100 for seed in range(200)]
    levels = np.array([out.std() for out in outs])
    neighbours = np.array([np.corrcoef(out[:, :, 1:].ravel(), out[:, :, :-1].ravel())[0, 1] for out in outs])
    assert levels.max() < 10.8
    assert 0.15 < (levels > 6).mean() < 0.3  # 1 - sqrt(0.6) = 0.225
    assert 2.0 < np.median(levels) < 3.0  # 10 / 4
    correlated = neighbours > 0.1
    assert 0.4 < correlated.mean() < 0.6
    roots = np.sqrt(levels)  # uniform, so that their means are steady
    assert 0.8 < roots[correlated].mean() / roots[~correlated].mean() < 1.25


def test_a_sharp_kernel_enhances_an_edge_and_a_soft_one_does_not() -> None:
    step = np.full((16, 16, 32), 40.0, np.float32)
    step[:, :, 16:] = 120.0
    sharp = vary(step, UPRIGHT, replace(STILL, sharpen_share=1, sharpen=0.8), np.random.default_rng(2))
    soft = vary(step, UPRIGHT, replace(STILL, blur_voxel=0.7), np.random.default_rng(2))
    assert sharp.max() > 123
    assert sharp.min() < 37
    assert soft.max() <= 120.001
    assert 40.1 < soft[0, 0, 15] < 80


def test_thick_slices_blur_along_the_scans_z_axis_only() -> None:
    point = np.zeros((21, 21, 21), np.float32)
    point[10, 10, 10] = 200.0
    thick = replace(STILL, thick_voxel=1.0)
    along_y = vary(point, np.array([0.0, -1.0, 0.0]), thick, np.random.default_rng(4))
    where = np.argwhere(along_y > 0)
    assert set(where[:, 0]) == {10}
    assert set(where[:, 2]) == {10}
    assert len(where) >= 3
    assert along_y.sum() == pytest.approx(200.0, rel=1e-4)


def test_contrast_turns_about_lung_and_the_offset_moves_all() -> None:
    voxels = np.array([50.0, 150.0], np.float32).reshape(1, 1, 2)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lung, tissue = vary(voxels, UPRIGHT, replace(STILL, contrast=0.07), rng).ravel()
        assert lung == pytest.approx(50.0, abs=1e-4)
        assert 143 <= tissue <= 157
        low, high = vary(voxels, UPRIGHT, replace(STILL, shift=6.0), np.random.default_rng(seed)).ravel()
        assert high - low == pytest.approx(100.0, abs=1e-4)
        assert abs(low - 50) <= 6


def test_a_kernel_is_a_gaussian_cut_at_two_and_a_half_sigma() -> None:
    assert kernel(0.2).tolist() == [1.0]
    # sigma 0.8 reaches 2 voxels: exp(-x^2 / 1.28) is 1, 0.45783, 0.04394; their sum, both sides, 2.00354
    assert kernel(0.8) == pytest.approx([0.02193, 0.22851, 0.49911, 0.22851, 0.02193], abs=1e-4)


def test_a_blur_is_that_of_scipy_up_to_the_faces() -> None:
    voxels = np.random.default_rng(0).normal(100, 30, (7, 8, 9)).astype(np.float32)
    given = voxels.copy()
    for sigmas in ((0.5, 0.1, 1.3), (0.1, 0.1, 0.1), (0.0, 0.9, 0.0)):
        wanted: np.ndarray = voxels
        for axis, sigma in enumerate(sigmas):
            wanted = ndimage.correlate1d(wanted, kernel(sigma), axis=axis, mode="nearest")
        assert np.allclose(smooth(voxels, np.array(sigmas)), wanted, atol=1e-3)
        assert np.array_equal(voxels, given)
    assert smooth(voxels, np.full(3, 0.1)) is voxels


def test_a_nodule_that_the_crop_only_touches_is_ignored_and_one_far_off_is_not_there() -> None:
    scan = blob(np.array([45.0, 50.0, 55.0]), sigma=4.0)  # 16 voxels across
    for seed in range(4):
        near = cut(scan, np.array([45.0, 50.0, 55.0]), np.array([-3.0, 24, 24]), WARPED, np.random.default_rng(seed))
        far = cut(scan, np.array([45.0, 50.0, 55.0]), np.array([-25.0, 24, 24]), WARPED, np.random.default_rng(seed))
        assert near.nodules[0, 4] == IGNORE
        assert (far.nodules == -1).all()


def test_with_more_nodules_than_rows_targets_are_kept_and_the_crop_is_not_mined() -> None:
    """A 13th nodule without a row would be taken for a false positive, the hardest of all."""
    voxels = np.full((40, 40, 40), 40, np.uint8)
    places = np.random.default_rng(0).uniform(15, 25, (MAX_NODULES + 1, 3))
    kinds = [IGNORE] * 3 + [TARGET] * (MAX_NODULES - 2)
    rows = np.array([(*place, 4, kind) for place, kind in zip(places, kinds, strict=True)], np.float32)
    for count, mined in ((MAX_NODULES, True), (MAX_NODULES + 1, False)):
        scan = PreparedScan("many", voxels, voxels > 0, rows[-count:], True)
        crop = cut(scan, np.full(3, 20.0), np.full(3, 15.5), STILL, np.random.default_rng(1))
        assert crop.mining is mined
        assert (crop.nodules[:, 4] == TARGET).sum() == MAX_NODULES - 2
        assert (crop.nodules[:, 4] == IGNORE).sum() == 2
