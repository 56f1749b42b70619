"""Pictures: geometry of the cuts, frames and contours, and the sheets as files."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.drawing import View, draw_box, draw_contour, whole_slice
from runtime.findings import Finding
from runtime.grid import Grid
from runtime.pictures import draw_findings, draw_mask

GRID = Grid((40, 120, 160), (0.5, 0.75, 2.5), (-40.0, -45.0, 0.0))


def ball(centre_mm: tuple[float, float, float], diameter_mm: float) -> NDArray[np.bool_]:
    """A ball (x, y, z) in mm on `GRID`."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1)
    return np.asarray(((GRID.to_world(index) - centre_mm) ** 2).sum(axis=-1) < (diameter_mm / 2) ** 2)


def volume(hu: NDArray[np.int16], grid: Grid = GRID) -> Any:
    return SimpleNamespace(hu=hu, grid=grid, file_grid=grid, seriesuid="$1.2$_{x", source="s", notes=())


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_ball_is_round_in_every_plane(plane: str) -> None:
    # spacing differs along all three axes; 30 mm at 0.25 mm a pixel are 120 pixels
    inside = ball((0, 0, 50), 30)
    z, y, x = GRID.to_voxel((0, 0, 50)).tolist()
    cut = View(GRID, plane, (z, y, x), (200, 200), 0.25).sample(inside, linear=False)
    assert abs(int(cut.any(axis=0).sum()) - 120) <= 4
    assert abs(int(cut.any(axis=1).sum()) - 120) <= (4 if plane == "axial" else 10)  # slices are 2.5 mm
    rows, columns = np.nonzero(cut)
    assert abs(rows.mean() - 99.5) < 2
    assert abs(columns.mean() - 99.5) < 2


def test_the_head_is_up_and_the_back_is_down() -> None:
    hu = np.full(GRID.shape, -1000, dtype=np.int16)
    hu[-1] = 400  # the top slice
    assert whole_slice(GRID, "coronal", (0, 60, 80), (100, 100)).grey(hu)[:8].max() == 255
    hu = np.full(GRID.shape, -1000, dtype=np.int16)
    hu[:, -1] = 400  # the rearmost row
    view = whole_slice(GRID, "axial", (20, 0, 0), (90, 80))
    assert view.grey(hu)[-3:].max() == 255
    assert view.grey(hu)[:45].max() < 100


