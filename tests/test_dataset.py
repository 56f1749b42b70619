"""Annotation files, and scans from volume to voxels."""

from pathlib import Path

import numpy as np
import pytest
from small_chest import GRID, LUNGS_MM, chest

from caffe_models.errors import Rpn3dError
from runtime.volume import Volume
from train.dataset import (
    TARGET,
    Annotation,
    AnnotationTable,
    DatasetError,
    merge_tables,
    prepare,
    read_annotations,
    read_table,
)

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def test_annotations_come_by_scan_and_know_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEADER + "a,1,2,3,4.5\nb,0,0,0,-1\n\na,-1,-2,-3,6\n")
    found = read_annotations(file)
    assert found == {
        "a": [Annotation(1, 2, 3, 4.5), Annotation(-1, -2, -3, 6)],
        "b": [Annotation(0, 0, 0, -1)],
    }
    assert [one.source for one in found["a"]] == ["a.csv:2", "a.csv:5"]


@pytest.mark.parametrize("value", ["x", "nan", "inf", ""])
def test_broken_annotations_name_file_and_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.csv").write_text(HEADER + f"a,1,2,3,4\na,1,2,{value},4\n")
    with pytest.raises(Rpn3dError, match=r"a\.csv:3: coordZ is"):
        read_annotations(tmp_path / "a.csv")


def table(name: str, rows: dict[str, list[Annotation]], series: set[str] | None = None) -> AnnotationTable:
    return AnnotationTable(Path(name), rows, None if series is None else frozenset(series))


def test_files_that_agree_or_speak_of_other_scans_are_merged() -> None:
    one, same = Annotation(1, 2, 3, 4), Annotation(1.0001, 2, 3, 4)
    merged = merge_tables([table("a", {"s": [one]}), table("b", {"s": [same], "t": [one, one]})])
    assert merged == {"s": [one], "t": [one, one]}


@pytest.mark.parametrize(
    "other",
    [
        table("b.csv", {"s": [Annotation(1, 2, 3, 5)]}),
        table("b.csv", {"s": [Annotation(1, 2, 3, 4), Annotation(9, 9, 9, 9)]}),
        table("b.csv", {}, {"s"}),  # it speaks of the scan and has no nodule of it
    ],
)
def test_files_that_disagree_on_a_scan_are_both_named(other: AnnotationTable) -> None:
    first = table("a.csv", {"s": [Annotation(1, 2, 3, 4)]})
    for tables in ([first, other], [other, first]):
        with pytest.raises(DatasetError, match=r"(a.csv and b.csv|b.csv and a.csv) disagree on s: "):
            merge_tables(tables)


def test_a_table_knows_the_scans_it_speaks_of(tmp_path: Path) -> None:
    (tmp_path / "annotations.csv").write_text(HEADER + "a,1,2,3,4\n")
    (tmp_path / "seriesuids.csv").write_text("seriesuid\na\nb\n")
    listed = read_table(tmp_path / "annotations.csv", tmp_path / "seriesuids.csv")
    assert [listed.speaks_of(uid) for uid in "abc"] == [True, True, False]


def test_a_volume_is_prepared_with_its_nodules_in_place() -> None:
    volume = Volume(chest(), GRID, GRID, "s", "s")
    x, y, z = LUNGS_MM[1]
    done = prepare(volume, [Annotation(x, y, z, 10.0), Annotation(0.0, 0.0, z, 8.0)], (), mining=True)
    scan = done.scan
    assert scan.grid is not None
    assert scan.nodules[0, 3:].tolist() == [10, TARGET]
    assert np.allclose(scan.grid.to_world(scan.nodules[0, :3]), (x, y, z))
    assert scan.lung[tuple(np.round(scan.nodules[0, :3]).astype(int))]
    assert done.complaints == ("s: (0.0, 0.0, -202.0) mm, diameter 8 mm: outside the lung mask; ignored",)
