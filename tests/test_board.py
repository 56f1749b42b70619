"""TensorBoard: what a run that was killed and resumed has in it; runs that go on without it; the pictures."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training

from train.board import TRAINING, Board
from train.crop_pictures import GREEN, draw_crops
from train.run import RunSettings, train
from train.snapshots import Snapshots

SETTINGS = RunSettings(seed=3, autocast=False, threads=1, pictures_every=3)


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_a_killed_run_has_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in iteration 4, with half a record written, after a snapshot of iteration 2."""
    solver = tiny_training.write(tmp_path / "nets")
    out, killed = tmp_path / "out", tmp_path / "killed"
    write = Snapshots.write

    def then_copy(self: Snapshots, solver: Any) -> Path:
        """Everything but the snapshot is as it is a moment before iteration 4 gets its own."""
        if solver.iteration == 4:
            shutil.copytree(out, killed)
        return write(self, solver)

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "write", then_copy)
        train([solver], [tiny_training.scan()], out, SETTINGS, lambda _: None)
    (events,) = (killed / "tensorboard" / "crop16").iterdir()
    with events.open("ab") as stream:
        stream.write(events.read_bytes()[:20])
    time.sleep(1.1)  # TensorBoard reads files in the order of their names, which begin with the second
    train([solver], [tiny_training.scan()], killed, SETTINGS, lambda _: None)
    found = read(killed / "tensorboard" / "crop16")
    tags = {"loss", "loss_pos", "loss_neg", "loss_reg", "lr", "crops_per_s", "share_of_time_waiting_for_data"}
    assert set(found.Tags()["scalars"]) == tags
    for tag in tags:
        assert [event.step for event in found.Scalars(tag)] == [1, 2, 3, 4, 5, 6], tag
    logged = [json.loads(line) for line in (killed / "crop16" / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(
        [event.value for event in found.Scalars("loss_reg")], [line["losses"]["loss_reg"] for line in logged], rtol=1e-6
    )
    assert [event.step for event in found.Images("crops")] == [1, 4]


def test_a_run_goes_on_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    train([tiny_training.write(tmp_path)], [tiny_training.scan()], tmp_path / "out", SETTINGS, said.append)
    assert [line for line in said if "TensorBoard" in line] == [
        "TensorBoard is not installed, the run goes on without it: pip install tensorboard"
    ]
    assert (tmp_path / "out" / "crop16" / "rpn3d_16_iter_6.caffemodel").is_file()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_full_disk_ends_the_board_alone(tmp_path: Path) -> None:
    said: list[str] = []
    with Board(tmp_path, "crop16", 0, False, said.append) as board, tiny_training.full_disk(1000):
        for step in range(1, 6):
            board.write(
                TRAINING,
                step,
                {"loss": 0.5},
                {"noise": np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)},
            )
            board.flush()
        assert not board.is_open
    assert len(said) == 1
    assert said[0].startswith("TensorBoard: ")
    assert said[0].endswith("; the run goes on without it")


def test_targets_and_answers_are_drawn_into_crops() -> None:
    """A crop of 16 is enlarged 12 times. The target's frame: centre (5, 9), diameter 4, so columns (9.5 +- 2) * 12."""
    data = np.zeros((2, 1, 16, 16, 16), np.float32)
    nodules = np.full((2, 3, 5), -1, np.float32)
    nodules[0, 0] = (3, 5, 9, 4, 1)
    head = np.full((2, 15, 4, 4, 4), -9.0, np.float32)
    head[:, 1:5] = head[:, 6:10] = head[:, 11:15] = 0
    head[0, 5, 3, 1, 2] = 4.0  # the second anchor, at cell (3, 1, 2): centre (13.5, 5.5, 9.5)
    picture = draw_crops(data, nodules, head)
    assert picture.shape == (2 * 192, 2 * 192, 3)
    green = np.argwhere((picture == GREEN).all(axis=2))
    row, column = 5.5 * 12 - 0.5, 9.5 * 12 - 0.5
    for place in ((row - 24, column), (row + 24, column), (row, column - 24), (row, column + 24)):
        assert np.abs(green - place).max(axis=1).min() <= 1
    assert green[:, 1].max() < 192  # the slice through the answer does not reach the target
    red = np.argwhere((picture[:192, 192:, 0] > 200) & (picture[:192, 192:, 1] < 100))
    assert np.abs(red.mean(axis=0) - (6 * 12, 10 * 12)).max() < 8
    assert not (picture[192:] == GREEN).all(axis=2).any()
