"""The lung mask: each rule on a digital chest of ellipsoids, the whole on real scans."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from runtime.coarse import block_mean, coarsen, find_padding
from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.lung_mask import LungMask, find_lungs, lungs_from_mask
from runtime.lung_rules import axis_distance_mm, find_pieces, is_gas, split_two
from runtime.morphology import close, depth, dilate, fill_holes, hull_slices, signed_distance, within

SPACING = (3.0, 3.0, 3.0)
SHAPE = (100, 90, 120)  # 300 x 270 x 360 mm


def ball(centre: Any, radii: Any, shape: Any = SHAPE, spacing: Any = SPACING) -> Any:
    """Ellipsoid; centre and radii in mm along (z, y, x)."""
    total = 0.0
    for i, c, r, s in zip(np.ogrid[tuple(slice(n) for n in shape)], centre, radii, spacing, strict=True):
        total = total + ((i * s - c) / r) ** 2
    return total <= 1


RIGHT = ball((150, 135, 105), (110, 75, 55))  # 1.9 litres; x runs to the patient's left
LEFT = ball((150, 135, 255), (110, 75, 55))
TRACHEA = np.zeros(SHAPE, bool)
TRACHEA[60:] = ball((0, 135, 180), (1e9, 9, 9))[60:]
Z, Y, X = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


def volume_of(hu: Any, spacing: Any = SPACING) -> Any:
    hu = np.ascontiguousarray(hu, np.int16)
    grid = Grid(hu.shape, spacing, (-100.0, 50.0, -400.0))
    return SimpleNamespace(hu=hu, grid=grid, file_grid=grid, seriesuid="chest", source="chest.mhd", notes=())


def chest(right: Any = RIGHT, left: Any = LEFT, noise: float = 30.0) -> Any:
    """An elliptic body in air, two lungs at -850 HU with texture, a trachea, a spine, a table."""
    rng = np.random.default_rng(3)
    hu = np.full(SHAPE, -1000, np.float64)
    hu[np.broadcast_to(ball((0, 135, 180), (1e9, 115, 160)), SHAPE)] = 40
    hu[np.broadcast_to(ball((0, 235, 180), (1e9, 15, 15)), SHAPE)] = 500
    hu[:, 86:88, 20:100] = -300
    hu[right | left] = -850
    hu[TRACHEA] = -1000
    return hu + rng.normal(0, noise, SHAPE)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_ordinary_chest() -> None:
    lungs = find_lungs(volume_of(chest()))
    assert lungs.fallbacks == ()
    assert dice(lungs.mask, RIGHT | LEFT) > 0.97
    # 4/3 pi 110 75 55 mm3 each
    assert lungs.right_ml == pytest.approx(1901, rel=0.05)
    assert lungs.left_ml == pytest.approx(1901, rel=0.05)
    assert lungs.volume_ml == pytest.approx(lungs.left_ml + lungs.right_ml)
    assert not lungs.mask[TRACHEA].any()
    assert lungs.mask.shape == lungs.dilated.shape == SHAPE
    assert lungs.dilated[lungs.mask].all()


def test_cuts_are_slices_of_the_masks() -> None:
    lungs = find_lungs(volume_of(chest()))
    for axis in range(3):
        for index in (0, 30, 55, SHAPE[axis] - 1):
            assert (lungs.cut("mask", axis, index) == np.take(lungs.mask, index, axis)).all()
            assert (lungs.cut("dilated", axis, index) == np.take(lungs.dilated, index, axis)).all()
    for (first, last), axes in zip(lungs.mask_extent(), ((1, 2), (0, 2), (0, 1)), strict=True):
        hits = np.flatnonzero(lungs.mask.any(axis=axes))
        assert first <= hits[0] <= first + 2
        assert last - 2 <= hits[-1] <= last


def test_dilation_reaches_ten_millimetres() -> None:
    lungs = find_lungs(volume_of(chest(noise=0)))
    from_mask = depth(~lungs.mask, SPACING)
    lateral = np.broadcast_to(X * 3.0 < 105, SHAPE)  # away from the hull's reach between the lungs
    assert lungs.dilated[(from_mask <= 8.5) & lateral].all()
    assert not lungs.dilated[(from_mask > 13.5) & lateral].any()


def test_any_number_of_threads_gives_the_same() -> None:
    volume = volume_of(chest())
    one, two = find_lungs(volume, threads=1), find_lungs(volume, threads=2)
    assert (one.surface_mm == two.surface_mm).all()
    assert (one.reach_mm == two.reach_mm).all()


@pytest.mark.parametrize("sd", [100, 200])
def test_noise(sd: float) -> None:
    lungs = find_lungs(volume_of(chest(noise=sd)))
    assert dice(lungs.mask, RIGHT | LEFT) > 0.95


def test_nodule_at_the_pleura_is_inside() -> None:
    nodule = ball((150, 135, 59), (12, 12, 12))
    hu = chest()
    hu[nodule] = 30
    lungs = find_lungs(volume_of(hu))
    assert lungs.mask[nodule & RIGHT].mean() > 0.88  # without closing: 0


def test_masses_too_large_for_the_closing() -> None:
    """Inside the lung: a hole, filled. At the pleura: under the slice's hull, so at least in the dilated lungs."""
    inside, pleural = ball((150, 135, 105), (24, 24, 24)), ball((150, 100, 255), (1, 1, 1))
    hu = chest()
    hu[inside] = 30
    notch = ball((150, 60, 255), (45, 45, 22))
    hu[notch] = 30
    lungs = find_lungs(volume_of(hu))
    assert lungs.mask[inside].all()
    assert not lungs.mask[50, 27, 85]
    deep = notch & LEFT & ~dilate(LEFT & ~notch, 12.0, SPACING)
    assert deep.sum() > 20
    assert lungs.dilated[deep].all()
    assert lungs.dilated[pleural].all()


