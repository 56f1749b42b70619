"""How far marks are from their nodules, as docs/voting.md counts it."""

import numpy as np

from bench.voting import Outcome, distances, table
from runtime.froc import evaluate_marks
from runtime.mark_files import Marks, joined


def marks(uid: str, *rows: tuple[float, float, float, float]) -> Marks:
    values = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Marks((uid,) * len(rows), values[:, :3], values[:, 3], "test")


def test_the_surest_mark_about_a_nodule_says_where_it_is() -> None:
    nodules = joined([marks("a", (0, 0, 0, 4), (50, 0, 0, 12), (99, 0, 0, 8)), marks("b", (0, 0, 0, 25))], "test")
    found = marks(
        "a",
        (1, 0, 0, 0.5),
        (0, 3, 4, 0.9),  # 5 mm away: 2 of radius and 3 beside
        (50, 2, 0, 0.4),
        (50, 0, 0, 0.39),
        (99, 0, 0, 0.2),  # not sure enough to be asked
    )
    assert [band.tolist() for band in distances(found, nodules)] == [[5.0], [], [2.0], []]


def test_the_table_has_a_row_for_each_root() -> None:
    nodules = marks("a", (0, 0, 0, 4))
    outcomes = []
    for name, at in (("alone", 3.0), ("cube root", 1.0)):
        found = marks("a", (at, 0, 0, 0.9))
        outcomes.append(Outcome(name, distances(found, nodules), evaluate_marks(found, nodules, None, ["a"])))
    lines = table(outcomes).splitlines()
    assert lines[2] == "| alone | 0.000 | 0.000 | 0.000 | 3.00, 3.00 | - | - | - |"
    assert lines[3] == "| cube root | 1.000 | 1.000 | 1.000 | 1.00, 1.00 | - | - | - |"
