"""Candidates to findings: probabilities, ranks, and the way from the working grid through the patient to the file."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.findings import Finding, sigmoid, to_findings
from runtime.grid import IDENTITY, Grid
from runtime.report_table import ordinal

WORKING = Grid((100, 100, 100), (1.0, 1.0, 1.0), (-50.0, -40.0, -30.0), IDENTITY)
STORED = Grid((40, 200, 200), (0.5, 0.5, 2.5), (-50.0, -40.0, -30.0), IDENTITY)


def candidates(*rows: tuple[float, float, float, float, float]) -> Any:
    """Rows of (logit, z, y, x, diameter)."""
    table = np.asarray(rows, dtype=np.float32).reshape(-1, 5)
    return SimpleNamespace(logit=table[:, 0], centre_voxel=table[:, 1:4], diameter_voxel=table[:, 4])


def scan(file_grid: Grid = STORED) -> Any:
    return SimpleNamespace(file_grid=file_grid)


def test_one_finding_by_hand() -> None:
    # z 20, y 30, x 40 of the working grid is (-10, -10, -10) mm: slice 20 / 2.5 = 8, pixels 40 / 0.5 and 30 / 0.5
    (finding,) = to_findings(candidates((0.0, 20, 30, 40, 7.5)), WORKING, scan())
    assert finding == Finding(1, 0.5, -10.0, -10.0, -10.0, 7.5, slice_index=8, pixel_x=80, pixel_y=60)


def test_the_file_may_be_stored_upside_down_and_mirrored() -> None:
    # slices from the head down, columns from the left to the right
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    stored = Grid((40, 200, 200), (0.5, 0.5, 2.5), (49.5, -40.0, 67.5), flipped)
    (finding,) = to_findings(candidates((0.0, 20, 30, 40, 7.5)), WORKING, scan(stored))
    assert (finding.x_mm, finding.y_mm, finding.z_mm) == (-10, -10, -10)
    assert (finding.slice_index, finding.pixel_x, finding.pixel_y) == (31, 119, 60)


def test_slice_and_pixel_stay_within_the_file() -> None:
    (finding,) = to_findings(candidates((0.0, 99.0, -3.0, 99.9, 5.0)), WORKING, scan())
    assert (finding.slice_index, finding.pixel_x, finding.pixel_y) == (39, 199, 0)


def test_ranked_by_logit_even_where_the_sigmoid_is_one() -> None:
    found = to_findings(candidates((50, 1, 1, 1, 5), (60, 2, 2, 2, 5), (-1, 3, 3, 3, 5)), WORKING, scan())
    assert [(f.rank, f.z_mm) for f in found] == [(1, -28.0), (2, -29.0), (3, -27.0)]


def test_ties_are_ranked_by_position_whatever_their_order() -> None:
    rows = [(1.0, 5, 5, 5, 5), (1.0, 5, 5, 4, 6), (1.0, 4, 9, 9, 7)]
    first = to_findings(candidates(*rows), WORKING, scan())
    assert first == to_findings(candidates(*rows[::-1]), WORKING, scan())
    assert [f.diameter_mm for f in first] == [7, 6, 5]


def test_threshold_and_limit() -> None:
    rows = candidates(*[(logit, 5, 5, 5, 5) for logit in (-2.0, 0.0, 2.0, 4.0)])
    assert [round(f.probability, 3) for f in to_findings(rows, WORKING, scan(), threshold=0.5)] == [0.982, 0.881, 0.5]
    assert [f.rank for f in to_findings(rows, WORKING, scan(), max_per_scan=2)] == [1, 2]
    assert to_findings(rows, WORKING, scan(), max_per_scan=0) == ()


def test_no_candidates() -> None:
    assert to_findings(candidates(), WORKING, scan()) == ()


@pytest.mark.parametrize("arguments", [{"threshold": 1.5}, {"threshold": math.nan}, {"max_per_scan": -1}])
def test_nonsense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        to_findings(candidates(), WORKING, scan(), **arguments)


def test_sigmoid_is_exact_at_both_ends() -> None:
    found = sigmoid(np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0]))
    assert found[0] == 0
    assert found[1] == pytest.approx(math.exp(-40), rel=1e-12)
    assert found.tolist()[2:] == [0.5, 1.0, 1.0]


def test_ordinals() -> None:
    named = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th"}
    named |= {21: "21st", 22: "22nd", 23: "23rd", 100: "100th", 101: "101st", 111: "111th", 112: "112th"}
    assert {number: ordinal(number) for number in named} == named
