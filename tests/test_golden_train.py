"""The solver against trajectories of real Caffes: losses, rates, weights, snapshots, and going on from theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import data_folder, need
from protobuf_oracle import message_class

from caffe_models.schema import DIALECTS
from caffe_models.solver import Solver, StepResult
from caffe_models.weights import SolverState, read_caffemodel, read_solverstate

CASES = sorted(p.name for p in (data_folder() / "caffe_golden" / "train").glob("*") if p.is_dir()) or ["absent"]
LOSS, RATE, HISTORY = 1e-5, 2e-7, 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Trajectory:
    """What Caffe was fed and what it did."""

    folder: Path
    dialect: str
    inputs: dict[str, Any]
    values: dict[str, Any]

    @property
    def iterations(self) -> int:
        return len(self.values["lr"])

    @property
    def tops(self) -> list[str]:
        return [key.removeprefix("loss_") for key in self.values if key.startswith("loss_")]

    def solver(self, prefix: Path) -> Solver:
        initial = self.folder / "initial.caffemodel"
        solver = Solver.from_prototxt(self.folder / "solver.prototxt", initial, dialect=self.dialect)
        solver.snapshot_prefix = str(prefix)
        return solver

    def step(self, solver: Solver) -> StepResult:
        """One iteration on Caffe's inputs; its losses and rate must be Caffe's."""
        now, passes = solver.iteration, next(iter(self.inputs.values())).shape[1]
        result = solver.step(
            [{b: torch.from_numpy(v[now, k].copy()) for b, v in self.inputs.items()} for k in range(passes)]
        )
        assert result.iteration == now
        assert result.lr == pytest.approx(float(self.values["lr"][now]), rel=RATE)
        assert result.lr == pytest.approx(float(self.values["lr_logged"][now]), rel=1e-5)  # six digits were printed
        for top in self.tops:
            wanted = float(self.values[f"loss_{top}"][now].astype(np.float64).mean())
            assert result.losses[top] == pytest.approx(wanted, rel=LOSS), (top, now)
        return result

    def assert_weights(self, solver: Solver, prefix: str) -> None:
        """All blobs that Caffe kept, each to 10 times its sensitivity or 1e-5 of its largest number."""
        keys = {key for key in self.values if key.startswith(f"{prefix}_")}
        for layer, blobs in solver.net.weights().items():
            for index, blob in enumerate(blobs):
                keys.remove(f"{prefix}_{layer}_{index}")
                self.assert_blob(blob, self.values[f"{prefix}_{layer}_{index}"], f"{prefix}_{layer}_{index}")
        assert not keys

    def assert_blob(self, found: Any, wanted: Any, what: str) -> None:
        assert found.shape == wanted.shape, what
        limit = max(10 * float(self.values["sensitivity_1e-6"]), 1e-5 * float(np.abs(wanted).max()))
        assert np.abs(found - wanted).max() <= limit, what


@cache
def trajectory(name: str) -> Trajectory:
    folder = need(data_folder() / "caffe_golden" / "train" / name)
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "trajectory.npz") as values:
        return Trajectory(folder, "bvlc" if name.startswith("bvlc_") else "extended", dict(inputs), dict(values))


def assert_same_snapshot(ours: Path, of: Trajectory, number: int) -> None:
    """Names, order, shapes and values of both files of Caffe's snapshot, and what else they say."""
    theirs = of.folder / f"snap_iter_{number}"
    mine, caffes = (read_caffemodel(f"{one}.caffemodel") for one in (ours, theirs))
    assert list(mine) == list(caffes)
    for layer, blobs in caffes.items():
        for index, (blob, wanted) in enumerate(zip(mine[layer], blobs, strict=True)):
            of.assert_blob(blob, wanted, f"{layer} {index} at {number}")
    state, wanted_state = (read_solverstate(f"{one}.solverstate") for one in (ours, theirs))
    assert (state.iteration, wanted_state.iteration) == (number, number)
    assert state.current_step == wanted_state.current_step
    assert Path(state.learned_net).name == Path(wanted_state.learned_net).name
    assert_history(state, wanted_state, len(of_parameters(of)))
    if state.minimum_loss is not None:  # plateau; for other policies Extended Caffe writes what lies in its memory
        assert state.minimum_loss == pytest.approx(wanted_state.minimum_loss, rel=LOSS)
        assert state.iter_last_event == wanted_state.iter_last_event


