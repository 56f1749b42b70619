"""Hard mining: marks told apart, parts of scans, stopping and going on, files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from caffe_models.rpn.anchors import ANCHORS_VOXEL
from runtime.budget import Budget
from runtime.candidates import Candidates
from runtime.engines.base import Voxels
from train.dataset import IGNORE, TARGET, DatasetError, PreparedScan
from train.mine import Hard, judge, load, mine, save, score, some_slices

BUDGET = Budget(1, 64 << 30, "for tests")  # the process that runs all tests is a large one


def scan(*, mining: bool = True, name: str = "s") -> PreparedScan:
    nodules = np.array([(40, 40, 40, 10, TARGET), (80, 40, 40, 8, TARGET), (40, 80, 40, 6, IGNORE)], np.float32)
    shape = (96, 96, 96)
    return PreparedScan(name, np.full(shape, 60, np.uint8), np.ones(shape, bool), nodules, mining)


def marks(*rows: tuple[float, ...]) -> Candidates:
    """Rows of logit, z, y, x, diameter."""
    array = np.array(rows, np.float32).reshape(-1, 5)
    return Candidates(array[:, 0], array[:, 1:4], array[:, 4])


class OneMark:
    """An engine that marks the cell whose centre is (41.5, 41.5, 41.5), wherever the window lies, and (13.5, ...)."""

    name, precision, notes = "openvino", "f32", ()
    calls = 0
    logits = (0.0, 2.0)

    def __call__(self, data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        cells = [extent // 4 for extent in data.shape[2:]]
        head = np.zeros((1, 5 * len(ANCHORS_VOXEL), *cells), np.float32)
        head[0, ::5] = -20
        wanted = (np.array([41.5, 41.5, 41.5]) + 0.5) / 96 - 0.5, (np.array([13.5, 13.5, 13.5]) + 0.5) / 96 - 0.5
        for place, logit in zip(wanted, self.logits, strict=True):
            cell = np.abs(coord[0] - place[:, None, None, None]).max(axis=0) < 1e-4
            head[0, 5][cell] = logit  # the anchor of 10
        return head

    def release(self) -> None:
        pass

    def keep_memory(self, on: bool) -> None:
        pass


def test_a_mark_hits_within_the_radius_and_else_is_false() -> None:
    """5 mm from the first centre it hits (radius 5); 30 mm away it is false; on the ignored place it is neither."""
    hard = judge(scan(), marks((0, 40, 40, 45, 10), (2, 10, 10, 10, 6), (4, 40, 80, 41, 5)))
    assert np.allclose(hard.nodules, [(40, 40, 40, 10, 0.5), (80, 40, 40, 8, 0.0)])
    assert np.allclose(hard.false_positives, [(10, 10, 10, 6, 0.880797)])


def test_the_best_mark_of_a_nodule_counts_and_its_neighbours_are_not_false() -> None:
    """A mark 6.5 mm off misses a radius of 5, but overlaps the nodule: training would not call it background."""
    hard = judge(scan(), marks((-1, 40, 40, 41, 9), (1, 40, 41, 40, 12), (3, 40, 46.5, 40, 10)))
    assert hard.nodules[0, 4] == pytest.approx(0.731059)
    assert not len(hard.false_positives)


def test_scans_that_nobody_annotated_wholly_give_no_false_positives() -> None:
    hard = judge(scan(mining=False), marks((2, 10, 10, 10, 6), (1, 40, 40, 40, 9)))
    assert not len(hard.false_positives)
    assert hard.nodules[0, 4] == pytest.approx(0.731059)


def test_a_scan_is_scored_as_detection_does() -> None:
    found = score(scan(), OneMark(), BUDGET)
    assert found.logit.tolist() == [2.0, 0.0]
    assert found.centre_voxel.tolist() == [[13.5, 13.5, 13.5], [41.5, 41.5, 41.5]]


def test_what_a_calibrated_model_ranks_low_is_mined_as_well() -> None:
    """The shipped model gives most false positives less than 0.05: they are still its worst mistakes."""
    engine = OneMark()
    engine.logits = (-8.0, -6.0)
    hard = judge(scan(), score(scan(), engine, BUDGET))
    assert np.allclose(hard.false_positives[:, :3], [(13.5, 13.5, 13.5)])
    assert hard.nodules[0, 4] == pytest.approx(0.000335, abs=1e-6)


def test_of_a_part_only_its_slices_are_marked_and_only_its_nodules_are_asked_for() -> None:
    part = slice(30, 60)
    found = score(scan(), OneMark(), BUDGET, part)
    assert found.centre_voxel.tolist() == [[41.5, 41.5, 41.5]]
    assert judge(scan(), found, part).nodules[:, 0].tolist() == [40]


def test_the_slices_of_a_part_follow_from_seed_and_name() -> None:
    part = some_slices(scan(), 0.25, 7)
    assert part == some_slices(scan(), 0.25, 7)
    assert part.stop - part.start == 24
    assert len({some_slices(scan(name=f"s{k}"), 0.25, 7).start for k in range(20)}) > 5
    assert some_slices(scan(), 1.0, 7) == slice(None)


def test_mining_goes_on_where_it_was_and_refuses_another_model(tmp_path: Path) -> None:
    scans, engine, said = [scan(name="a"), scan(name="b")], OneMark(), list[str]()
    mine(scans[:1], engine, "one", BUDGET, tmp_path, said.append)
    first = engine.calls
    mine(scans, engine, "one", BUDGET, tmp_path, said.append)
    assert engine.calls == 2 * first
    assert said == [
        "mined 1 of 1, a: 1 false positives, 1 of 2 nodules below 0.5",
        "mined 2 of 2, b: 1 false positives, 1 of 2 nodules below 0.5",
    ]
    with pytest.raises(DatasetError, match="mined with another model_sha256"):
        mine(scans, engine, "two", BUDGET, tmp_path, said.append)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    mine([], OneMark(), "one", BUDGET, tmp_path, print)
    hard = judge(scan(), marks((0, 40, 40, 45, 10), (2, 10, 10, 10, 6)))
    save(hard, tmp_path / "s.csv")
    (back,) = load(tmp_path, [scan(), scan(name="never mined")])
    assert np.allclose(back.false_positives, hard.false_positives, atol=1e-4)
    assert np.allclose(back.nodules, hard.nodules, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,z\n", "s.csv:1: the columns are not"),
        ("kind,z,y,x,diameter,probability\nnodule,1,2,3,4\n", "s.csv:2: not an example"),
        ("kind,z,y,x,diameter,probability\nnodule,1,2,3,4,nan\n", "s.csv:2: not an example"),
        ("kind,z,y,x,diameter,probability\nvessel,1,2,3,4,0.5\n", "s.csv:2: not an example"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    mine([], OneMark(), "one", BUDGET, tmp_path, print)
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, [scan()])


def test_a_folder_that_is_no_mining_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not the head of a mining"):
        load(tmp_path, [scan()])
    mine([], OneMark(), "one", BUDGET, tmp_path, print)
    with pytest.raises(DatasetError, match="none of the 1 scans"):
        load(tmp_path, [scan()])


def test_false_positives_are_kept_up_to_a_number_the_highest_first() -> None:
    rows = [(k / 50, 10.0, 10.0, float(k) * 0.9, 5.0) for k in range(100)]
    hard = judge(replace(scan(), nodules=np.zeros((0, 5), np.float32)), marks(*rows))
    assert isinstance(hard, Hard)
    assert len(hard.false_positives) == 60
    assert (np.diff(hard.false_positives[:, 4]) <= 0).all()
    assert hard.false_positives[0, 3] == 5.0