@pytest.mark.parametrize("padding", [0, -1000, -2000, -3024, 100])
def test_circular_field_of_view(padding: int) -> None:
    hu = chest()
    outside = np.broadcast_to((Y - 44.5) ** 2 + (X - 59.5) ** 2 > 60**2, SHAPE)
    hu[outside] = padding
    lungs = find_lungs(volume_of(hu))
    assert lungs.fallbacks == ()
    assert dice(lungs.mask, RIGHT | LEFT) > 0.97


def test_round_field_of_view_that_cuts_the_lungs() -> None:
    """Padding as thin as air joins the lungs to the outside wherever the circle has cut the chest wall away."""
    part = (slice(None), slice(5, 85), slice(20, 100))
    inside = np.broadcast_to((Y - 44.5) ** 2 + (X - 59.5) ** 2 <= 40**2, SHAPE)[part]
    hu, lungs = chest()[part], (RIGHT | LEFT)[part] & inside
    assert lungs[:, 40, 0].any()
    hu[~inside] = -1024
    found = find_lungs(volume_of(hu))
    assert "lungs open to the outside: the air round the body taken away first" in found.fallbacks
    assert dice(found.mask, lungs) > 0.95


def test_round_field_of_view_in_which_air_before_the_chest_hangs_together_with_a_lung() -> None:
    """Where the circle has cut the chest wall to nothing; the air before and behind the chest is no lung."""
    part = (slice(None), slice(5, 85), slice(20, 100))
    inside = np.broadcast_to((Y - 44.5) ** 2 + (X - 59.5) ** 2 <= 40**2, SHAPE)[part]
    hu, lungs = chest()[part], (RIGHT | LEFT)[part] & inside
    hu[:, :12] = -1000 + np.random.default_rng(4).normal(0, 30, hu[:, :12].shape)
    hu[40:52, 11:17, 13:18] = -850
    hu[~inside] = -1024
    found = find_lungs(volume_of(hu))
    assert "lungs open to the outside: the air round the body taken away first" in found.fallbacks
    assert dice(found.mask, lungs) > 0.95


@pytest.mark.parametrize("sides", [(slice(5, 25), slice(97, 117)), (slice(97, 117),)], ids=["both", "one"])
def test_lungs_whose_wall_the_field_cuts_at_half_their_height(sides: tuple[slice, ...]) -> None:
    """Below that they are whole, and a cut from the top would take the lower halves for all of them."""
    hu = chest()
    for side in sides:
        hu[50:56, 40:50, side] = -850
    lungs = find_lungs(volume_of(hu))
    assert lungs.fallbacks == ("lungs open to the outside: the air round the body taken away first",)
    assert dice(lungs.mask, RIGHT | LEFT) > 0.95