def of_parameters(of: Trajectory) -> Sequence[object]:
    return Solver.from_prototxt(of.folder / "solver.prototxt", dialect=of.dialect).net.parameters()


def assert_history(ours: SolverState, caffes: SolverState, parameters: int) -> None:
    """Each kind in turn (Adam: all m, then all v). A blob whose gradient is nothing but rounding (a bias before a
    BatchNorm) is held to a millionth of the largest number of its kind."""
    assert len(ours.history) == len(caffes.history)
    assert len(ours.history) % parameters == 0
    for first in range(0, len(ours.history), parameters):
        kind = slice(first, first + parameters)
        largest = max(float(np.abs(blob).max()) for blob in caffes.history[kind])
        for index, (blob, wanted) in enumerate(zip(ours.history[kind], caffes.history[kind], strict=True)):
            assert blob.shape == wanted.shape
            limit = max(HISTORY * float(np.abs(wanted).max()), 1e-6 * largest)
            assert np.abs(blob - wanted).max() <= limit, (first, index)


def assert_protobuf_reads_it(ours: Path, solver: Solver) -> None:
    """Google's protobuf, under each dialect's schema, finds every blob of both files."""
    weights = solver.net.weights()
    for dialect in DIALECTS:
        net = message_class("NetParameter", dialect).FromString(Path(f"{ours}.caffemodel").read_bytes())
        assert net.name == solver.net.name
        assert [layer.name for layer in net.layer] == list(weights)
        for layer in net.layer:
            assert layer.type == solver.net.layer_types[layer.name]
            for blob, wanted in zip(layer.blobs, weights[layer.name], strict=True):
                assert tuple(blob.shape.dim) == wanted.shape
                assert np.array_equal(np.array(blob.data, np.float32).reshape(wanted.shape), wanted)
        state = message_class("SolverState", dialect).FromString(Path(f"{ours}.solverstate").read_bytes())
        assert (state.iter, state.learned_net) == (solver.iteration, f"{ours}.caffemodel")
        shapes = [tuple(one.tensor.shape) for one in solver.net.parameters()]
        assert [tuple(blob.shape.dim) for blob in state.history] == shapes * (len(state.history) // len(shapes))


@pytest.mark.parametrize("name", CASES)
def test_trajectory_of_caffe(name: str, tmp_path: Path) -> None:
    of = trajectory(name)
    solver = of.solver(tmp_path / "snap")
    while solver.iteration < of.iterations:
        result = of.step(solver)
        if solver.iteration == 1:
            of.assert_weights(solver, "w1")
        if result.snapshot is not None:
            assert_same_snapshot(tmp_path / f"snap_iter_{solver.iteration}", of, solver.iteration)
    of.assert_weights(solver, "w")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in of.folder.glob("snap_iter_*")}
    assert_protobuf_reads_it(tmp_path / f"snap_iter_{of.iterations}", solver)


@pytest.mark.parametrize("name", CASES)
def test_going_on_from_a_snapshot_of_caffe(name: str, tmp_path: Path) -> None:
    of = trajectory(name)
    middle = of.iterations // 2
    solver = of.solver(tmp_path / "snap")
    solver.restore(of.folder / f"snap_iter_{middle}.solverstate")
    assert solver.iteration == middle
    while solver.iteration < of.iterations:
        of.step(solver)
    of.assert_weights(solver, "w")
    assert_same_snapshot(tmp_path / f"snap_iter_{of.iterations}", of, of.iterations)
