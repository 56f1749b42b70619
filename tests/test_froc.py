"""LUNA16's evaluation: each rule by hand, the official program's figures to the last digit, and readers' errors."""

import math
import random
import time
from pathlib import Path

import numpy as np
import pytest

from bench.bootstrap import bootstrap
from bench.evaluation_official import cad_analysis, curve_lines
from runtime.froc import FrocResult, evaluate_files, evaluate_marks
from runtime.mark_files import Marks, MarksError, read_annotations, read_series_list, read_submission

Row = tuple[str, float, float, float, float]


def marks(*rows: Row) -> Marks:
    table = np.asarray([row[1:] for row in rows], dtype=np.float64).reshape(-1, 4)
    return Marks(tuple(row[0] for row in rows), table[:, :3], table[:, 3], "x.csv")


def at(x: float, value: float, uid: str = "a") -> Row:
    """A mark or finding on the x axis."""
    return (uid, x, 0.0, 0.0, value)


def outcome(result: FrocResult) -> tuple[int, int, int, int, int]:
    """True positives, false positives, missed, ignored, doubles."""
    c = result.counts
    return (
        c["true_positives"],
        c["false_positives"],
        c["false_negatives"],
        c["ignored_on_excluded"],
        c["doubles"],
    )


@pytest.mark.parametrize(
    ("submission", "annotations", "excluded", "expected"),
    [
        # nodule of 10 mm at 0: a mark at just 5 mm misses, one a little nearer hits
        ([at(5.0, 0.9)], [at(0, 10)], [], (0, 1, 1, 0, 0)),
        ([at(4.999999, 0.9)], [at(0, 10)], [], (1, 0, 0, 0, 0)),
        # the radius is a sphere's, not a cube's: (3, 3, 3) is 5.196 mm away
        ([("a", 3, 3, 3, 0.9)], [at(0, 10)], [], (0, 1, 1, 0, 0)),
        # an excluded finding of -1 counts as 10 mm; marks on it are ignored, each of them
        ([at(24.9, 0.9), at(15.1, 0.2), at(25.1, 0.3)], [], [at(20, -1)], (0, 1, 0, 2, 0)),
        # within a nodule and an excluded finding: a hit
        ([at(1, 0.9)], [at(0, 10)], [at(1, -1)], (1, 0, 0, 0, 0)),
        # three marks in one nodule: one hit, two doubles, no false positive
        ([at(0, 0.1), at(1, 0.9), at(2, 0.5)], [at(0, 10)], [], (1, 0, 0, 0, 2)),
        # one mark within two nodules hits both
        ([at(2, 0.5)], [at(0, 10), at(4, 10)], [], (2, 0, 0, 0, 0)),
        # a nodule of another scan at the same place is missed
        ([at(0, 0.5, "b")], [at(0, 10, "a")], [], (0, 1, 1, 0, 0)),
        # nothing found at all
        ([], [at(0, 10)], [], (0, 0, 1, 0, 0)),
    ],
)
def test_rules_by_hand(
    submission: list[Row], annotations: list[Row], excluded: list[Row], expected: tuple[int, ...]
) -> None:
    result = evaluate_marks(marks(*submission), marks(*annotations), marks(*excluded), ["a", "b"])
    assert outcome(result) == expected


def test_a_nodule_has_the_probability_of_its_best_mark() -> None:
    result = evaluate_marks(marks(at(0, 0.1), at(1, 0.9), at(2, 0.5)), marks(at(0, 10), at(50, 6)), None, ["a"])
    assert [(n.probability, n.marks, n.diameter_mm) for n in result.nodules] == [(0.9, 3, 10.0), (None, 0, 6.0)]


@pytest.mark.parametrize(
    ("probabilities", "kept"),
    [
        ([0.5] * 100, 100),  # no more than the limit: ties do not matter
        ([i / 200 for i in range(101)], 100),
        ([0.9] * 98 + [0.5] * 3, 98),  # the 101st is 0.5: all marks tied with it go
        ([0.5] * 101, 0),
        ([0.9] * 100 + [0.5] * 50, 100),
    ],
)
def test_at_most_100_marks_of_a_scan_count(probabilities: list[float], kept: int) -> None:
    random.Random(1).shuffle(probabilities)
    rows = [at(1000.0 + i, p) for i, p in enumerate(probabilities)]
    result = evaluate_marks(marks(*rows), marks(at(0, 10)), None, ["a"])
    assert result.counts["false_positives"] == kept
    assert result.counts["dropped_by_limit"] == len(probabilities) - kept