def test_lungs_that_touch_are_split() -> None:
    bridge = ball((170, 90, 180), (20, 9, 40))
    lungs = find_lungs(volume_of(chest(RIGHT | bridge)))
    assert lungs.fallbacks == ()
    assert lungs.left_ml == pytest.approx(lungs.right_ml, rel=0.1)
    assert dice(lungs.mask, RIGHT | LEFT | bridge) > 0.95


def test_one_lung() -> None:
    lungs = find_lungs(volume_of(chest(left=np.zeros(SHAPE, bool))))
    assert lungs.fallbacks == ("only one lung found, on the right",)
    assert lungs.left_ml == 0
    assert dice(lungs.mask, RIGHT) > 0.97


def test_very_unequal_lungs() -> None:
    small = LEFT & (Z * 3 > 215)
    lungs = find_lungs(volume_of(chest(left=small)))
    assert len(lungs.fallbacks) == 1
    assert lungs.fallbacks[0].startswith("very unequal lungs: ")
    assert dice(lungs.mask, RIGHT | small) > 0.95
    assert 150 < lungs.left_ml < 400


def test_very_unequal_lungs_that_touch() -> None:
    small = LEFT & (Z * 3 > 215)
    bridge = ball((230, 135, 180), (12, 12, 60))
    lungs = find_lungs(volume_of(chest(RIGHT | bridge, small)))
    assert len(lungs.fallbacks) == 1
    assert lungs.fallbacks[0].startswith("very unequal lungs: ")
    assert lungs.right_ml > 4.8 * lungs.left_ml > 600


def test_a_lung_that_is_dense_all_over() -> None:
    hu = chest()
    hu[LEFT] += 420  # ground glass: -430 HU
    lungs = find_lungs(volume_of(hu))
    assert lungs.fallbacks == ("one lung found at -600 HU, the other at -150 HU only",)
    assert dice(lungs.mask, RIGHT | LEFT) > 0.95
    assert lungs.left_ml == pytest.approx(lungs.right_ml, rel=0.1)


def test_both_lungs_dense() -> None:
    hu = chest()
    hu[RIGHT | LEFT] += 420
    lungs = find_lungs(volume_of(hu))
    assert any("-150 HU" in told for told in lungs.fallbacks)
    assert dice(lungs.mask, RIGHT | LEFT) > 0.95


def test_a_lung_in_pieces() -> None:
    gap = np.broadcast_to(abs(Z * 3 - 140) < 18, SHAPE)
    lungs = find_lungs(volume_of(chest(RIGHT & ~gap, LEFT & ~gap)))
    assert any(told.startswith("a lung in pieces") for told in lungs.fallbacks)
    assert dice(lungs.mask, (RIGHT | LEFT) & ~gap) > 0.93


def test_small_lungs() -> None:
    volume = volume_of(chest(), (1.8, 1.8, 1.8))  # each 410 ml
    lungs = find_lungs(volume)
    assert lungs.fallbacks == ("small or unequal lungs: rules of size and place relaxed",)
    assert dice(lungs.mask, RIGHT | LEFT) > 0.95


def test_very_large_lungs() -> None:
    bridge = ball((170, 90, 180), (20, 9, 40))
    volume = volume_of(chest(RIGHT | bridge, noise=0), (4.0, 4.0, 4.0))  # 9 litres in one piece
    lungs = find_lungs(volume)
    assert lungs.fallbacks == ("very large lungs: up to 12 litres allowed",)
    assert dice(lungs.mask, RIGHT | LEFT | bridge) > 0.93


@pytest.mark.parametrize(
    ("airways", "told"),
    [
        (slice(36, 60), "lungs open to the outside: the air round the body taken away first"),
        (slice(36, 84), "the scan starts at the head: 84 mm cut from the top"),
    ],
    ids=["one lung", "both"],
)
def test_scan_that_starts_at_the_head(airways: slice, told: str) -> None:
    """Through the mouth one lung, or both, hang together with outside air."""
    hu = chest()
    hu[70:74, 30:46, airways] = -1000  # a wide airway between lung and trachea
    mouth = np.broadcast_to(hu[-1:], (40, *SHAPE[1:])).copy()
    mouth[15:18, :46, 56:64] = -1000
    lungs = find_lungs(volume_of(np.concatenate([hu, mouth])))
    assert lungs.fallbacks == (told,)
    assert dice(lungs.mask[: SHAPE[0]], RIGHT | LEFT) > 0.95
    assert not lungs.mask[SHAPE[0] :].any()


