"""The training run: a run stopped anywhere ends as one that was never stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from caffe_models.generators.rpn3d import Stage, solver, train_net
from caffe_models.weights import read_caffemodel
from train.dataset import PreparedScan
from train.level import train_level
from train.run import RunSettings, train
from train.snapshots import Snapshots


@pytest.fixture(scope="module")
def scans() -> list[PreparedScan]:
    rng = np.random.default_rng(0)
    voxels = rng.integers(20, 60, (64, 64, 64)).astype(np.uint8)
    voxels[28:36, 28:36, 28:36] = 180
    return [
        PreparedScan("s", voxels, np.ones(voxels.shape, bool), np.array([[31.5, 31.5, 31.5, 10, 1]], np.float32), True)
    ]


@pytest.fixture
def solver_path(tmp_path: Path) -> Path:
    """Crops of 16, so that an iteration takes a tenth of a second."""
    (tmp_path / "train_16.prototxt").write_text(train_net(16, 2))
    path = tmp_path / "solver_16.prototxt"
    path.write_text(solver(Stage(name="16", crop=16, batch=2, base_lr=0.01, max_iter=4, stepsize=3, snapshot=2)))
    return path


def settings(iterations: int | None = None) -> RunSettings:
    return RunSettings(seed=3, autocast=False, threads=1, iterations=iterations, say_every=1, tensorboard=False)


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_killed_after_a_snapshot_ends_as_one_that_never_stopped(
    solver_path: Path, scans: list[PreparedScan], tmp_path: Path
) -> None:
    said: list[str] = []
    whole = train_level(solver_path, scans, tmp_path / "whole", None, settings(), said.append)
    assert whole.name == "rpn3d_16_iter_4.caffemodel"
    killed = tmp_path / "killed"
    train_level(solver_path, scans, killed, None, settings(3), said.append)
    for path in killed.glob("*_iter_3.*"):
        path.unlink()  # as if it had been killed in iteration 3
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"iteration": 3, "lo')
    resumed = train_level(solver_path, scans, killed, None, settings(), said.append)
    for (name, one), two in zip(read_caffemodel(whole).items(), read_caffemodel(resumed).values(), strict=True):
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a, b), name
    assert losses(tmp_path / "whole") == losses(killed)
    assert any("goes on from rpn3d_16_iter_2.solverstate" in line for line in said)


def test_a_broken_snapshot_is_passed_over_and_said(
    solver_path: Path, scans: list[PreparedScan], tmp_path: Path
) -> None:
    folder = tmp_path / "level"
    train_level(solver_path, scans, folder, None, settings(), lambda _: None)
    Snapshots(folder, "rpn3d_16").newest(".solverstate")[0].write_bytes(b"cut off")
    said: list[str] = []
    train_level(solver_path, scans, folder, None, settings(), said.append)
    assert said[0].startswith("passed over: ")
    assert "rpn3d_16_iter_4.solverstate" in said[0]
    assert "goes on from rpn3d_16_iter_2" in said[1]


def test_a_level_starts_from_the_weights_of_the_one_before(
    solver_path: Path, scans: list[PreparedScan], tmp_path: Path
) -> None:
    second = solver_path.with_name("solver_b.prototxt")
    second.write_text(solver_path.read_text().replace("base_lr: 0.01", "base_lr: 0"))
    out = train([solver_path, second], scans, tmp_path / "run", settings(2), lambda _: None)
    assert out.parent.name == "b"
    before = read_caffemodel(Snapshots(tmp_path / "run" / "crop16", "rpn3d_16").newest(".caffemodel")[0])
    after = read_caffemodel(out)
    assert np.array_equal(before["head_conv"][0], after["head_conv"][0])
    assert losses(tmp_path / "run" / "crop16") != losses(tmp_path / "run" / "b")