def test_curve_by_hand() -> None:
    # two scans, two nodules; a hit and a false positive share 0.7 and make one slanted step
    submission = marks(at(0, 0.9), at(90, 0.8), at(0, 0.7, "b"), at(80, 0.7), at(70, 0.1, "b"))
    result = evaluate_marks(submission, marks(at(0, 10), at(0, 10, "b")), None, ["a", "b"])
    assert result.thresholds.tolist() == [math.inf, 0.9, 0.8, 0.7, 0.1]
    assert result.fps_per_scan.tolist() == [0, 0, 0.5, 1.0, 1.5]
    assert result.sensitivity.tolist() == [0, 0.5, 0.5, 1.0, 1.0]
    assert result.sensitivities == (0.5, 0.5, 0.5, 1, 1, 1, 1)
    assert result.cpm == pytest.approx(5.5 / 7)


def test_sensitivity_is_interpolated_and_stays_after_the_last_mark() -> None:
    # one step from (0, 0) to (1, 1/2): at 1/8 false positives per scan 1/16, beyond 1 it stays 1/2
    result = evaluate_marks(marks(at(0, 0.5), at(90, 0.5)), marks(at(0, 10), at(40, 10)), None, ["a"])
    assert result.sensitivities == (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1 / 2, 1 / 2, 1 / 2)


def test_points_inside_equal_steps_are_left_out() -> None:
    rows = [at(0, 0.9)] + [at(100 + i, 0.8 - i / 10) for i in range(5)]
    result = evaluate_marks(marks(*rows), marks(at(0, 10)), None, ["a"])
    assert result.fps_per_scan.tolist() == [0, 0, 5]


def test_without_false_positives() -> None:
    result = evaluate_marks(marks(at(0, 0.9)), marks(at(0, 10), at(50, 10)), None, ["a", "b"])
    assert result.fps_per_scan.tolist() == [0, 0]
    assert result.sensitivities == (0.5,) * 7


def test_without_nodules_sensitivity_is_undefined_and_said_so() -> None:
    result = evaluate_marks(marks(at(0, 0.9), at(1, 0.8)), marks(), None, ["a"])
    assert result.fps_per_scan.tolist() == [0, 1, 2]
    assert math.isnan(result.cpm)
    assert "sensitivity is undefined" in " ".join(result.notes)


def test_without_marks_every_sensitivity_is_zero() -> None:
    assert evaluate_marks(marks(), marks(at(0, 10)), None, ["a"]).cpm == 0


def test_marks_on_scans_not_listed_are_named_and_do_not_count() -> None:
    submission = marks(at(0, 0.9), at(90, 0.9, "x"), at(91, 0.8, "x"))
    result = evaluate_marks(submission, marks(at(0, 10), at(0, 10, "y")), None, ["a"])
    assert result.unknown_series == {"x": 2}
    assert result.counts["on_unknown_series"] == 2
    assert outcome(result) == (1, 0, 0, 0, 0)
    assert "1 nodules lie in scans that are not listed" in " ".join(result.notes)


def test_without_a_list_the_scans_of_all_files_count() -> None:
    result = evaluate_marks(marks(at(0, 0.9, "c")), marks(at(0, 10, "b")), marks(at(0, -1, "a")))
    assert [s.seriesuid for s in result.scans] == ["a", "b", "c"]
    assert "no list of scans" in result.notes[0]


def test_repeated_rows_are_counted_and_said() -> None:
    result = evaluate_marks(marks(at(90, 0.9), at(90, 0.9)), marks(at(0, 10)), None, ["a"])
    assert result.counts["false_positives"] == 2
    assert "1 rows repeat" in " ".join(result.notes)


def test_scans_listed_twice_are_refused() -> None:
    with pytest.raises(MarksError, match="listed twice"):
        evaluate_marks(marks(at(0, 1)), marks(), None, ["a", "a"])


def test_order_of_rows_does_not_matter() -> None:
    draw = random.Random(3)
    rows = [at(draw.uniform(0, 400), draw.randrange(1, 60) / 60, draw.choice("ab")) for _ in range(240)]
    annotations = marks(*[at(40.0 * i, 12, uid) for i in range(10) for uid in "ab"])
    first = evaluate_marks(marks(*rows), annotations, None, ["a", "b"])
    draw.shuffle(rows)
    second = evaluate_marks(marks(*rows), annotations, None, ["b", "a"])
    assert first.counts == second.counts
    assert first.sensitivities == second.sensitivities
    assert curve_lines(first) == curve_lines(second)
    assert first.counts["true_positives"] > 0


