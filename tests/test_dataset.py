"""Prepared scans: annotations in, voxels out, nothing dropped in silence."""

from pathlib import Path

import numpy as np
import pytest

from caffe_models.errors import Rpn3dError
from runtime.grid import Grid
from runtime.working_volume import WorkingVolume
from train.dataset import (
    IGNORE,
    TARGET,
    Annotation,
    DatasetError,
    PreparedScan,
    from_working_volume,
    load,
    load_folder,
    read_annotations,
    save,
)

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def working() -> WorkingVolume:
    lung = np.zeros((20, 30, 40), dtype=bool)
    lung[5:15, 5:25, 5:35] = True
    grid = Grid((20, 30, 40), (1.0, 1.0, 1.0), (-100.0, -200.0, 50.0))
    return WorkingVolume(np.full(lung.shape, 40, np.uint8), lung, grid)


def test_annotations_come_by_scan(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEADER + "a,1,2,3,4.5\nb,0,0,0,-1\na,-1,-2,-3,6\n")
    found = read_annotations(file)
    assert found == {
        "a": [Annotation(1, 2, 3, 4.5), Annotation(-1, -2, -3, 6)],
        "b": [Annotation(0, 0, 0, -1)],
    }


def test_broken_annotations_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "a,1,2,x,4\n")
    with pytest.raises(Rpn3dError, match=r"a\.csv:2: "):
        read_annotations(tmp_path / "a.csv")


def test_world_becomes_voxel_and_what_cannot_be_used_is_said() -> None:
    targets = [
        Annotation(-90.0, -190.0, 60.0, 8.0),  # voxel (10, 10, 10), in the lung
        Annotation(-99.0, -199.0, 51.0, 8.0),  # in the box, outside the mask
        Annotation(500.0, 0.0, 0.0, 8.0),  # outside the box
        Annotation(-80.0, -190.0, 60.0, 0.0),  # no diameter
    ]
    done = from_working_volume(working(), "s", targets, [Annotation(-85.0, -190.0, 60.0, -1.0)], mining=True)
    assert done.scan.nodules.tolist() == [
        [10, 10, 10, 8, TARGET],
        [1, 1, 1, 8, IGNORE],
        [10, 10, 20, 10, IGNORE],
        [10, 10, 15, 10, IGNORE],
    ]
    assert len(done.complaints) == 3
    assert [c.partition("mm: ")[2] for c in done.complaints] == [
        "outside the lung mask; ignored",
        "outside the lungs' box; left out",
        "diameter 0 mm is not above 0; ignored",
    ]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scan = PreparedScan(
        "1.2.3",
        rng.integers(0, 255, (7, 8, 9)).astype(np.uint8),
        rng.random((7, 8, 9)) > 0.5,
        np.array([[1, 2, 3, 4, TARGET]], np.float32),
        False,
    )
    save(scan, tmp_path)
    (again,) = load_folder(tmp_path)
    assert (again.seriesuid, again.mining) == ("1.2.3", False)
    for name in ("voxels", "lung", "nodules"):
        assert np.array_equal(getattr(again, name), getattr(scan, name))


def test_a_broken_or_missing_scan_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no prepared scan"):
        load_folder(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DatasetError, match=r"x\.npz: not a prepared scan"):
        load(tmp_path / "x.npz")
