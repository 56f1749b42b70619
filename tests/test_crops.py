"""Crops: where nodules and coordinates land, whatever the rotation; the same batch for the same iteration."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.network_input import OUTSIDE
from train.augment import MAX_NODULES, cut, random_matrix
from train.crops import CropSource, Sampling, _cumulative, _drawn
from train.dataset import IGNORE, TARGET, DatasetError, PreparedScan
from train.mine import Hard

SHAPE = (70, 80, 90)
BALL = (30.0, 45.0, 50.0)
PLAIN = Sampling(
    crop=32,
    batch=2,
    warp_share=0,
    blur_voxel=0,
    sharpen_share=0,
    thick_voxel=0,
    noise=0,
    contrast=0,
    shift=0,
)


def scan(*, diameter: float = 10.0, mining: bool = True) -> PreparedScan:
    """A dark volume with one bright ball."""
    z, y, x = np.indices(SHAPE)
    distance = np.sqrt((z - BALL[0]) ** 2 + (y - BALL[1]) ** 2 + (x - BALL[2]) ** 2)
    voxels = np.where(distance <= diameter / 2, 200, 40).astype(np.uint8)
    nodules = np.array([(*BALL, diameter, TARGET)], dtype=np.float32)
    return PreparedScan("ball", voxels, np.ones(SHAPE, dtype=bool), nodules, mining)


@pytest.mark.parametrize("seed", range(8))
def test_the_nodule_lies_where_its_row_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crop = cut(scan(), np.array(BALL), rng.uniform(10, 21, 3), PLAIN, rng)
    z, y, x, diameter, kind = crop.nodules[0]
    bright = np.argwhere(crop.voxels > 150)
    assert np.allclose(bright.mean(axis=0), (z, y, x), atol=0.5)
    equivalent = (6 * len(bright) / np.pi) ** (1 / 3)
    assert diameter == pytest.approx(equivalent, rel=0.15)
    assert kind == TARGET
    assert (crop.nodules[1:] == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_coordinates_are_those_of_the_scan_under_any_rotation(seed: int) -> None:
    """The ball's own cell must carry the ball's place in the scan: (centre + 0.5) / extent - 0.5."""
    rng = np.random.default_rng(seed)
    target = np.array([13.5, 17.5, 9.5])  # centres of cells 3, 4, 2
    crop = cut(scan(), np.array(BALL), target, PLAIN, rng)
    wanted = (np.array(BALL) + 0.5) / np.array(SHAPE) - 0.5
    assert np.allclose(crop.coord[:, 3, 4, 2], wanted, atol=1e-5)


def test_rotations_keep_or_mirror_and_scale_within_the_range() -> None:
    rng = np.random.default_rng(0)
    determinants = np.array([np.linalg.det(random_matrix(PLAIN, rng)) for _ in range(200)])
    scales = 1 / np.cbrt(np.abs(determinants))
    assert 0.8 <= scales.min() < 0.85
    assert 1.2 < scales.max() <= 1.25
    assert 40 < (determinants < 0).sum() < 160


def test_beyond_the_scan_is_soft_tissue() -> None:
    crop = cut(scan(), np.zeros(3), np.full(3, 15.5), PLAIN, np.random.default_rng(1))
    assert (np.abs(crop.voxels - OUTSIDE) < 0.5).mean() > 0.5


def test_a_nodule_cut_by_the_crops_face_is_ignored_not_missed() -> None:
    crop = cut(scan(diameter=20), np.array(BALL), np.array([-4.0, 16.0, 16.0]), PLAIN, np.random.default_rng(2))
    assert crop.nodules[0, 4] == IGNORE


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    one, two = (CropSource([scan()], Sampling(crop=32, batch=2), seed=5) for _ in range(2))
    first = [one(k) for k in range(3)]
    again = two(2)
    assert np.array_equal(first[2].data, again.data)
    assert np.array_equal(first[2].nodules, again.nodules)
    assert not np.array_equal(first[1].data, again.data)
    assert first[0].data.shape == (2, 1, 32, 32, 32)
    assert first[0].nodules.shape == (2, MAX_NODULES, 5)
    one.close()
    two.close()


def test_masked_voxels_stay_plain_and_others_vary() -> None:
    voxels = np.full(SHAPE, OUTSIDE, dtype=np.uint8)
    voxels[:, :, :45] = 40
    half = PreparedScan("half", voxels, voxels == 40, np.zeros((0, 5), np.float32), True)
    noisy = Sampling(crop=32, batch=1, noise=6.0, scale=(1.0, 1.0), tilt_deg=0.0)
    crop = cut(half, np.array([35.0, 40.0, 44.5]), np.full(3, 15.5), noisy, np.random.default_rng(3))
    assert (crop.voxels == OUTSIDE).mean() > 0.3
    assert crop.voxels[crop.voxels < 100].std() > 0.5


def test_crops_of_scans_not_fully_annotated_are_not_mined() -> None:
    source = CropSource([scan(mining=False)], Sampling(crop=32, batch=3), seed=1)
    assert (source.draw(0).mining == 0).all()
    source.close()


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(DatasetError, match="no prepared scan has a nodule that fits into a crop of 32 voxels"):
        CropSource([scan(diameter=30)], Sampling(crop=32, batch=1), seed=1)


def test_false_positives_of_the_model_before_are_drawn_as_often_as_asked_the_likelier_more_often() -> None:
    false = np.array([(10, 12, 14, 5, 0.9), (60, 70, 80, 5, 0.3)], dtype=np.float32)
    hard = Hard("ball", false, np.array([(*BALL, 10.0, 0.9)], dtype=np.float32))
    sampling = replace(PLAIN, random_share=0.0, hard_share=0.5, scale=(1.0, 1.0), tilt_deg=0.0)
    source = CropSource([scan()], sampling, seed=1, hard=[hard])
    rows = [source.draw(i).nodules[k, 0] for i in range(100) for k in range(2)]
    with_ball = sum(row[4] == TARGET for row in rows)
    assert 80 <= with_ball <= 120  # the ball lies beyond 32 voxels of either false positive
    drawn = np.bincount(
        np.random.default_rng(0).choice(2, 1000, p=np.diff(source._likely_false, prepend=0)), minlength=2
    )
    assert drawn[0] / drawn[1] == pytest.approx(4.58, rel=0.2)  # roots of the odds 0.9 / 0.1 and 0.3 / 0.7
    source.close()


def test_how_sure_a_model_is_of_everything_does_not_change_which_false_positives_are_drawn() -> None:
    """A model that is not calibrated calls them all likely; 0 and 1 are no exception."""
    logit = np.array([-1.0, 0.5, 3.0])
    shares = []
    for shift in (-2.0, 0.0, 2.0):
        p = 1.0 / (1.0 + np.exp(-(logit + shift)))
        false = np.array([(10, 12, 14, 5, one) for one in p], dtype=np.float32)
        hard = Hard("ball", false, np.zeros((0, 5), np.float32))
        source = CropSource([scan()], PLAIN, seed=1, hard=[hard])
        shares.append(np.diff(source._likely_false, prepend=0))
        source.close()
    np.testing.assert_allclose(shares, [shares[1]] * 3, rtol=1e-3)
    hard = Hard("ball", np.array([(9, 9, 9, 5, 1.0), (9, 9, 9, 5, 0.0)], np.float32), np.zeros((0, 5), np.float32))
    source = CropSource([scan()], PLAIN, seed=1, hard=[hard])
    assert np.isfinite(np.diff(source._likely_false, prepend=0)).all()
    assert np.diff(source._likely_false, prepend=0)[1] > 0
    source.close()


def test_a_missed_nodule_is_drawn_more_often_than_one_the_model_was_sure_of() -> None:
    two = scan()
    nodules = np.array([(*BALL, 10.0, TARGET), (20.0, 20.0, 20.0, 10.0, TARGET)], dtype=np.float32)
    hard = Hard("ball", np.zeros((0, 5), np.float32), np.array([(*BALL, 10, 1.0), (20, 20, 20, 10, 0.0)], np.float32))
    source = CropSource([replace(two, nodules=nodules)], PLAIN, seed=1, hard=[hard])
    assert np.diff(source._likely, prepend=0).tolist() == pytest.approx([0.25, 0.75])  # 1 and missed_weight = 3
    source.close()


def test_a_nodule_at_a_wall_is_drawn_more_often_than_one_in_the_middle_of_the_lung() -> None:
    walled = scan()
    voxels = walled.voxels.copy()
    voxels[:, :20] = 170  # the chest wall, up to the second nodule
    nodules = np.array([(*BALL, 12.0, TARGET), (30.0, 25.0, 25.0, 12.0, TARGET)], dtype=np.float32)
    source = CropSource([replace(walled, voxels=voxels, nodules=nodules)], PLAIN, seed=1)
    assert np.diff(source._likely, prepend=0).tolist() == pytest.approx([0.2, 0.8])  # 1 and wall_weight = 4
    source.close()


def test_weighted_drawing_is_that_of_numpy() -> None:
    weights = np.array([0.5, 0.0, 2.0, 7.0])
    ours, numpys = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [_drawn(_cumulative(weights), ours) for _ in range(200)]
    assert drawn == [int(numpys.choice(4, p=weights / weights.sum())) for _ in range(200)]
    assert set(drawn) == {0, 2, 3}
