"""The solver on small nets: randomness, snapshots, test nets, shared and frozen blobs, and its errors.

Real Caffe's trajectories are held in test_golden_train.py.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from caffe_models.errors import CaffeWarning, NetError, PrototxtError, WeightsError
from caffe_models.solver import Solver
from caffe_models.weights import read_caffemodel, read_solverstate, write_caffemodel

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


@pytest.mark.parametrize("which", [min, max])
def test_a_full_disk_leaves_the_snapshot_that_was_there(folder: Path, which: Callable[..., int]) -> None:
    """The system itself ends a write, as on a full disk: files may be a byte shorter than the smaller (larger) one."""
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    solver.snapshot_prefix = str(folder / "out" / "snap")
    solver.step(random_feed(0))
    solver.snapshot()
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    solver.step(random_feed(1))
    solver.iteration = 1  # the same names again
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (which(map(len, before.values())) - 1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            solver.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before
    solver.snapshot()
    assert (folder / "out" / "snap_iter_1.caffemodel").read_bytes() != before["snap_iter_1.caffemodel"]


KILLED = """
import os, numpy as np, torch
from caffe_models.solver import Solver
torch.set_num_threads(1)
solver = Solver.from_prototxt("solver.prototxt")
rng = np.random.default_rng(0)
feed = {k: torch.from_numpy(rng.normal(size=(2, n)).astype(np.float32)) for k, n in (("data", 3), ("goal", 2))}
solver.step(feed)
for at in range(1, 5):
    solver.snapshot_prefix = f"{at}/snap"
    solver.snapshot()
solver.step(feed)
fsync = os.fsync
for at in range(1, 5):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 9
        continue
    left = [at]
    def dying(handle):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), 9)
        fsync(handle)
    os.fsync = dying
    solver.snapshot_prefix = f"{at}/snap"
    solver.snapshot()
    os._exit(1)
"""


def test_a_kill_while_a_snapshot_is_written_leaves_whole_files_only(folder: Path) -> None:
    """Killed at each of its four flushes to the disk; whatever has a snapshot's name can be gone on from."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for at in range(1, 5):
        states = sorted((folder / str(at)).glob("[!.]*.solverstate"))
        assert [state.name for state in states] == ["snap_iter_1.solverstate"]
        solver = Solver.from_prototxt(folder / "solver.prototxt")
        solver.restore(states[0])
        assert solver.iteration == 1
        models = list((folder / str(at)).glob("[!.]*.caffemodel"))
        assert len(models) == (2 if at == 4 else 1)  # the weights get their name before the state that names them
        assert all(set(read_caffemodel(model)) == {"ip1", "ip3"} for model in models)


def test_snapshots_are_named_as_in_bvlc_caffe(folder: Path) -> None:
    """Without snapshot_prefix beside the solver under its name; where it names a folder, in there."""
    assert Solver.from_prototxt(folder / "solver.prototxt").snapshot_prefix == str(folder / "solver")
    (folder / "solver.prototxt").write_text(SOLVER + f'snapshot_prefix: "{folder}"')
    assert Solver.from_prototxt(folder / "solver.prototxt").snapshot_prefix == str(folder / "solver")
    (folder / "solver.prototxt").write_text(SOLVER + 'snapshot_prefix: "some/where"')
    assert Solver.from_prototxt(folder / "solver.prototxt").snapshot_prefix == "some/where"


TWINS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" param { name: "w" FIRST }
  inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" param { name: "w" SECOND }
  inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Reduction" bottom: "two" top: "sum" loss_weight: 0.5 }
