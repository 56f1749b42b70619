"""How far a training run is: lines, bar, time left over all levels, share of time waiting for data."""

import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training

import train.run
from caffe_models.solver import StepResult
from train.crops import Sampling
from train.pace import Pace
from train.python_layers import CropBatch
from train.run_settings import RunSettings, Surroundings
from train.step_progress import StepProgress

SETTINGS = RunSettings(seed=3, autocast=False, threads=1, tensorboard=False, say_every=4)
NOTHING = CropBatch(*[np.zeros(1, np.float32)] * 4)


def ticking(monkeypatch: pytest.MonkeyPatch, clock: str, *moments: float) -> None:
    found: Iterator[float] = iter(moments)
    monkeypatch.setattr(time, clock, lambda: next(found))


def test_the_time_left_counts_the_levels_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten iterations in 30 s, ten to go and 90 like them after: 300 s."""
    said: list[str] = []
    ticking(monkeypatch, "monotonic", 100.0, 130.0)
    progress = StepProgress(5, 25, 5, 3, name="crop32", later=90.0, say=said.append)
    progress.step(StepResult(14, 0.01, {}, 0.5), "1.0% waiting for data")
    assert said == ["crop32 iteration 15/25: loss 0.5, lr 0.01, 1.0% waiting for data, 5 min left in all"]


def test_what_follows_is_weighed_by_its_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers = [tiny_training.write(tmp_path, max_iter=6), tiny_training.write(tmp_path, max_iter=4, crop=32, batch=3)]
    later: list[float] = []

    def level(
        solver: Path, scans: Any, folder: Path, weights: Any, settings: Any, say: Any, around: Surroundings
    ) -> Path:
        later.append(around.later_voxels)
        return folder

    monkeypatch.setattr(train.run, "train_level", level)
    assert train.run.train(solvers, [], tmp_path / "out", SETTINGS, print).name == "crop32"
    assert later == [4 * 3 * 32**3, 0]


def test_waiting_for_data_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations of a second and of three, of which a quarter and 0.75 s waiting; five crops each."""
    pace = Pace(lambda iteration: NOTHING, Sampling(crop=16, batch=5))
    ticking(monkeypatch, "perf_counter", 10.0, 10.25, 20.0, 20.75)
    assert pace(0) is NOTHING
    assert pace.step(1.0) == 0.25
    pace(1)
    assert pace.step(3.0) == 0.75
    assert pace.wait_share == 0.25
    assert pace.crops_per_s == 2.5
    assert pace.voxels == 5 * 16**3


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    solvers = [tiny_training.write(tmp_path), tiny_training.write(tmp_path, crop=32)]
    train.run.train(solvers, [tiny_training.scan()], tmp_path / "out", SETTINGS, said.append)
    first, second, third, last = said
    figures = r"loss [\d.]+, lr [\d.]+, loss_pos [\d.]+, loss_neg [\d.]+, loss_reg [\d.]+, [\d.]+% waiting for data"
    assert re.fullmatch(rf"crop16 iteration 4/6: {figures}, [\d]+ s left in all", first)
    assert first.split(":")[0] == "crop16 iteration 4/6"
    assert second.startswith("crop16 iteration 6/6")
    assert third.startswith("crop32 iteration 4/6")
    assert last.endswith(", 0 s left")
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    solver = tiny_training.write(tmp_path)
    train.run.train([solver], [tiny_training.scan()], tmp_path / "out", SETTINGS, lambda text: None)
    for text in ("crop16", "6/6", "loss_reg ", "waiting for data", " left"):
        assert text in terminal.getvalue()
    written = len(terminal.getvalue())
    quiet = RunSettings(**{**vars(SETTINGS), "quiet": True, "iterations": 8})
    train.run.train([solver], [tiny_training.scan()], tmp_path / "out", quiet, lambda text: None)
    assert len(terminal.getvalue()) == written
