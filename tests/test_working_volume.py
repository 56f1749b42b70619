"""The 1 mm working volume: where voxels come to lie, what they hold, what is blanked."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from runtime.errors import ScanError
from runtime.grid import IDENTITY, Grid
from runtime.lung_mask import find_lungs, lungs_from_mask
from runtime.resample import linear_taps, resample
from runtime.working_volume import blank, make_working_volume, window, working_grid

C, S = 0.9396926, 0.3420201  # 20 degrees
OBLIQUE = (C, -S, 0.0, S, C, 0.0, 0.0, 0.0, 1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def volume_of(hu: Any, spacing: Any = (1.0, 1.0, 1.0), direction: Any = IDENTITY) -> Any:
    hu = np.ascontiguousarray(hu, np.int16)
    return SimpleNamespace(hu=hu, grid=Grid(hu.shape, spacing, (-31.0, 17.5, -240.25), direction), source="a.mhd")


def whole(volume: Any) -> Any:
    """Lungs that fill the scan but for a rim."""
    mask = np.zeros(volume.hu.shape, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    return lungs_from_mask(mask, volume.grid)


@pytest.mark.parametrize("direction", [IDENTITY, FLIPPED, OBLIQUE])
@pytest.mark.parametrize("spacing", [(0.7, 0.8, 2.5), (0.5, 0.5, 0.625), (1.0, 1.0, 1.0), (1.3, 0.9, 5.0)])
def test_a_ball_stays_where_it_is_in_the_world(spacing: Any, direction: Any) -> None:
    shape = tuple(int(70 / s) for s in reversed(spacing))
    volume = volume_of(np.zeros(shape), spacing, direction)
    centre = volume.grid.to_world(np.array(shape) * (0.55, 0.43, 0.6))
    zyx = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(volume.grid.to_world(zyx) - centre, axis=-1)
    volume.hu[:] = np.clip(-900 + 100 * (12 - distance), -900, 200)  # a soft ball: its centroid is well sampled
    work = make_working_volume(volume, whole(volume))
    assert work.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert work.grid.direction == volume.grid.direction
    assert work.voxels.shape == work.lung.shape == work.grid.shape
    weight = np.where(work.lung, work.voxels, 42).astype(float) - 42  # 42: -900 HU
    weight[weight < 5] = 0
    index = np.stack(np.meshgrid(*(np.arange(n) for n in work.grid.shape), indexing="ij"), axis=-1)
    found = (work.grid.to_world(index) * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
    assert np.linalg.norm(found - centre) < 0.1


def test_one_millimetre_scans_are_not_interpolated() -> None:
    hu = np.random.default_rng(0).integers(-1200, 200, (40, 50, 60))
    volume = volume_of(hu)
    work = make_working_volume(volume, whole(volume))
    z, y, x = np.rint(volume.grid.to_voxel(work.grid.to_world((0, 0, 0)))).astype(int)
    part = window(hu.astype(np.float32))[z:, y:, x:][tuple(slice(n) for n in work.grid.shape)]
    assert part.shape == work.voxels.shape
    assert (work.voxels == part)[work.lung].all()


@pytest.mark.parametrize("spacing", [(0.8, 0.9, 2.5), (1.5, 0.75, 1.25)])
def test_same_as_simpleitk(spacing: Any) -> None:
    rng = np.random.default_rng(1)
    volume = volume_of(rng.integers(-1000, 200, (30, 60, 50)), spacing, OBLIQUE)
    work = make_working_volume(volume, whole(volume))
    image = sitk.GetImageFromArray(volume.hu.astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin(volume.grid.origin_mm)
    image.SetDirection(OBLIQUE)
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetSize(tuple(reversed(work.grid.shape)))
    resampler.SetOutputSpacing((1.0, 1.0, 1.0))
    resampler.SetOutputOrigin(work.grid.origin_mm)
    resampler.SetOutputDirection(OBLIQUE)
    expected = window(sitk.GetArrayFromImage(resampler.Execute(image)).copy()).astype(int)
    inner = (slice(1, -1),) * 3  # beyond the last centre SimpleITK gives 0, we the edge's value
    differ = np.abs(work.voxels.astype(int) - expected)[inner][work.lung[inner]]
    assert differ.max() <= 1
    assert (differ > 0).mean() < 0.01


def test_window_by_hand() -> None:
    hu = np.array([-3000, -1200, -1196.5, -1196.4, -850, 0, 282.4, 600, 3000], np.float32)
    # 255 / 1800 a HU: -850 -> 49.58, 0 -> 170.0, 282.4 -> 210.007
    assert window(hu).tolist() == [0, 0, 0, 1, 50, 170, 210, 255, 255]


def test_blank_by_hand() -> None:
    voxels = np.array([10, 230, 10, 230, 211, 210, 230], np.uint8)
    lung = np.array([0, 0, 0, 0, 0, 0, 1], bool)
    dilated = np.array([0, 0, 1, 1, 1, 1, 1], bool)
    blank(voxels, lung, dilated)
    # outside: both; rim: bone only, from 211; lung: nothing
    assert voxels.tolist() == [170, 170, 10, 170, 170, 210, 230]


def test_rib_in_the_rim_goes_and_calcified_nodule_in_the_lung_stays() -> None:
    hu = np.full((60, 60, 60), -850)
    mask = np.zeros(hu.shape, bool)
    mask[15:45, 15:45, 15:45] = True
    hu[~mask] = 40
    hu[28:32, 48:52, 28:32] = 700  # 4 to 7 mm outside the lung
    hu[28:32, 28:32, 28:32] = 700
    volume = volume_of(hu)
    work = make_working_volume(volume, lungs_from_mask(mask, volume.grid))
    z, y, x = (
        np.rint(work.grid.to_voxel(volume.grid.to_world([(30, 50, 30), (30, 30, 30), (30, 40, 50)]))).astype(int).T
    )
    assert work.lung[z, y, x].all()
    assert work.voxels[z, y, x].tolist() == [170, 255, 176]
    assert (work.voxels[~work.lung] == 170).all()


def test_box_holds_the_dilated_lungs_and_little_else() -> None:
    mask = np.zeros((50, 120, 130), bool)
    mask[20:30, 50:70, 60:90] = True
    volume = volume_of(np.zeros(mask.shape), (0.9, 0.8, 2.0))
    lungs = lungs_from_mask(mask, volume.grid)
    work = make_working_volume(volume, lungs, margin_mm=2.0)
    # lungs 20 x 16 x 27 mm, 10 mm around, margin 2 mm, and at most two coarse voxels of slack a side
    for size, lung_mm in zip(work.grid.shape, (20, 16, 27), strict=True):
        assert lung_mm + 20 + 4 <= size <= lung_mm + 20 + 4 + 9
    inside = work.lung.sum() / 1000
    assert inside == pytest.approx(lungs.dilated.sum() * volume.grid.voxel_ml, rel=0.02)


def test_working_grid_stays_in_the_scan() -> None:
    grid = Grid((10, 64, 64), (0.7, 0.7, 3.0), (5.0, 6.0, 7.0))
    work, start = working_grid(grid, (0, 10, 20, 10, 64, 44), 2.0)
    assert start == (0, 7, 17)
    # z: 9 steps of 3 mm; y: voxels 7 to 63, 39.2 mm; x: 17 to 46, 20.3 mm
    assert work.shape == (28, 40, 21)
    assert work.origin_mm == pytest.approx((5 + 17 * 0.7, 6 + 7 * 0.7, 7.0))


def test_lungs_of_another_scan_are_refused() -> None:
    volume = volume_of(np.zeros((30, 30, 30)))
    lungs = whole(volume)
    volume.grid = replace(volume.grid, spacing_mm=(0.9, 1.0, 1.0))
    with pytest.raises(ScanError, match=r"a\.mhd: the lung mask is on a grid"):
        make_working_volume(volume, lungs)


# ---- resampling


def test_taps_by_hand() -> None:
    taps = linear_taps(4, 0.5, 0.75, 5)
    # positions 0.5, 1.25, 2.0, 2.75, 3.5 -> the last one is clamped to 3
    signal = np.array([10.0, 20.0, 40.0, 80.0])
    assert (signal[taps.index] * taps.weight).sum(axis=0) == pytest.approx([15, 25, 40, 70, 80])
    assert taps.span == (0, 4)


def test_wide_taps_average() -> None:
    """Step 2: a triangle of half-width 1.5, so that neighbours weigh 1/5, 3/5, 1/5."""
    taps = linear_taps(9, 2, 2, 3)
    signal = np.array([0, 0, 0, 5, 0, 0, 0, 0, 10.0])
    assert (signal[taps.index] * taps.weight).sum(axis=0) == pytest.approx([1, 1, 0])
    # at the edge the samples that exist share the weight: 3/4 and 1/4
    assert (signal[linear_taps(9, 8, 2, 1).index] * linear_taps(9, 8, 2, 1).weight).sum() == pytest.approx(7.5)


def test_noise_does_not_depend_on_how_thin_the_voxels_were() -> None:
    rng = np.random.default_rng(0)
    left = []
    for spacing in (0.45, 0.5, 0.6, 0.7):
        n = int(60 / spacing)
        noise = rng.normal(0, 100, (n, n, n)).astype(np.float32)
        taps = linear_taps(n, 0, 1 / spacing, 50)
        out = np.empty((50, 50, 50), np.float32)
        resample(noise, (taps, taps, taps), out, lambda flat, _: flat)
        left.append(out.std() / 100 / spacing**1.5)  # 1 for the ideal low-pass
    assert max(left) < 1.0
    assert min(left) > 0.6


def test_linear_ramps_are_kept_and_threads_change_nothing() -> None:
    z, y, x = np.ogrid[:20, :30, :40]
    ramp = (3 * z + 5 * y - 2 * x).astype(np.int16)
    taps = (linear_taps(20, 1, 0.4, 30), linear_taps(30, 2.5, 0.8, 20), linear_taps(40, 4, 1.7, 18))
    one, two = np.empty((30, 20, 18), np.float32), np.empty((30, 20, 18), np.float32)
    resample(ramp, taps, one, lambda flat, _: flat, 1)
    resample(ramp, taps, two, lambda flat, _: flat, 2)
    k, j, i = np.ogrid[:30, :20, :18]
    assert np.abs(one - (3 * (1 + 0.4 * k) + 5 * (2.5 + 0.8 * j) - 2 * (4 + 1.7 * i))).max() < 1e-3
    assert (one == two).all()


def test_real_scan(data_dir: Any) -> None:
    image = sitk.ReadImage(str(next((data_dir / "ct").glob("*603192.mhd"))))
    hu = sitk.GetArrayFromImage(image)
    grid = Grid(hu.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    volume: Any = SimpleNamespace(hu=hu, grid=grid, source="LIDC-IDRI-0001")
    work = make_working_volume(volume, find_lungs(volume))
    assert all(200 < n < 350 for n in work.grid.shape)
    nodule = np.array([56.20840547, 86.34341278, -115.8675792])
    z, y, x = np.rint(work.grid.to_voxel(nodule)).astype(int)
    around = work.voxels[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4]
    assert 160 < around.mean() < 185  # soft tissue
    assert work.lung[z - 12 : z + 13, y - 12 : y + 13, x - 12 : x + 13].all()
    assert 40 < np.median(work.voxels[work.lung]) < 100  # mostly lung
