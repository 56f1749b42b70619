"""Levels of hard mining: each draws from what the ones before got wrong, and goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training

from caffe_models.errors import Rpn3dError
from runtime.budget import Budget
from train import mine
from train.levels import Mining, level_solvers, train_in_levels
from train.run import RunSettings, TrainingJob

BUDGET = Budget(1, 64 << 30, "for tests")  # the process that runs all tests is a large one
SETTINGS = RunSettings(seed=3, autocast=False, threads=1, tensorboard=False, quiet=True)


def job(folder: Path, out: Path) -> tuple[TrainingJob, list[Path], Mining]:
    """Crop 16, then two levels of the same net."""
    first = tiny_training.write(folder, max_iter=4)
    later = []
    for level in (2, 3):
        later.append(first.with_name(f"solver_level{level}.prototxt"))
        later[-1].write_text(first.read_text().replace("rpn3d_16", f"rpn3d_level{level}"))
    scans = (tiny_training.scan("a"), tiny_training.scan("b", seed=1))
    mining = Mining(folder / "deploy.prototxt", "f32", BUDGET, 1.0, 1)
    return TrainingJob((first,), scans, out, SETTINGS), later, mining


def test_each_level_starts_from_the_weights_and_the_mistakes_of_those_before(tmp_path: Path) -> None:
    whole, later, mining = job(tmp_path / "nets", tmp_path / "run")
    seen: list[TrainingJob] = []

    def train(one: TrainingJob) -> Path:
        seen.append(one)
        return one(None, lambda text: None)

    said: list[str] = []
    done = train_in_levels(whole, later, mining, train, said.append)
    assert done == tmp_path / "run" / "level3" / "rpn3d_level3_iter_4.caffemodel"
    first, second, third = seen
    assert [path.name for path in first.later] == ["solver_level2.prototxt", "solver_level3.prototxt"]
    assert second.weights == tmp_path / "run" / "crop16" / "rpn3d_16_iter_4.caffemodel"
    assert third.weights == tmp_path / "run" / "level2" / "rpn3d_level2_iter_4.caffemodel"
    assert not first.hard
    mined = [mine.load(tmp_path / "run" / f"mined{k}", whole.scans) for k in (1, 2)]
    assert [one.seriesuid for one in second.hard] == ["a", "b"]
    assert [one.seriesuid for one in third.hard] == ["a", "b", "a", "b"]
    for found, wanted in zip(third.hard, [*mined[0], *mined[1]], strict=True):
        assert (found.nodules == wanted.nodules).all()
    assert said[0] == f"mining for level2: 2 scans, into {tmp_path / 'run' / 'mined1'}"


def test_a_run_stopped_between_two_levels_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def train(one: TrainingJob) -> Path:
        return one(None, lambda text: None)

    def stopping(one: TrainingJob) -> Path:
        if one.solvers[0].stem == "solver_level3":
            raise StoppedError
        return train(one)

    for out in ("whole", "stopped"):
        whole, later, mining = job(tmp_path / "nets", tmp_path / out)
        if out == "stopped":
            with pytest.raises(StoppedError):
                train_in_levels(whole, later, mining, stopping, lambda text: None)
        train_in_levels(whole, later, mining, train, lambda text: None)
    assert tiny_training.results(tmp_path / "whole") == tiny_training.results(tmp_path / "stopped")


def test_a_process_that_does_not_lead_waits_and_reads_what_was_mined(tmp_path: Path) -> None:
    whole, later, mining = job(tmp_path / "nets", tmp_path / "run")

    def train(one: TrainingJob) -> Path:
        return one(None, lambda text: None)

    train_in_levels(whole, later[:1], mining, train, lambda text: None)
    waited: list[int] = []
    engineless = replace(mining, deploy=tmp_path / "missing.prototxt")
    train_in_levels(whole, later[:1], engineless, train, lambda text: None, leads=False, wait=lambda: waited.append(1))
    assert waited == [1]


def test_levels_that_are_not_there_are_named(root: Path) -> None:
    folder = root / "prototxt" / "rpn3d"
    assert [path.name for path in level_solvers(folder, 3)] == ["solver_level2.prototxt", "solver_level3.prototxt"]
    assert level_solvers(folder, 1) == []
    with pytest.raises(Rpn3dError, match=r"--levels 4: there is no .*solver_level4.prototxt; give a smaller number"):
        level_solvers(folder, 4)