"""
PLAIN = 'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" random_seed: 3\n'


def twins(folder: Path, first: str, second: str) -> Solver:
    (folder / "net.prototxt").write_text(TWINS.replace("FIRST", first).replace("SECOND", second))
    return Solver.from_prototxt(folder / "solver.prototxt")


def test_shared_blobs_have_one_set_of_multipliers(folder: Path) -> None:
    """What only the second layer states counts, as in Caffe; what both state must be equal."""
    (parameter,) = twins(folder, "decay_mult: 0", "lr_mult: 3").net.parameters()
    assert (parameter.layer, parameter.lr_mult, parameter.decay_mult) == ("one", 3.0, 0.0)
    (parameter,) = twins(folder, "lr_mult: 2", "lr_mult: 2").net.parameters()
    assert (parameter.lr_mult, parameter.decay_mult) == (2.0, 1.0)
    message = r'net.prototxt:5: layer "two" .*: blob 0 shares "w" with layer "one" but has lr_mult 3, it was 2 before'
    with pytest.raises(PrototxtError, match=message):
        twins(folder, "lr_mult: 2", "lr_mult: 3")


def test_gradients_of_shared_blobs_add_up_and_any_top_may_be_a_loss(folder: Path) -> None:
    """The loss is half the sum of x W' W'; its gradient by two separate copies of W, added."""
    (folder / "solver.prototxt").write_text(PLAIN)
    solver = twins(folder, "", "")
    before = torch.from_numpy(solver.net.weights()["one"][0])
    x = random_feed(0)["data"]
    copies = [before.clone().requires_grad_() for _ in range(2)]
    (0.5 * (x @ copies[0].T @ copies[1].T).sum()).backward()  # type: ignore[no-untyped-call]
    wanted = before - sum(copy.grad for copy in copies)  # type: ignore[misc]
    solver.step({"data": x})
    np.testing.assert_allclose(solver.net.weights()["one"][0], wanted, rtol=1e-5, atol=1e-6)
    assert np.array_equal(solver.net.weights()["two"][0], solver.net.weights()["one"][0])


def test_a_frozen_layer_stays_and_needs_no_gradient(folder: Path) -> None:
    """Caffe's average of its gradient still takes up the weight decay: Adam's m is (1 - momentum) decay w."""
    top = 'bottom: "data" top: "ip1"'
    (folder / "net.prototxt").write_text(NET.replace(top, top + " param { lr_mult: 0 } param { lr_mult: 0 }"))
    (folder / "solver.prototxt").write_text(SOLVER + 'type: "Adam"')
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    solver.snapshot_prefix = str(folder / "snap")
    before = solver.net.weights()
    assert [p.tensor.requires_grad for p in solver.net.parameters()] == [False, False, True, True]
    solver.step(random_feed(0))
    after = solver.net.weights()
    assert np.array_equal(after["ip1"][0], before["ip1"][0])
    assert not np.array_equal(after["ip3"][0], before["ip3"][0])
    kept = read_solverstate(solver.snapshot()).history[0]
    np.testing.assert_allclose(kept, (1 - 0.9) * 0.01 * before["ip1"][0], rtol=1e-5)


def test_with_every_layer_frozen_statistics_are_measured_anew(folder: Path) -> None:
    """A use that real nets have: lr_mult 0 everywhere, and forward passes that fill BatchNorm's blobs."""
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = NET.replace("inner_product_param", f"{frozen} inner_product_param").replace(
        'type: "Dropout" bottom: "ip1" top: "ip1"',
        f'type: "BatchNorm" bottom: "ip1" top: "ip1" {frozen} param {{ lr_mult: 0 }}',
    )
    (folder / "net.prototxt").write_text(net)
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    before = solver.net.weights()
    solver.step(random_feed(0))
    after = solver.net.weights()
    assert after["drop"][2] == 1.0
    assert all(np.array_equal(one, other) for one, other in zip(before["ip1"], after["ip1"], strict=True))


def test_a_net_may_be_trained_in_its_test_phase(folder: Path) -> None:
    """Without dropout, then; Caffe asks the learning rates alone what learns."""
    (folder / "solver.prototxt").write_text(PLAIN + "train_state { phase: TEST }")
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    before = solver.net.weights()["ip1"][0]
    losses = [solver.step(random_feed(0)).losses["loss"]]
    assert not np.array_equal(solver.net.weights()["ip1"][0], before)
    (folder / "solver.prototxt").write_text(PLAIN.replace("base_lr: 1", "base_lr: 0") + "train_state { phase: TEST }")
    again = Solver.from_prototxt(folder / "solver.prototxt")
    losses += [again.step(random_feed(0)).losses["loss"] for _ in range(2)]
    assert len(set(losses)) == 1


def test_bvlc_solvers_may_name_the_weights_to_start_from(folder: Path) -> None:
    """`weights`, several with commas between them; those given by hand count instead."""
    source = Solver.from_prototxt(folder / "solver.prototxt", seed=1).net.weights()
    for name in ("ip1", "ip3"):
        write_caffemodel(folder / f"{name}.caffemodel", {name: source[name]}, "small", {name: "InnerProduct"})
    (folder / "solver.prototxt").write_text(SOLVER + 'weights: "ip1.caffemodel, ip3.caffemodel"')
    solver = Solver.from_prototxt(folder / "solver.prototxt", seed=2, dialect="bvlc")
    for name in ("ip1", "ip3"):
        assert np.array_equal(solver.net.weights()[name][0], source[name][0])
    other = Solver.from_prototxt(folder / "solver.prototxt", {"ip1": source["ip1"]}, seed=2, dialect="bvlc")
    assert not np.array_equal(other.net.weights()["ip3"][0], source["ip3"][0])