# ---- the official figures ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def official(data_dir: Path) -> FrocResult:
    folder = data_dir / "froc"
    start = time.process_time()
    result = evaluate_files(
        folder / "dpn26_deeplung_submission.csv",
        folder / "annotations.csv",
        folder / "annotations_excluded.csv",
        folder / "seriesuids.csv",
    )
    assert time.process_time() - start < 3
    return result


def test_official_counts_and_sensitivities(official: FrocResult) -> None:
    assert outcome(official) == (1136, 46078, 50, 5308, 186)
    assert [f"{v:.4f}" for v in official.sensitivities] == [
        "0.6922",
        "0.7690",
        "0.8238",
        "0.8651",
        "0.8929",
        "0.9174",
        "0.9334",
    ]
    assert f"{official.cpm:.4f}" == "0.8420"


def test_official_files_byte_for_byte(official: FrocResult, data_dir: Path) -> None:
    folder = data_dir / "froc"
    assert curve_lines(official) == (folder / "dpn26_expected_froc.txt").read_text()
    assert cad_analysis(official, "dpn26_uid") == (folder / "dpn26_expected_CADAnalysis.txt").read_text()
    missed = [
        f"{n.seriesuid},None,{n.x_mm},{n.y_mm},{n.z_mm},{n.diameter_mm:.9f},-1"
        for n in official.nodules
        if n.probability is None
    ]
    assert missed == (folder / "dpn26_expected_nodulesWithoutCandidate.txt").read_text().splitlines()


def test_bootstrap_brackets_the_official_figures(official: FrocResult) -> None:
    low, middle, high = bootstrap(official, 200, seed=1)
    figures = [*official.sensitivities, official.cpm]
    assert (low < figures).all()
    assert (figures < high).all()
    assert np.abs(middle - figures).max() < 0.01
    np.testing.assert_array_equal(low, bootstrap(official, 200, seed=1)[0])


def test_bootstrap_of_equal_scans_is_certain() -> None:
    scans = [f"s{i}" for i in range(8)]
    submission = marks(*[row for uid in scans for row in (at(0, 0.9, uid), at(90, 0.5, uid))])
    annotations = marks(*[row for uid in scans for row in (at(0, 10, uid), at(40, 10, uid))])
    assert bootstrap(evaluate_marks(submission, annotations, None, scans), 20).tolist() == [[0.5] * 8] * 3


def test_bootstrap_without_nodules_is_undefined() -> None:
    assert np.isnan(bootstrap(evaluate_marks(marks(at(0, 1)), marks(), None, ["a"]), 5)).all()


# ---- reading -----------------------------------------------------------------------------------------------------
HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"s\.csv:1: no column seriesuid, .*\(empty file\); expected seriesuid,coordX"),
        ("a,1,2,3,0.5\n", r"s\.csv:1: no column seriesuid, coordX.* in the header a,1,2,3,0\.5"),
        ("seriesuid,coordX,coordY,coordZ\n", r"s\.csv:1: no column probability in the header"),
        (HEADER + "a,1,2,3,0.5\na,1,two,3,0.5\n", r"s\.csv:3: coordY is 'two', expected a finite number"),
        (HEADER + "a,1,2,3,nan\n", r"s\.csv:2: probability is 'nan', expected a finite number"),
        (HEADER + "a,1,2,3,\n", r"s\.csv:2: probability is '', expected"),
        (HEADER + "a,1,2\n", r"s\.csv:2: 3 fields, the header has 5"),
    ],
)
def test_faulty_submissions_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(MarksError, match=message) as error:
        read_submission(path)
    assert "\n" not in str(error.value)


def test_columns_may_stand_in_any_order_with_others_between(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xef\xbb\xbfprobability,note,coordZ,coordY,coordX,seriesuid\r\n0.5,hi,3,2,1,a\r\n\r\n")
    found = read_submission(path)
    assert (found.seriesuid, found.xyz_mm.tolist(), found.value.tolist()) == (("a",), [[1, 2, 3]], [0.5])


def test_annotations_without_rows_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    assert read_annotations(path).xyz_mm.shape == (0, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read"),
        (b"\n", "lists no scan"),
        (b"a\nb\na\n", r"u\.csv:3: a is listed on line 1 already"),
        (b"\xff\xfe\x00a", "not a CSV text in UTF-8"),
    ],
)
def test_faulty_lists_of_scans(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "u.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(MarksError, match=message):
        read_series_list(path)


@pytest.mark.parametrize("text", ["a\nb\n", "seriesuid\na\nb", "a,1\n\nb,2\n"])
def test_lists_of_scans(tmp_path: Path, text: str) -> None:
    path = tmp_path / "u.csv"
    path.write_text(text)
    assert read_series_list(path) == ("a", "b")
