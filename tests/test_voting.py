"""The rows of docs/voting.md."""

import numpy as np

from bench.voting import table
from runtime.froc import evaluate_marks
from runtime.mark_files import Marks


def marks(*rows: tuple[float, float, float, float]) -> Marks:
    values = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Marks(("a",) * len(rows), values[:, :3], values[:, 3], "test")


def test_a_row_for_each_root() -> None:
    nodules = marks((0, 0, 0, 4), (99, 0, 0, 9))
    found = {
        name: evaluate_marks(marks((at, 0, 0, 0.9), (99, 0, 0, 0.2)), nodules, None, ["a"])
        for name, at in (("alone", 3.0), ("cube root", 1.0))
    }
    lines = table(found).splitlines()
    assert len(lines) == 4
    # beside the small nodule: one false positive in one scan; the mark of 0.2 is not asked where its nodule is
    assert lines[2] == "| alone | 0.286 | 0.000 | 0.500 | 1 | 3.00, 3.00 | - | - | - | - |"
    assert lines[3] == "| cube root | 1.000 | 1.000 | 1.000 | 0 | 1.00, 1.00 | - | - | - | - |"
