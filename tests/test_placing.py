"""Annotations into voxels: where they land, and a problem named for each that cannot be used as it stands."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.grid import Grid
from train.annotation_report import of_other_scans, summary, write_report
from train.placing import place
from train.prepared_scan import IGNORE, TARGET, Annotation

GRID = Grid((20, 30, 40), (1.0, 1.0, 1.0), (-100.0, -200.0, 50.0))
SCAN = Grid((40, 60, 80), (1.0, 1.0, 1.0), (-120.0, -215.0, 40.0))
LUNG = np.zeros(GRID.shape, dtype=bool)
LUNG[5:15, 5:25, 5:35] = True


def at(x: float, y: float, z: float, diameter: float = 6.0, line: int = 0) -> Annotation:
    """The annotation at voxel (z, y, x) of GRID."""
    return Annotation(x - 100, y - 200, z + 50, diameter, source=f"annotations.csv:{line}" if line else "")


def placed(targets: list[Annotation], ignored: Sequence[Annotation] = ()) -> tuple[list[list[float]], list[str]]:
    rows, problems = place("s", GRID, lambda index: LUNG[tuple(index.T)], targets, ignored, SCAN)
    return rows.tolist(), [f"{p.kind}: {p.done}{f' ({p.detail})' if p.detail else ''}" for p in problems]


def test_a_good_nodule_lands_in_its_voxel() -> None:
    assert placed([at(12.25, 11, 10, 7.5)]) == ([[10, 11, 12.25, 7.5, TARGET]], [])


def test_each_fault_is_named_and_what_was_done() -> None:
    rows, problems = placed(
        [
            at(10, 10, 10, 8, line=2),
            at(1, 1, 1, 8, line=3),  # in the box, outside the mask
            at(-10, 10, 10, line=4),  # in the scan, outside the lungs' box
            at(500, 10, 10, line=5),  # outside the scan
            at(20, 10, 10, 0, line=6),
            at(20, 15, 10, -3, line=7),
            at(20, 20, 10, 150, line=8),
            at(10, 10, 10, 8, line=9),  # row 2 again
            at(11, 10, 10, 6, line=10),  # 1 mm from row 2's centre, less than half of 3 mm
        ]
    )
    assert problems == [
        "repeats a row: left out (as annotations.csv:2)",
        "nearly repeats a row: left out (1.0 mm from the 8 mm of annotations.csv:2)",
        "outside the lung mask: ignored",
        "outside the lungs' box: left out",
        "outside the scan: left out",
        "diameter not above 0: ignored (within 10 mm)",
        "diameter not above 0: ignored (within 10 mm)",
        "diameter above 100 mm: ignored (within 100 mm)",
    ]
    assert rows == [
        [10, 10, 10, 8, TARGET],
        [1, 1, 1, 8, IGNORE],
        [10, 10, 20, 10, IGNORE],
        [10, 15, 20, 10, IGNORE],
        [10, 20, 20, 100, IGNORE],
    ]


def test_neighbours_are_two_nodules() -> None:
    """2 mm apart, more than half the radius of 3 mm."""
    rows, problems = placed([at(10, 10, 10, 6), at(12, 10, 10, 6)])
    assert (len(rows), problems) == (2, [])


def test_excluded_findings_are_points_and_those_outside_are_counted() -> None:
    """LUNA16 marks them with a diameter of -1, and lists the readers' marks of one place one by one."""
    rows, problems = placed(
        [], [at(10, 10, 10, -1), at(10, 10, 10, -1), at(10.5, 10, 10, -1), at(-10, 1, 1), at(500, 1, 1)]
    )
    assert rows == [[10, 10, 10, 10, IGNORE], [10, 10, 10.5, 10, IGNORE]]
    assert problems == [
        "excluded, repeats a row: left out",
        "excluded, outside the lungs' box: left out",
        "excluded, outside the scan: left out",
    ]


def test_the_report_has_a_row_for_each_and_a_line_for_each_kind(tmp_path: Path) -> None:
    _, problems = place(
        "s", GRID, lambda index: LUNG[tuple(index.T)], [at(1, 1, 1, 8, line=3), at(4, 1, 1, 8, line=4)], [], SCAN
    )
    strangers = of_other_scans(
        {"t": [at(0, 0, 0, 5, line=9)], "s": [], "u": [at(0, 0, 0, 4, line=10)]}, {"s", "u"}, {"u"}
    )
    everything = [*problems, *strangers]
    assert write_report(everything, tmp_path).read_text() == (
        "problem,where,seriesuid,coordX,coordY,coordZ,diameter_mm,done,detail\n"
        "outside the lung mask,annotations.csv:3,s,-99,-199,51,8,ignored,\n"
        "outside the lung mask,annotations.csv:4,s,-96,-199,51,8,ignored,\n"
        "of a series not among the scans,annotations.csv:9,t,-100,-200,50,5,left out,\n"
        "of a scan that was not prepared,annotations.csv:10,u,-100,-200,50,4,left out,\n"
    )
    assert summary(everything) == [
        "annotations: 2 outside the lung mask: ignored (1 series; annotations_report.csv)",
        "annotations: 1 of a series not among the scans: left out (1 series; annotations_report.csv)",
        "annotations: 1 of a scan that was not prepared: left out (1 series; annotations_report.csv)",
    ]
