"""Pictures of misses and false positives: what is drawn where, and scans that are not there."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray
from scan_files import SERIES_UID, write_dicom, write_scan

from bench import evaluation_pictures
from bench.evaluation import evaluate
from bench.evaluation_pictures import draw_place, draw_places
from bench.evaluation_places import Place, with_diameters
from runtime.drawing import draw_circle
from runtime.find_scans import find_scans
from runtime.findings import Finding
from runtime.froc import FrocResult, evaluate_marks
from runtime.grid import Grid
from runtime.mark_files import Marks
from runtime.outputs import ScanResult, to_json
from runtime.volume import read_volume

GRID = Grid((40, 80, 80), (1.0, 1.0, 2.0), (-40.0, -40.0, 100.0))
NODULE = Place("scan", 0.0, 0.0, 140.0, 20.0, None, "", "no mark")
YELLOW, GREEN = [255, 214, 0], [60, 230, 110]
PANEL = 220
TOP, LEFTS = 4 + 17, (4, 228, 452)


def ball() -> NDArray[np.int16]:
    """Lung with a ball of 20 mm at (0, 0, 140) mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1)
    inside = ((GRID.to_world(index) - (0, 0, 140)) ** 2).sum(axis=-1) < 10**2
    return np.where(inside, 100, -900).astype(np.int16)


def panels(png: bytes) -> list[NDArray[Any]]:
    """The three pictures on a sheet, (220, 220, 3) from 0 to 255."""
    sheet = np.rint(matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    return [sheet[TOP : TOP + PANEL, left : left + PANEL] for left in LEFTS]


def nodule_result(uid: str = "scan") -> FrocResult:
    truth = Marks((uid,), np.array([[0.0, 0, 140]]), np.array([20.0]), "a")
    return evaluate_marks(Marks((), np.zeros((0, 3)), np.zeros(0), "s"), truth, None, [uid])


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "scan.mha", ball(), GRID)


def test_a_circle_by_hand() -> None:
    picture = np.zeros((9, 9, 3), dtype=np.uint8)
    draw_circle(picture, (4, 4), 6, (1, 2, 3))
    assert picture[4, :, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 1, 0]
    assert picture[:, 4, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 1, 0]
    assert picture[2, 2].tolist() == [1, 2, 3]  # 2.83 from the centre
    draw_circle(picture, (-50, 4), 6, (9, 9, 9))  # outside: nothing is drawn
    assert picture.max() == 3


def test_a_nodule_is_circled_in_three_planes(scan: Path) -> None:
    for panel in panels(draw_place(read_volume(scan), NODULE)):
        row = panel[110]  # the middle; 50 mm are 220 pixels, so 10 mm are 44
        assert row[110].min() > 240  # the ball, through the lung window
        assert row[20].max() < 90  # lung
        assert YELLOW in row[60:70].tolist()
        assert YELLOW in row[150:158].tolist()
        assert YELLOW in panel[60:70, 110].tolist()
        assert GREEN not in panel.reshape(-1, 3).tolist()


def test_a_mark_of_unknown_diameter_gets_ticks_and_the_nodule_beside_it_a_circle(scan: Path) -> None:
    mark = replace(NODULE, x_mm=-15.0, diameter_mm=None, probability=0.5, why="false positive")
    nodule = evaluation_pictures.Ball(0, 0, 140, 20)
    axial, coronal, sagittal = panels(draw_place(read_volume(scan), mark, [nodule]))
    for panel in (axial, coronal, sagittal):
        assert (panel[110, 76:94] == YELLOW).all()
        assert YELLOW not in panel[110, 95:126].tolist()
    for panel in (axial, coronal):  # 15 mm are 66 pixels to the right, the radius is 44
        assert GREEN in panel[110, 216:].tolist() or GREEN in panel[110, 128:136].tolist()
    assert GREEN not in sagittal.reshape(-1, 3).tolist()  # 15 mm from its centre the plane misses it


def test_each_scan_is_read_once_and_only_if_it_is_needed(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.mha").write_bytes(b"never opened")
    opened: list[str] = []

    def counted(source: Any) -> Any:
        opened.append(str(source))
        return read_volume(source)

    monkeypatch.setattr(evaluation_pictures, "read_volume", counted)
    places = [NODULE, replace(NODULE, x_mm=5.0)]
    said: list[str] = []
    pictures, notes = draw_places(places, find_scans([tmp_path]), nodule_result(), said.append)
    assert (sorted(pictures, key=lambda p: p.x_mm), notes) == (places, ())
    assert opened == [str(scan)]
    assert said == ["1/1 reading scan"]


def test_scans_that_are_missing_or_broken_are_notes(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mha").write_bytes(b"no header")
    places = [NODULE, replace(NODULE, seriesuid="gone"), replace(NODULE, seriesuid="broken")]
    pictures, notes = draw_places(places, find_scans([tmp_path]), nodule_result())
    assert list(pictures) == [NODULE]
    assert notes[0] == "gone: not among the scans given, so one place stays without a picture"
    assert notes[1].startswith("broken: broken.mha: ")
    assert notes[1].endswith("; one place stays without a picture")


def test_a_dicom_folder_is_found_by_its_series(tmp_path: Path) -> None:
    write_dicom(tmp_path / "patient" / "series", ball(), GRID)
    place = replace(NODULE, seriesuid=SERIES_UID)
    pictures, notes = draw_places([place], find_scans([tmp_path]), nodule_result(SERIES_UID))
    assert (list(pictures), notes) == ([place], ())


def test_diameters_come_from_the_json_beside_the_submission(tmp_path: Path) -> None:
    finding = Finding(1, 0.5, 1.0, 2.0, 3.0000004, 7.5, 0, 0, 0)
    (tmp_path / "scan.json").write_text(to_json(ScanResult("scan", "scan.mha", (finding,))))
    mark = Place("scan", 1.0, 2.0, 3.0, None, 0.5, "", "false positive")
    elsewhere, unknown = replace(mark, z_mm=4.0), replace(mark, seriesuid="other")
    got = with_diameters((mark, elsewhere, unknown), tmp_path / "submission.csv")
    assert [p.diameter_mm for p in got] == [7.5, None, None]


def test_the_page_holds_the_pictures_and_names_what_is_missing(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,probability\nscan,5,30,140,0.9\ngone,0,0,0,0.4\nscan,0,0,140,0.1\n"
    )
    (tmp_path / "a.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\nscan,0,0,140,20\n")
    evaluate(tmp_path / "s.csv", tmp_path / "a.csv", out_dir=tmp_path / "out", scans=[scan], draws=5)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.count('alt="axial, coronal, sagittal"') == 1  # the false positive; the nodule is found at 4 FP/scan
    assert "gone: not among the scans given" in page
    assert "No nodule is missed" in page
