"""Figures beyond the official ones: thresholds, classes of nodules, the band, two submissions; each typed by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from bench.bootstrap import bootstrap, draw_scans, interval, redrawn
from bench.evaluation_distances import by_distance, marks_apart
from bench.evaluation_figures import CURVE_RATES, Figures, Group, compute, threshold_at, type_words
from bench.evaluation_places import missed, worst_false_positives
from bench.evaluation_probabilities import by_probability
from runtime.froc import RATES, FrocResult, NoduleHit, evaluate_marks
from runtime.mark_files import Marks, joined, read_annotations, read_submission

# Two scans. Nodules 100 mm apart on the x axis; a mark at a nodule's own place hits it.
#   a: 5 mm solid;isolated      found at 0.9
#      7 mm ground-glass        found at 0.3
#      7 mm solid;vascular      missed
#   b: 12 mm solid;isolated     found at 0.6
#      30 mm, type not stated   found at 0.2
# False positives: a 0.8, 0.5, 0.25, 0.25; b 0.7, 0.4, 0.1 -> descending 0.8 0.7 0.5 0.4 0.25 0.25 0.1
NODULES = """seriesuid,coordX,coordY,coordZ,diameter_mm,type
a,0,0,0,5,solid;isolated
a,100,0,0,7,ground-glass
a,200,0,0,7,solid;vascular
b,0,0,0,12,solid;isolated
b,100,0,0,30
"""
MARKS = """seriesuid,coordX,coordY,coordZ,probability
a,0,0,0,0.9
a,100,0,0,0.3
b,0,0,0,0.6
b,100,0,0,0.2
a,0,50,0,0.8
a,0,60,0,0.5
a,0,70,0,0.25
a,0,80,0,0.25
b,0,50,0,0.7
b,0,60,0,0.4
b,0,300,0,0.1
"""


@pytest.fixture
def result(tmp_path: Path) -> FrocResult:
    (tmp_path / "a.csv").write_text(NODULES)
    (tmp_path / "s.csv").write_text(MARKS)
    return evaluate_marks(read_submission(tmp_path / "s.csv"), read_annotations(tmp_path / "a.csv"), None, ["a", "b"])


@pytest.fixture
def figures(result: FrocResult) -> Figures:
    return compute(result, "s", draws=50)


def table(groups: tuple[Group, ...]) -> list[tuple[object, ...]]:
    return [(g.label, g.nodules, g.found, *(round(v, 3) for v in g.sensitivity)) for g in groups if g.nodules]


def test_types_are_read_where_the_column_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(NODULES)  # its last row ends before the column
    assert read_annotations(path).types == ("solid;isolated", "ground-glass", "solid;vascular", "solid;isolated", "")
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\na,0,0,0,5\n")
    assert read_annotations(path).types == ()
    assert read_annotations(path).type_of(0) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("", "")),
        ("solid", ("solid", "")),
        ("part-solid;juxtapleural", ("part-solid", "juxtapleural")),
        ("solid, vascular", ("solid", "vascular")),
        (";isolated", ("", "isolated")),
    ],
)
def test_texture_and_place_of_a_type(text: str, words: tuple[str, str]) -> None:
    assert type_words(NoduleHit("a", 0, 0, 0, 5, None, 0, text)) == words


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [
        (0.125, 0.9),  # a quarter of a false positive is none: only marks above 0.8 count
        (0.5, 0.8),  # one of them may count
        (1, 0.6),  # two: above 0.5
        (2, 0.3),  # four: above 0.25
        (2.5, 0.3),  # five: the fifth and the sixth are tied, so neither
        (3, 0.2),  # six: above 0.1
        (4, 0.1),  # all there are
    ],
)
def test_thresholds_by_hand(result: FrocResult, rate: float, threshold: float) -> None:
    assert threshold_at(result, rate) == threshold


def test_no_threshold_is_high_enough_when_the_best_marks_are_false() -> None:
    false = Marks(("a", "a"), np.zeros((2, 3)), np.array([0.9, 0.9]), "s")
    result = evaluate_marks(false, Marks((), np.zeros((0, 3)), np.zeros(0), "a"), None, ["a"])
    assert threshold_at(result, 1) == math.inf


def test_classes_of_diameter_by_hand(figures: Figures) -> None:
    assert figures.thresholds == (0.6, 0.3, 0.1)
    assert table(figures.by_diameter) == [
        ("under 6", 1, 1, 1.0, 1.0, 1.0),
        ("6 to 8", 2, 1, 0.0, 0.5, 0.5),
        ("10 to 20", 1, 1, 1.0, 1.0, 1.0),
        ("20 and more", 1, 1, 0.0, 0.0, 1.0),
        ("6 and more", 4, 3, 0.25, 0.5, 0.75),
    ]
    assert [g.label for g in figures.by_diameter if not g.nodules] == ["8 to 10"]


def test_classes_of_type_by_hand(figures: Figures) -> None:
    assert table(figures.by_texture) == [
        ("solid", 3, 2, 0.667, 0.667, 0.667),
        ("ground-glass", 1, 1, 0.0, 1.0, 1.0),
        ("not stated", 1, 1, 0.0, 0.0, 1.0),
    ]
    assert table(figures.by_place) == [
        ("isolated", 2, 2, 1.0, 1.0, 1.0),
        ("vascular", 1, 0, 0.0, 0.0, 0.0),
        ("not stated", 2, 2, 0.0, 0.5, 1.0),
    ]


def test_the_curve_of_a_class_by_hand(figures: Figures) -> None:
    isolated = figures.by_place[0]  # hits at 0.9 and 0.6, false positives at 0.8 and 0.7 between them
    assert np.interp([0, 0.5, 1, 4], isolated.fps_per_scan, isolated.curve).tolist() == [0.5, 0.5, 1, 1]


def test_intervals_of_a_class_come_from_draws_of_scans(figures: Figures) -> None:
    # 6 mm and more: a holds 2 nodules, b 2. At 1 FP/scan a finds 0, b finds 1; a draw is aa, ab or bb
    of_draws = next(g for g in figures.by_diameter if g.overlaps).interval
    assert of_draws[:, 0].tolist() == [0, 0.25, 0.5]
    assert of_draws[:, 2].tolist() == [0.5, 0.75, 1.0]
    small = figures.by_diameter[0]  # only in a, always found; draws of b alone do not count
    assert small.interval[:, 0].tolist() == [1, 1, 1]


def test_without_types_there_are_no_classes_of_type() -> None:
    marks = Marks(("a",), np.zeros((1, 3)), np.ones(1), "m")
    figures = compute(evaluate_marks(marks, marks, None, ["a"]), "s", draws=5)
    assert (figures.by_texture, figures.by_place) == ((), ())


def test_the_band_of_the_curve_holds_the_seven_rates(result: FrocResult, figures: Figures) -> None:
    assert CURVE_RATES[::16].tolist() == list(RATES)
    assert figures.main.band.shape == (3, 97)
    np.testing.assert_array_equal(figures.main.band[:, ::16], figures.main.at_rates[:, :7])
    np.testing.assert_array_equal(figures.main.at_rates, bootstrap(result, 50))
    assert (np.diff(figures.main.band, axis=1) >= 0).all()


def test_a_draw_of_scans_by_hand(result: FrocResult) -> None:
    # scan b twice: nodules 4, found 0.6 0.6 0.2 0.2; false positives at 0.7 0.7 0.4 0.4 0.1 0.1 over 2 scans
    got = redrawn(result, np.array([[0, 2], [1, 1]]), (0.5, 1, 2, 4))
    assert got[0].tolist() == [0, 0.5, 1, 1]
    assert got[1].tolist() == np.interp((0.5, 1, 2, 4), result.fps_per_scan, result.sensitivity).tolist()


def test_intervals_leave_undefined_draws_out() -> None:
    got = interval(np.array([[1.0, math.nan], [1.0, math.nan], [math.nan, math.nan]]))
    assert got[:, 0].tolist() == [1, 1, 1]
    assert np.isnan(got[:, 1]).all()
    assert (draw_scans(5, 10).sum(axis=1) == 5).all()


# ---- probabilities -----------------------------------------------------------------------------------------------
def test_what_a_probability_is_worth_by_hand(result: FrocResult) -> None:
    rows = [
        (r.probability, r.fps_per_scan, r.sensitivity, r.sensitivity_large, r.marks, r.on_nodules)
        for r in by_probability(result)
    ]
    assert rows == [
        (0.0, 3.5, 0.8, 0.75, 0, 0),
        (0.05, 3.5, 0.8, 0.75, 0, 0),
        (0.1, 3.5, 0.8, 0.75, 1, 0),  # 0.1 itself counts
        (0.2, 3.0, 0.8, 0.75, 3, 1),
        (0.3, 2.0, 0.6, 0.5, 2, 1),
        (0.5, 1.5, 0.4, 0.25, 2, 1),
        (0.7, 1.0, 0.2, 0.0, 2, 0),
        (0.9, 0.0, 0.2, 0.0, 1, 1),
    ]
    assert [round(r.share, 3) for r in by_probability(result)[3:]] == [0.333, 0.5, 0.5, 0, 1]
    assert math.isnan(by_probability(result)[0].share)


def test_how_far_marks_are_from_their_nodules_by_hand() -> None:
    def marks(uid: str, *rows: tuple[float, float, float, float]) -> Marks:
        values = np.array(rows, dtype=np.float64).reshape(-1, 4)
        return Marks((uid,) * len(rows), values[:, :3], values[:, 3], "t")

    truth = joined(
        [marks("a", (0, 0, 0, 4), (50, 0, 0, 7), (99, 0, 0, 7)), marks("b", (0, 0, 0, 7), (50, 0, 0, 4))], "t"
    )
    found = joined(
        [
            marks("a", (0, 3, 4, 0.9), (4.9, 0, 0, 0.95), (50, 1, 0, 0.4), (50, 0, 0, 0.39), (99, 0, 0, 0.2)),
            marks("b", (0, 3, 0, 0.5), (50, 5.1, 0, 0.9)),  # the last is farther than 3 mm from the surface
        ],
        "s",
    )
    result = evaluate_marks(found, truth, None, ["a", "b"])
    assert [n.apart_mm for n in result.nodules] == [None, 1, 0, 3, None]
    apart = [(one.nodule.seriesuid, one.nodule.x_mm, one.distance_mm, one.hit) for one in marks_apart(result, 0.3)]
    assert apart == [("a", 0, 4.9, False), ("a", 50, 1, True), ("b", 0, 3, True)]
    rows = [(row.label, row.hit, row.median_mm, row.ninety_mm, row.beside) for row in by_distance(result, 0.3)]
    assert [(label, hit, beside) for label, hit, _, _, beside in rows[1:]] == [("6 to 8", 2, 0), ("all", 2, 1)]
    assert [row[2:4] for row in rows[1:]] == [pytest.approx((2, 2.8))] * 2
    assert (rows[0][:2], rows[0][4], math.isnan(rows[0][2])) == (("under 6", 0), 1, True)


def test_a_mark_beside_a_nodule_of_unknown_diameter() -> None:
    truth = Marks(("a",), np.zeros((1, 3)), np.array([-1.0]), "t")  # counts as 10 mm
    for away, beside in ((7.9, 1), (8.1, 0)):
        marks = Marks(("a",), np.array([[away, 0, 0]]), np.array([0.5]), "s")
        assert by_distance(evaluate_marks(marks, truth, None, ["a"]), 0.1)[-1].beside == beside


def test_values_that_are_no_probabilities_have_no_such_table() -> None:
    truth = Marks(("a",), np.zeros((1, 3)), np.array([8.0]), "t")
    for value in (1.5, -2.0):
        marks = Marks(("a",), np.zeros((1, 3)), np.array([value]), "s")
        assert by_probability(evaluate_marks(marks, truth, None, ["a"])) == ()
    none = Marks((), np.zeros((0, 3)), np.zeros(0), "s")
    assert by_probability(evaluate_marks(none, truth, None, ["a"])) == ()


# ---- two submissions ---------------------------------------------------------------------------------------------
def test_a_submission_does_not_differ_from_itself(result: FrocResult) -> None:
    found = compute(result, "s", result, "again", draws=50).comparison
    assert found is not None
    assert found.difference.tolist() == [0.0] * 8
    assert found.interval.tolist() == [[0.0] * 8] * 3
    assert found.found == {"both": 4, "first only": 0, "other only": 0, "neither": 1}


def test_a_difference_by_hand(tmp_path: Path, result: FrocResult) -> None:
    # the other finds nothing in b: its sensitivity is the half of 2 found of a's 3 over all 5 nodules
    annotations = read_annotations(tmp_path / "a.csv")
    other = Marks(("a", "a"), np.array([[0.0, 0, 0], [100, 0, 0]]), np.array([0.9, 0.3]), "o")
    found = compute(result, "s", evaluate_marks(other, annotations, None, ["a", "b"]), "o", draws=200).comparison
    assert found is not None
    assert found.difference[-2] == pytest.approx(4 / 5 - 2 / 5)  # at 8 false positives a scan
    # of aa both find 2 of 3; of bb one finds 2 of 2, the other none
    np.testing.assert_allclose(found.interval[:, -2], [0, 2 / 5, 1])
    assert found.found == {"both": 2, "first only": 2, "other only": 0, "neither": 1}


# ---- places ------------------------------------------------------------------------------------------------------
def test_the_largest_misses_come_first_and_say_why(result: FrocResult) -> None:
    places, count = missed(result, 0.6)
    assert count == 3
    assert [(p.diameter_mm, p.probability, p.why) for p in places] == [
        (30, 0.2, "found below the threshold only"),
        (7, 0.3, "found below the threshold only"),
        (7, None, "no mark"),
    ]
    assert missed(result, 0.6, 1)[0] == places[:1]


def test_the_worst_false_positives_come_first_and_name_a_near_nodule(result: FrocResult) -> None:
    places = worst_false_positives(result, 3)
    assert [(p.seriesuid, p.y_mm, p.probability, p.why) for p in places] == [
        ("a", 50, 0.8, "false positive"),
        ("b", 50, 0.7, "false positive"),
        ("a", 60, 0.5, "false positive"),
    ]
    near = Marks(("a",), np.array([[0.0, 4, 3]]), np.array([0.5]), "s")
    truth = Marks(("a",), np.zeros((1, 3)), np.array([8.0]), "t")
    (place,) = worst_false_positives(evaluate_marks(near, truth, None, ["a"]))
    assert place.why == "false positive, 5.0 mm from the centre of a nodule of 8.0 mm"