def test_gas_in_the_bowel_is_left_out() -> None:
    gas = ball((20, 135, 240), (18, 60, 70))  # 0.3 litres under the left lung
    hu = chest()
    hu[gas] = -1000
    lungs = find_lungs(volume_of(hu))
    assert not lungs.mask[gas].any()
    assert dice(lungs.mask, RIGHT | LEFT) > 0.97


def test_large_colon_beside_one_lung_is_no_second_lung() -> None:
    hu = chest(left=np.zeros(SHAPE, bool))
    hu[LEFT & (Z * 3 < 150)] = -1000
    lungs = find_lungs(volume_of(hu))
    assert "only one lung found, on the right" in lungs.fallbacks


@pytest.mark.parametrize("extra", [0, 4, -5])
def test_scan_cropped_to_the_lungs(extra: int) -> None:
    """Without a margin, with some, and cut into the lungs themselves."""
    truth = RIGHT | LEFT
    box = tuple(
        slice(max(0, int(hits[0]) - extra), int(hits[-1]) + 1 + extra)
        for hits in (np.flatnonzero(truth.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    )
    lungs = find_lungs(volume_of(chest()[box]))
    assert dice(lungs.mask, truth[box]) > 0.95
    assert lungs.left_ml > 0.8 * lungs.right_ml > 0


def test_lungs_in_the_corners_of_the_scan() -> None:
    part = (slice(20, 80), slice(30, 60), slice(30, 90))
    lungs = find_lungs(volume_of(chest()[part]))
    assert lungs.fallbacks == ("lungs reach the edges of the scan: edge rule dropped",)
    assert dice(lungs.mask, (RIGHT | LEFT)[part]) > 0.93


@pytest.mark.parametrize("hu", [-1000, 0, -700])
def test_no_lungs(hu: int) -> None:
    with pytest.raises(ScanError, match=r"chest\.mhd: no lungs found: .*12\.0 litres.*from the top.*-150 and -800"):
        find_lungs(volume_of(np.full((40, 50, 60), hu)))


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 512, 512), (2, 40, 40)])
def test_tiny_scans_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ScanError, match="no lungs"):
        find_lungs(volume_of(np.zeros(shape)))


def test_thin_slices_and_flipped_axes_are_taken_as_they_are() -> None:
    """Anisotropic voxels: the same chest, 1.5 mm in the slice and 6 mm between slices."""
    hu = np.repeat(np.repeat(chest(noise=10), 2, axis=1), 2, axis=2)[::2]
    truth = np.repeat(np.repeat(RIGHT | LEFT, 2, axis=1), 2, axis=2)[::2]
    lungs = find_lungs(volume_of(hu, (1.5, 1.5, 6.0)))
    assert dice(lungs.mask, truth) > 0.95
    assert lungs.volume_ml == pytest.approx(3802, rel=0.05)


