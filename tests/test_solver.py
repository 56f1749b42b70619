"""The solver against trajectories of real Caffes, from its first iteration and from their snapshots; and its errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import data_folder, need

from caffe_models.errors import NetError, PrototxtError, WeightsError
from caffe_models.solver import Solver
from caffe_models.weights import read_caffemodel, read_solverstate

CASES = sorted(p.name for p in (data_folder() / "caffe_golden" / "train").glob("*") if p.is_dir()) or ["absent"]

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "goal" type: "Input" top: "goal" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" include { stage: "two" }
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "ip3" type: "InnerProduct" bottom: "ip1" top: "ip2" exclude { stage: "two" }
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "goal" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 3\n'


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def golden(name: str) -> Path:
    return need(data_folder() / "caffe_golden" / "train" / name)


def golden_solver(folder: Path, prefix: Path) -> Solver:
    dialect = "bvlc" if folder.name.startswith("bvlc_") else "extended"
    solver = Solver.from_prototxt(folder / "solver.prototxt", folder / "initial.caffemodel", dialect=dialect)
    solver.snapshot_prefix = str(prefix)
    return solver


def feeds(inputs: dict[str, np.ndarray], iteration: int) -> list[dict[str, torch.Tensor]]:
    passes = len(next(iter(inputs.values()))[iteration])
    return [{blob: torch.from_numpy(v[iteration, k].copy()) for blob, v in inputs.items()} for k in range(passes)]


def assert_weights(solver: Solver, trajectory: dict[str, np.ndarray], prefix: str) -> None:
    tolerance = 10 * float(trajectory["sensitivity_1e-6"])
    for layer, blobs in solver.net.weights().items():
        for index, blob in enumerate(blobs):
            key = f"{prefix}_{layer}_{index}"
            if key in trajectory:
                wanted = trajectory[key]
                limit = max(tolerance, 1e-5 * max(1.0, float(np.abs(wanted).max())))
                assert np.abs(blob - wanted).max() <= limit, key


@pytest.mark.parametrize("name", CASES)
def test_trajectory_of_caffe(name: str, tmp_path: Path) -> None:
    """Losses, rates, weights after the first and the last iteration, and the history in the last snapshot."""
    folder = golden(name)
    with np.load(folder / "inputs.npz") as arrays:
        inputs = dict(arrays)
    with np.load(folder / "trajectory.npz") as arrays:
        trajectory = dict(arrays)
    solver = golden_solver(folder, tmp_path / "snap")
    iterations = len(trajectory["lr"])
    tops = [key.removeprefix("loss_") for key in trajectory if key.startswith("loss_")]
    for iteration in range(iterations):
        result = solver.step(feeds(inputs, iteration))
        assert result.iteration == iteration
        assert result.lr == pytest.approx(float(trajectory["lr"][iteration]), rel=1e-6)
        for top in tops:
            wanted = float(trajectory[f"loss_{top}"][iteration].mean())
            assert result.losses[top] == pytest.approx(wanted, rel=1e-4, abs=1e-6), (top, iteration)
        if iteration == 0:
            assert_weights(solver, trajectory, "w1")
    assert_weights(solver, trajectory, "w")
    ours = read_solverstate(tmp_path / f"snap_iter_{iterations}.solverstate")
    theirs = read_solverstate(folder / f"snap_iter_{iterations}.solverstate")
    assert (ours.iteration, ours.current_step) == (theirs.iteration, theirs.current_step)
    assert len(ours.history) == len(theirs.history)
    limit = max(10 * float(trajectory["sensitivity_1e-6"]), 1e-5)
    for mine, caffe in zip(ours.history, theirs.history, strict=True):
        assert mine.shape == caffe.shape
        assert np.abs(mine - caffe).max() <= limit * max(1.0, float(np.abs(caffe).max()))


@pytest.mark.parametrize("name", CASES)
def test_going_on_from_a_snapshot_of_caffe(name: str, tmp_path: Path) -> None:
    folder = golden(name)
    with np.load(folder / "inputs.npz") as arrays:
        inputs = dict(arrays)
    with np.load(folder / "trajectory.npz") as arrays:
        trajectory = dict(arrays)
    iterations = len(trajectory["lr"])
    solver = golden_solver(folder, tmp_path / "snap")
    solver.restore(folder / f"snap_iter_{iterations // 2}.solverstate")
    assert solver.iteration == iterations // 2
    for iteration in range(solver.iteration, iterations):
        result = solver.step(feeds(inputs, iteration))
        assert result.lr == pytest.approx(float(trajectory["lr"][iteration]), rel=1e-6)
    assert_weights(solver, trajectory, "w")


def random_feed(iteration: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(iteration)
    return {
        name: torch.from_numpy(rng.normal(size=(2, n)).astype(np.float32)) for name, n in (("data", 3), ("goal", 2))
    }


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_resumed_run_repeats_an_uninterrupted_one_bit_for_bit(folder: Path, kind: str) -> None:
    """With dropout, and with the caller's own use of random numbers in between."""
    (folder / "solver.prototxt").write_text(SOLVER + f'type: "{kind}" snapshot: 3')
    whole = Solver.from_prototxt(folder / "solver.prototxt")
    whole.snapshot_prefix = str(folder / "out" / "whole")
    results = [whole.step(random_feed(i)) for i in range(6)]
    assert [r.snapshot.name if r.snapshot else "" for r in results] == [
        *["", "", "whole_iter_3.solverstate"],
        *["", "", "whole_iter_6.solverstate"],
    ]
    torch.manual_seed(99)
    resumed = Solver.from_prototxt(folder / "solver.prototxt", seed=3)
    resumed.snapshot_prefix = str(folder / "out" / "resumed")
    resumed.restore(folder / "out" / "whole_iter_3.solverstate")
    again = [resumed.step(random_feed(i)) for i in range(3, 6)]
    assert [r.losses for r in again] == [r.losses for r in results[3:]]
    one, other = (read_caffemodel(folder / "out" / f"{n}_iter_6.caffemodel") for n in ("whole", "resumed"))
    assert all(np.array_equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True))