def test_propagate_down_false_stops_the_gradient(folder: Path) -> None:
    kind = 'type: "InnerProduct" bottom: "ip1"'
    (folder / "net.prototxt").write_text(NET.replace(kind, kind + " propagate_down: false"))
    (folder / "solver.prototxt").write_text(PLAIN)
    solver = Solver.from_prototxt(folder / "solver.prototxt")
    before = solver.net.weights()
    solver.step(random_feed(0))
    assert np.array_equal(solver.net.weights()["ip1"][0], before["ip1"][0])
    assert not np.array_equal(solver.net.weights()["ip3"][0], before["ip3"][0])


def test_clipping_comes_before_the_division_by_iter_size(folder: Path) -> None:
    """SGD without momentum, base_lr 1: the step is the sum of both passes' gradients, clipped to 0.5, then halved."""
    (folder / "solver.prototxt").write_text(PLAIN + "iter_size: 2 clip_gradients: 0.5")
    solver = twins(folder, "", "")
    before = solver.net.weights()["one"][0]
    solver.step([{"data": 10 * random_feed(i)["data"]} for i in range(2)])
    assert np.linalg.norm(solver.net.weights()["one"][0] - before) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('lr_policy: "fixed"', 'lr_policy: "step" stepsize: 2', 'lr_policy "step" without gamma: the rate falls to 0'),
        ('lr_policy: "fixed"', 'lr_policy: "multistep" gamma: 0.1', "without stepvalue: the rate never falls"),
        ('lr_policy: "fixed"', 'lr_policy: "plateau" gamma: 0.1', "without plateau_winsize: the rate never falls"),
        (
            'lr_policy: "fixed"',
            'lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 3',
            r"the stepvalues \(5, 3\) do not rise",
        ),
        (
            'lr_policy: "fixed"',
            'lr_policy: "plateau" gamma: 0.1 plateau_winsize: 5 average_loss: 3',
            "a snapshot does not hold the average_loss",
        ),
        ("momentum: 0.9", "momentum: 9", "momentum is 9; outside 0 to less than 1"),
        ("momentum: 0.9", "snapshot_diff: true", "snapshots hold no gradients"),
        ("momentum: 0.9", "test_interval: 10", "test_interval without test_iter: nothing is tested"),
    ],
)
def test_what_caffe_takes_without_a_word_is_warned_about(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace(old, new))
    with pytest.warns(CaffeWarning, match=rf"solver.prototxt:1: .*{message}"):
        Solver.from_prototxt(folder / "solver.prototxt")


def test_a_usual_solver_warns_of_nothing(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    """solver_mode: GPU is Caffe's default, and what cannot change a result is passed over in silence."""
    (folder / "solver.prototxt").write_text(SOLVER + "solver_mode: GPU device_id: 3 debug_info: true display: 20")
    Solver.from_prototxt(folder / "solver.prototxt")
    assert [one for one in recwarn if issubclass(one.category, CaffeWarning)] == []


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
        ("momentum: 0.9", "snapshot: -1", "snapshot is -1; allowed: 0 or more"),
        ('lr_policy: "fixed"', 'lr_policy: "inv" gamma: -1', 'gamma is -1; for lr_policy "inv" allowed: 0 or more'),
        ("momentum: 0.9", 'momentum: 1 type: "Adam"', "momentum is 1; for type Adam allowed: 0 to less than 1"),
        ("momentum: 0.9", 'type: "SGD" solver_type: SGD', "found type and the older solver_type; give one"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'lr_policy: "plateau" gamma: 0.1',
            'unknown lr_policy "plateau" .known: fixed, step, exp, inv, multistep, poly',
        ),
        ('lr_policy: "sigmoid" gamma: 0.1', 'lr_policy "sigmoid" needs a stepsize of 1 or more'),
        ('lr_policy: "sigmoid" gamma: -0.1 stepsize: 3', "gamma is -0.1"),
    ],
)
def test_bvlc_caffe_asks_for_more(folder: Path, text: str, message: str) -> None:
    """The other two know plateau, and take a sigmoid that falls."""
    (folder / "solver.prototxt").write_text(SOLVER.replace('lr_policy: "fixed"', text + " plateau_winsize: 3"))
    Solver.from_prototxt(folder / "solver.prototxt", dialect="extended")
    (folder / "solver.prototxt").write_text(SOLVER.replace('lr_policy: "fixed"', text))
    with pytest.raises(PrototxtError, match=message):
        Solver.from_prototxt(folder / "solver.prototxt", dialect="bvlc")
