"""Inserted nodules: nothing changes outside the blend, no seam, the right place and size, clear errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from runtime.grid import Grid
from runtime.volume import Volume
from train.insert import InsertError, NoduleLibrary, insert_in_volume, insert_nodules, load_nodules
from train.nodule_library import analyse, to_hu, to_u8


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> NDArray[Any]:
    index = np.indices(shape).transpose(1, 2, 3, 0) - np.asarray(centre)
    return np.asarray(np.sqrt((index**2).sum(axis=-1)) - radius)


def cube(radius: float, noise_hu: float = 15.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """A ball of soft tissue in noisy lung, and its outline."""
    distance = ball((51, 51, 51), (25, 25, 25), radius)
    rng = np.random.default_rng(1)
    hu = -860 + 880 * np.clip(0.5 - distance, 0, 1) + rng.normal(0, noise_hu, distance.shape)
    return to_u8(ndimage.gaussian_filter(hu, 0.6).astype(np.float32)), distance <= 0


@pytest.fixture(scope="module")
def synthetic() -> NoduleLibrary:
    nodules = []
    for radius in (4.0, 7.0):
        u8, mask = cube(radius)
        diameter = float((6 * mask.sum() / np.pi) ** (1 / 3))
        nodules.append(analyse(u8, mask, diameter, f"ball {radius}"))
    return NoduleLibrary(tuple(nodules), "synthetic")


@pytest.fixture(scope="module")
def chest() -> tuple[NDArray[Any], NDArray[Any]]:
    """A box of lung in soft tissue, with noise, and its mask."""
    rng = np.random.default_rng(2)
    hu = np.full((70, 80, 90), 40.0)
    lung = np.zeros(hu.shape, bool)
    lung[10:-10, 10:-10, 10:-10] = True
    hu[lung] = -850
    hu += rng.normal(0, 20, hu.shape)
    voxels = to_u8(hu.astype(np.float32))
    return voxels, lung


def test_only_the_neighbourhood_of_a_nodule_changes(
    synthetic: NoduleLibrary, chest: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    voxels, lung = chest
    before = voxels.copy()
    after, found = insert_nodules(np.random.default_rng(0), voxels, lung, synthetic, 5)
    assert len(found) == 5
    assert np.array_equal(voxels, before)
    far = np.ones(voxels.shape, bool)
    for nodule in found:
        far &= ball(voxels.shape, nodule.centre_voxel, nodule.diameter_mm / 2 + 4) > 0
    assert np.array_equal(after[far], before[far])
    assert (after != before).any()


def test_the_nodule_is_as_bright_and_as_large_as_it_should(
    synthetic: NoduleLibrary, chest: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    voxels, lung = chest
    after, found = insert_nodules(np.random.default_rng(3), voxels, lung, synthetic, 4, small_share=0)
    added = to_hu(after) - to_hu(voxels)
    for nodule in found:
        distance = ball(voxels.shape, nodule.centre_voxel, nodule.diameter_mm / 2)
        assert added[distance < -2].mean() > 700
        near = distance < 5
        weight = added * near
        middle = np.array([(weight * i).sum() for i in np.indices(weight.shape)]) / weight.sum()
        np.testing.assert_allclose(middle, nodule.centre_voxel, atol=0.35)
        volume = (added[near] > 440).sum()
        assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(nodule.diameter_mm, rel=0.12)


def test_no_seam_shows_at_the_rim() -> None:
    """Two millimetres outside the outline neither level nor noise differ from the lung around."""
    u8, mask = cube(7.0, noise_hu=30.0)
    library = NoduleLibrary((analyse(u8, mask, 15.0, "ball"),), "synthetic")
    rng = np.random.default_rng(4)
    hu = ndimage.gaussian_filter(-820 + rng.normal(0, 60, (64, 64, 64)), 0.6).astype(np.float32)
    voxels, lung = to_u8(hu), np.ones(hu.shape, bool)
    after, found = insert_nodules(rng, voxels, lung, library, 1, scale=(1, 1), small_share=0)
    distance = ball(hu.shape, found[0].centre_voxel, found[0].diameter_mm / 2)
    rim, lung_far = (distance > 1.8) & (distance < 3.5), distance > 6
    values = to_hu(after)
    assert abs(values[rim].mean() - values[lung_far].mean()) < 6
    assert values[rim].std() == pytest.approx(values[lung_far].std(), rel=0.15)


def test_inserted_nodules_keep_clear_of_each_other_and_of_those_there(
    synthetic: NoduleLibrary, chest: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    voxels, lung = chest
    taken = [(35.0, 40.0, 45.0, 20.0)]
    _, found = insert_nodules(np.random.default_rng(5), voxels, lung, synthetic, 8, taken=taken)
    rows = [*taken, *(n.row for n in found)]
    assert len(rows) > 4
    for i, a in enumerate(rows):
        for b in rows[:i]:
            assert np.linalg.norm(np.subtract(a[:3], b[:3])) > (a[3] + b[3]) / 2 + 4.9


def test_shrinking_gives_small_nodules(synthetic: NoduleLibrary, chest: tuple[NDArray[Any], NDArray[Any]]) -> None:
    voxels, lung = chest
    _, found = insert_nodules(np.random.default_rng(6), voxels, lung, synthetic, 6, scale=(1, 1), small_share=1)
    assert min(n.diameter_mm for n in found) < 7
    assert all(n.diameter_mm <= synthetic.nodules[-1].diameter_mm for n in found)


def test_into_a_scan_in_hu_at_its_own_spacing(synthetic: NoduleLibrary) -> None:
    rng = np.random.default_rng(7)
    shape = (30, 100, 100)
    hu = (-850 + rng.normal(0, 20, shape)).astype(np.int16)
    grid = Grid(shape, (0.7, 0.7, 2.5), (10.0, -20.0, 30.0))
    volume = Volume(hu, grid, grid, "1.2.3", "test")
    after, found = insert_in_volume(rng, volume, np.ones(shape, bool), synthetic, 2, small_share=0)
    assert len(found) == 2
    assert np.array_equal(volume.hu, hu)
    added = (after.hu - hu).astype(float)
    for nodule in found:
        mm = np.indices(shape).transpose(1, 2, 3, 0) * (2.5, 0.7, 0.7) - np.asarray(nodule.centre_voxel) * (
            2.5,
            0.7,
            0.7,
        )
        r = np.sqrt((mm**2).sum(axis=-1))
        assert added[r < nodule.diameter_mm / 2 - 2].mean() > 650
        near = r < nodule.diameter_mm / 2 + 4
        # what is added, over the height of the step, is the volume of the ball
        volume_mm3 = added[near].sum() / 880 * 0.7 * 0.7 * 2.5
        assert (6 * volume_mm3 / np.pi) ** (1 / 3) == pytest.approx(nodule.diameter_mm, rel=0.12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, "array mask is missing"),
        ({"u8": np.zeros((2, 9, 9, 9), np.int16)}, "u8 is int16"),
        ({"mask": np.zeros((2, 9, 9, 8), bool)}, "mask is bool"),
        ({"diameter_mm": np.ones(3)}, "diameter_mm has the shape"),
        ({"mask": np.zeros((2, 9, 9, 9), bool)}, "does not fit its mask"),
    ],
)
def test_a_broken_library_is_refused(change: dict[str, NDArray[Any] | None], message: str, tmp_path: Path) -> None:
    mask = np.broadcast_to(ball((9, 9, 9), (4, 4, 4), 2) < 0, (2, 9, 9, 9))
    good = {
        "u8": np.zeros((2, 9, 9, 9), np.uint8),
        "mask": mask,
        "diameter_mm": np.full(2, 4.0),
        "name": np.array(["a", "b"]),
    }
    path = tmp_path / "library.npz"
    arrays: dict[str, Any] = {k: v for k, v in {**good, **change}.items() if v is not None}
    np.savez(path, **arrays)
    with pytest.raises(InsertError, match=message) as caught:
        load_nodules(path)
    assert "library.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(InsertError, match=r"gone\.npz"):
        load_nodules(tmp_path / "gone.npz")


def test_arrays_must_fit(synthetic: NoduleLibrary, chest: tuple[NDArray[Any], NDArray[Any]]) -> None:
    voxels, lung = chest
    rng = np.random.default_rng(0)
    with pytest.raises(InsertError, match="lung mask"):
        insert_nodules(rng, voxels, lung[1:], synthetic, 1)
    with pytest.raises(InsertError, match="uint8"):
        insert_nodules(rng, voxels.astype(np.int16), lung, synthetic, 1)


def test_real_nodules(data_dir: Path, chest: tuple[NDArray[Any], NDArray[Any]]) -> None:
    library = load_nodules(data_dir / "nodules" / "cubes_1mm.npz")
    assert len(library.nodules) == 133
    assert 20 < sum(n.wall is not None for n in library.nodules) < 80
    voxels, lung = chest
    after, found = insert_nodules(np.random.default_rng(8), voxels, lung, library, 8)
    again, same = insert_nodules(np.random.default_rng(8), voxels, lung, library, 8)
    assert np.array_equal(after, again)
    assert found == same
    assert len(found) >= 3
    for nodule in found:
        assert 2.5 < nodule.diameter_mm < 35
        assert lung[tuple(np.rint(nodule.centre_voxel).astype(int))]