def test_linear_sampling_by_hand() -> None:
    hu = np.zeros((1, 2, 2), dtype=np.int16)
    hu[0] = [[0, 100], [200, 300]]
    grid = Grid((1, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    cut = View(grid, "axial", (0.0, 0.5, 0.5), (1, 3), 0.5).sample(hu, linear=True)
    assert cut.tolist() == [[100, 150, 200]]  # row 0.5; columns 0, 0.5, 1


def test_outside_the_scan_there_is_air() -> None:
    hu = np.full(GRID.shape, 400, dtype=np.int16)
    picture = View(GRID, "axial", (5.0, 0.0, 0.0), (40, 40), 1.0).grey(hu)
    assert picture[:19, :].max() == 0
    assert picture[25:, 25:].min() == 255


def test_pixel_of_is_where_the_voxel_is_drawn() -> None:
    hu = np.full(GRID.shape, -1000, dtype=np.int16)
    hu[30, 50, 60] = 400
    for plane in ("axial", "coronal", "sagittal"):
        view = View(GRID, plane, (28.0 if plane != "axial" else 30.0, 48.0, 57.0), (80, 80), 0.5)
        if plane == "coronal":
            view = View(GRID, plane, (28.0, 50.0, 57.0), (80, 80), 0.5)
        if plane == "sagittal":
            view = View(GRID, plane, (28.0, 48.0, 60.0), (80, 80), 0.5)
        row, column = view.pixel_of((30, 50, 60))
        drawn = np.unravel_index(view.grey(hu)[..., 0].argmax(), (80, 80))
        assert abs(drawn[0] - row) <= 1
        assert abs(drawn[1] - column) <= 1


def test_box_by_hand() -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    draw_box(picture, (20, 15), 10, (255, 0, 0))
    red = picture[..., 0] > 0
    assert red[15, 10:21].all()  # upper edge
    assert red[25, 10:21].all()
    assert red[15:26, 10].all()
    assert red[15:26, 20].all()
    assert not red[16:25, 11:20].any()  # nothing is drawn over the nodule


@pytest.mark.parametrize("centre", [(-30, 5), (5, 90), (0, 0), (39, 39)])
def test_a_box_across_the_edge_is_clipped(centre: tuple[float, float]) -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    draw_box(picture, centre, 12, (1, 2, 3))
    assert (picture.any()) == (0 <= centre[0] < 40 and 0 <= centre[1] < 40)


def test_contour_by_hand() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:4, 2:6] = True  # reaches the picture's right edge, which is no border
    picture = np.zeros((5, 6, 3), dtype=np.uint8)
    draw_contour(picture, mask, (9, 9, 9))
    expected = mask.copy()
    expected[2, 3:6] = False
    assert ((picture[..., 0] == 9) == expected).all()


def findings(count: int) -> tuple[Finding, ...]:
    return tuple(Finding(i + 1, 0.9, 5.0 * i, 0.0, 50.0, 8.0, 20, 80, 60) for i in range(count))


def test_findings_sheet_has_a_row_each_up_to_the_limit(tmp_path: Path) -> None:
    scan = volume(np.where(ball((0, 0, 50), 8), 0, -800).astype(np.int16))
    heights = [png_size(draw_findings(tmp_path / f"{n}.png", scan, findings(n)))[1] for n in (1, 2, 5, 9)]
    assert heights[1] - heights[0] > 280
    assert heights[2] - heights[0] == 4 * (heights[1] - heights[0])
    assert heights[3] == heights[2]


def test_without_findings_there_is_still_a_picture(tmp_path: Path) -> None:
    scan = volume(np.full(GRID.shape, -800, dtype=np.int16))
    assert png_size(draw_findings(tmp_path / "f.png", scan, ()))[0] > 1000


class Known:
    """Lungs whose masks are given."""

    def __init__(self, mask: Any, dilated: Any, fallbacks: Any, volume_ml: float) -> None:
        self.mask, self.dilated, self.fallbacks, self.volume_ml = mask, dilated, fallbacks, volume_ml

    def mask_extent(self) -> list[tuple[float, float]]:
        hits = np.nonzero(self.mask) if self.mask.any() else np.indices(self.mask.shape)
        return [(float(along.min()), float(along.max())) for along in hits]

    def cut(self, which: str, axis: int, index: int) -> Any:
        return np.take(getattr(self, which), index, axis)


def test_mask_sheet_of_ordinary_empty_and_tiny_scans(tmp_path: Path) -> None:
    inside = ball((0, 0, 50), 30)
    scan = volume(np.where(inside, -800, 40).astype(np.int16))
    texts = ("a very long sentence " * 20, "two")
    lungs: Any = Known(inside, ball((0, 0, 50), 40), fallbacks=texts, volume_ml=14.1)
    wide, high = png_size(draw_mask(tmp_path / "m.png", scan, lungs))
    lungs.fallbacks = ()
    assert png_size(draw_mask(tmp_path / "n.png", scan, lungs))[1] < high
    lungs.mask = lungs.dilated = np.zeros(GRID.shape, dtype=bool)
    assert png_size(draw_mask(tmp_path / "e.png", scan, lungs))[0] == wide

    tiny = Grid((1, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    lungs.mask = lungs.dilated = np.ones(tiny.shape, dtype=bool)
    draw_mask(tmp_path / "t.png", volume(np.zeros(tiny.shape, dtype=np.int16), tiny), lungs)


def test_contours_are_in_the_file(tmp_path: Path) -> None:
    from matplotlib.image import imread

    inside = ball((0, 0, 50), 30)
    scan = volume(np.full(GRID.shape, -800, dtype=np.int16))
    lungs: Any = Known(inside, ball((0, 0, 50), 40), fallbacks=(), volume_ml=14.1)
    pixels = np.round(imread(draw_mask(tmp_path / "m.png", scan, lungs)) * 255).astype(int)[..., :3]
    assert (pixels == (60, 230, 110)).all(axis=-1).sum() > 500
    assert (pixels == (255, 140, 40)).all(axis=-1).sum() > 500