def test_the_callers_random_numbers_are_left_alone(folder: Path) -> None:
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    solver.step(random_feed(0))
    assert torch.equal(torch.rand(3), wanted)


def test_dropout_differs_from_iteration_to_iteration_and_with_the_seed(folder: Path) -> None:
    (folder / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0 lr_policy: "fixed"')
    solver = Solver.from_prototxt(folder / "solver.prototxt", seed=1)
    first, second = (solver.step(random_feed(0)).losses["loss"] for _ in range(2))
    other = Solver.from_prototxt(folder / "solver.prototxt", net=solver.net, seed=2).step(random_feed(0))
    assert len({first, second, other.losses["loss"]}) == 3


def test_train_state_chooses_layers(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + 'train_state { stage: "two" }')
    names = [layer.spec.name for layer in Solver.from_prototxt(folder / "solver.prototxt").net.layers]
    assert "ip2" in names
    assert "ip3" not in names


def test_the_net_may_stand_in_the_solver(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace('net: "net.prototxt"', f"net_param {{ {NET} }}"))
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    assert solver.net.name == "small"
    assert solver.step(random_feed(0)).losses["loss"] > 0


def test_autocast_computes_in_bfloat16_and_updates_in_float32(folder: Path) -> None:
    exact, rough = (Solver.from_prototxt(folder / "solver.prototxt", seed=1, autocast=cast) for cast in (False, True))
    for solver in (exact, rough):
        solver.step(random_feed(0))
    for layer, blobs in exact.net.weights().items():
        for mine, theirs in zip(blobs, rough.net.weights()[layer], strict=True):
            np.testing.assert_allclose(theirs, mine, atol=0.02)
    assert any(
        not np.array_equal(a, b) for a, b in zip(exact.net.weights()["ip1"], rough.net.weights()["ip1"], strict=True)
    )
    assert all(parameter.tensor.dtype == torch.float32 for parameter in rough.net.parameters())


def test_weights_to_start_from(folder: Path) -> None:
    solver = Solver.from_prototxt(folder / "solver.prototxt", seed=1)
    weights = solver.net.weights()
    started = Solver.from_prototxt(folder / "solver.prototxt", {"ip1": weights["ip1"]}, seed=2)
    assert np.array_equal(started.net.weights()["ip1"][0], weights["ip1"][0])
    assert not np.array_equal(started.net.weights()["ip3"][0], weights["ip3"][0])
    with pytest.raises(WeightsError, match=r"no layer of the net small.*stranger"):
        Solver.from_prototxt(folder / "solver.prototxt", {"stranger": weights["ip1"]})


def test_feeds_must_fit(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + "iter_size: 2")
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    solver.step([random_feed(0), random_feed(1)])
    with pytest.raises(NetError, match="1 feeds for iter_size 2"):
        solver.step([random_feed(0)])
    with pytest.raises(NetError, match="missing: goal"):
        solver.step({"data": random_feed(0)["data"]})


def test_a_snapshot_of_another_solver_type_changes_nothing(folder: Path) -> None:
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    solver.snapshot_prefix = str(folder / "sgd")
    solver.step(random_feed(0))
    state = solver.snapshot()
    (folder / "solver.prototxt").write_text(SOLVER + 'type: "Adam"')
    adam = Solver.from_prototxt(folder / "solver.prototxt", seed=8)
    before = adam.net.weights()["ip1"][0]
    with pytest.raises(WeightsError, match="has 4 history blobs, a Adam solver of net small needs 8"):
        adam.restore(state)
    assert adam.iteration == 0
    assert np.array_equal(adam.net.weights()["ip1"][0], before)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('net: "net.prototxt"', 'net: "absent.prototxt"', r"solver.prototxt:1: net: .*absent.prototxt is not there"),
        ('net: "net.prototxt"', "", "found none; give exactly one of net, train_net"),
        ('net: "net.prototxt"', 'net: "a" train_net: "b"', "found net, train_net; give exactly one"),
        ("base_lr: 0.1", "", "base_lr is missing"),
        ('lr_policy: "fixed"', "", "lr_policy is missing .known: fixed, step"),
        ('lr_policy: "fixed"', 'lr_policy: "cosine"', 'unknown lr_policy "cosine"'),
        ('lr_policy: "fixed"', 'lr_policy: "step" gamma: 0.5', "needs a stepsize of 1 or more, found 0"),
        ('lr_policy: "fixed"', 'lr_policy: "poly"', "needs a max_iter"),
        ("momentum: 0.9", 'momentum: 0.9 type: "RMSProp"', "RMSProp knows no momentum, found 0.9"),
        ("momentum: 0.9", 'type: "RMSProp" rms_decay: 1.5', "rms_decay is 1.5; allowed: 0 to less than 1"),
        ("momentum: 0.9", 'type: "LBFGS"', 'unknown solver type "LBFGS" .known types: AdaDelta, AdaGrad, Adam'),
        ("momentum: 0.9", 'regularization_type: "L3"', '"L3"; allowed: L1, L2'),
        ("momentum: 0.9", "iter_size: 0", "iter_size is 0; allowed: 1 or more"),
    ],
)
def test_errors_name_file_line_and_what_is_allowed(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace(old, new))
    with pytest.raises(PrototxtError, match=message) as caught:
        Solver.from_prototxt(folder / "solver.prototxt")
    assert str(caught.value).startswith(str(folder / "solver.prototxt"))


def test_the_older_solver_type_is_understood(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + "solver_type: NESTEROV")
    assert Solver.from_prototxt(folder / "solver.prototxt").settings.type == "Nesterov"