def test_lungs_from_mask() -> None:
    fine = np.repeat(np.repeat(np.repeat(RIGHT | LEFT, 2, 0), 2, 1), 2, 2)
    grid = Grid(fine.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    lungs = lungs_from_mask(fine, grid)
    assert dice(lungs.mask, fine) > 0.99
    assert lungs.volume_ml == pytest.approx(fine.sum() / 1000, rel=0.01)
    assert lungs.left_ml == pytest.approx(lungs.right_ml, rel=0.01)
    z1, y1, x1, z2, y2, x2 = lungs.box_voxel()
    inner = np.zeros(fine.shape, bool)
    inner[z1:z2, y1:y2, x1:x2] = True
    assert inner[lungs.dilated].all()
    with pytest.raises(ScanError, match="empty"):
        lungs_from_mask(np.zeros((9, 9, 9), bool), replace(grid, shape=(9, 9, 9)))


# ---- the pieces


def test_block_mean_by_hand() -> None:
    hu = np.array([[[0, 10, 7], [20, 30, 9], [1, 3, -3000]], [[0, 10, 7], [20, 30, 9], [1, 3, 5000]]], np.int16)
    assert block_mean(hu, (2, 2, 2), -1000, 1000).tolist() == [[[15, 8], [2, 0]]]
    padding = np.zeros((3, 3), bool)
    padding[0, 0] = True
    # (-1000 + 10 + 20 + 30) / 4
    assert block_mean(hu, (2, 2, 2), -1000, 1000, padding)[0, 0, 0] == -235


def test_padding_is_what_never_changes_around_a_circle() -> None:
    hu = np.random.default_rng(0).integers(-1000, 100, (5, 60, 60)).astype(np.int16)
    assert find_padding(hu) is None
    y, x = np.ogrid[:60, :60]
    outside = (y - 29.5) ** 2 + (x - 29.5) ** 2 > 30**2
    hu[:, outside] = 0
    hu[:, 30, 30] = 0  # water in the middle is no padding
    found = find_padding(hu)
    assert found is not None
    assert (found == outside).mean() > 0.99
    assert not found[30, 30]
    hu[:, outside] = -1024
    assert find_padding(hu) is None  # air already


def test_coarse_grid_is_about_two_millimetres() -> None:
    grid = Grid((7, 30, 30), (0.7, 0.5, 3.0), (0.0, 0.0, 0.0))
    coarse = coarsen(np.zeros((7, 30, 30), np.int16), grid)
    assert coarse.factors == (1, 4, 3)
    assert coarse.spacing == pytest.approx((3.0, 2.0, 2.1))
    assert coarse.hu.shape == (7, 8, 10)


def test_outside_is_what_reaches_a_vertical_edge() -> None:
    hu = np.zeros((4, 9, 9), np.int16)
    hu[1, 0, 0] = hu[:, 4:6, 4:6] = hu[:, 4, 0] = -1000
    pieces = find_pieces(hu, -600, (10.0, 10.0, 10.0))
    assert pieces.outside == {int(pieces.labels[1, 0, 0])}
    assert pieces.largest(0) == [int(pieces.labels[0, 4, 4]), int(pieces.labels[0, 4, 0])]
    assert pieces.volume_ml[pieces.labels[0, 4, 4]] == 16


def test_gas_is_told_by_density() -> None:
    rng = np.random.default_rng(0)
    piece = np.ones((20, 20, 20), bool)
    assert is_gas((rng.normal(-995, 15, piece.shape)).astype(np.int16), piece)
    assert not is_gas((rng.normal(-930, 40, piece.shape)).astype(np.int16), piece)  # severe emphysema


def test_axis_distance_counts_large_slices_only() -> None:
    piece = np.zeros((3, 40, 40), bool)
    piece[0, 10:20, 30:40] = True
    piece[1, 10, 20] = True
    # nearest voxel of the large slice to (10, 20): ten voxels of 2 mm
    assert axis_distance_mm(piece, (10.0, 20.0), (1.0, 2.0, 2.0), 100.0) == 20.0
    assert axis_distance_mm(piece, (10.0, 20.0), (1.0, 2.0, 2.0), 1e6) == 0.0


def test_one_ball_is_not_split() -> None:
    assert split_two(ball((150, 135, 105), (80, 70, 60)), SPACING) is None


@pytest.mark.parametrize("spacing", [(2.5, 2.0, 2.1), (8.0, 1.9, 1.9), (2.0, 2.0, 2.0)])
def test_nearness_is_that_of_the_whole_distance_transform(spacing: Any) -> None:
    mask = np.random.default_rng(1).random((20, 50, 60)) > 0.999
    whole = depth(~mask, spacing)
    for radius in (1.0, 4.7, 10.0, 15.0):
        differ = within(mask, radius, spacing) != (whole <= radius)
        assert (np.abs(whole[differ] - radius) < 0.02).all()  # ties alone


def test_morphology_is_in_millimetres() -> None:
    point = np.zeros((21, 41, 41), bool)
    point[10, 20, 20] = True
    grown = dilate(point, 10.0, (2.5, 1.0, 2.0))
    assert grown[6, 20, 20]
    assert not grown[5, 20, 20]
    assert grown[10, 10, 20]
    assert not grown[10, 9, 20]
    assert grown[10, 20, 25]
    assert not grown[10, 20, 26]
    assert close(grown, 6.0, (2.5, 1.0, 2.0))[10, 20, 20]


def test_closing_fills_a_dent_but_not_a_wide_one_and_reaches_the_faces() -> None:
    slab = np.zeros((12, 60, 60), bool)
    slab[:, 30:] = True
    slab[:, 30:34, 20:24] = False
    slab[:, 30:34, 40:58] = False
    closed = close(slab, 5.0, (1.0, 1.0, 1.0))
    assert closed[:, 31:34, 20:24].all()
    assert not closed[:, 30, 49].any()
    assert not closed[:, :29].any()


def test_holes_small_in_a_slice_or_closed_in_space() -> None:
    block = np.zeros((9, 30, 30), bool)
    block[:, 2:28, 2:28] = True
    block[:, 5:8, 5:8] = False  # through all slices, 9 pixels
    block[:, 12:20, 12:20] = False  # through all slices, 64 pixels
    block[3:6, 22:26, 22:26] = False  # closed
    filled = fill_holes(block, 9)
    assert filled[:, 5:8, 5:8].all()
    assert not filled[:, 12:20, 12:20].any()
    assert filled[3:6, 22:26, 22:26].all()


def test_hull_of_a_slice() -> None:
    flat = np.zeros((2, 8, 8), bool)
    # ..#.....      ..#.....
    # ........  ->  ..##....
    # .#...#..      .#####..
    flat[0, 1, 2] = flat[0, 3, 1] = flat[0, 3, 5] = True
    hull = hull_slices(flat, 9.0)
    assert hull[0, 1:4].tolist() == [
        [False, False, True, False, False, False, False, False],
        [False, False, True, True, False, False, False, False],
        [False, True, True, True, True, True, False, False],
    ]
    assert hull[0].sum() == 8
    assert not hull[1].any()
    assert (hull_slices(flat, 2.0) == flat).all()


def test_signed_distance_is_zero_between_the_voxels() -> None:
    mask = np.zeros((1, 1, 10), bool)
    mask[..., 5:] = True
    assert signed_distance(mask, (2.0, 2.0, 2.0))[0, 0, 3:7].tolist() == [-3.0, -1.0, 1.0, 3.0]


# ---- real scans


def read(path: Any) -> Any:
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    grid = Grid(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return SimpleNamespace(hu=array.astype(np.int16), grid=grid, source=str(path))


def test_dice_with_the_experts(data_dir: Any) -> None:
    lungs = find_lungs(read(data_dir / "ct" / "LCTSC-Test-S1-201.mhd"))
    truth = read(data_dir / "ct" / "LCTSC-Test-S1-201_lungmask.mhd").hu > 0
    assert dice(lungs.mask, truth) >= 0.955
    assert lungs.dilated[truth].mean() > 0.9995
    assert lungs.fallbacks == ()


@pytest.fixture(scope="module")
def lidc_0001(data_dir: Any) -> tuple[Any, LungMask]:
    volume = read(next((data_dir / "ct").glob("*603192.mhd")))
    return volume, find_lungs(volume)


def test_nodule_at_a_real_pleura_is_inside(lidc_0001: tuple[Any, LungMask]) -> None:
    volume, lungs = lidc_0001
    centre, radius = np.array([56.20840547, 86.34341278, -115.8675792]), 23.35064438 / 2
    rng = np.random.default_rng(0)
    on_sphere = rng.normal(size=(500, 3))
    on_sphere *= radius / np.linalg.norm(on_sphere, axis=1, keepdims=True)
    z, y, x = np.rint(volume.grid.to_voxel(centre + on_sphere)).astype(int).T
    assert lungs.mask[z, y, x].mean() > 0.99


def test_real_lungs_have_their_volume_and_no_trachea(lidc_0001: tuple[Any, LungMask]) -> None:
    volume, lungs = lidc_0001
    assert lungs.fallbacks == ()
    assert lungs.right_ml == pytest.approx(2020, rel=0.03)
    assert lungs.left_ml == pytest.approx(1805, rel=0.03)
    # the trachea: gas near the middle of the body well above the carina
    gas = volume.hu[112:, 200:270, 215:260] < -950
    assert gas.sum() * volume.grid.voxel_ml > 3
    assert lungs.mask[112:, 200:270, 215:260][gas].mean() < 0.02


def test_other_real_lungs(data_dir: Any) -> None:
    """Cropped to the lungs and blanked beyond 22 mm."""
    for name, right_ml, left_ml in (("RIDER-1129164940", 2680, 2200), ("CPTAC-C3N-00247", 2710, 1940)):
        with np.load(data_dir / "lungs_1mm" / f"{name}.npz") as stored:
            hu = np.rint(stored["u8"] * (1800 / 255.0) - 1200)
        lungs = find_lungs(volume_of(hu, (1.0, 1.0, 1.0)))
        assert lungs.fallbacks == ()
        assert lungs.right_ml == pytest.approx(right_ml, rel=0.03)
        assert lungs.left_ml == pytest.approx(left_ml, rel=0.03)
