"""The nets a solver tests beside the one it trains."""

from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_models.errors import NetError, PrototxtError
from caffe_models.solver import Solver

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
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "goal" top: "loss" loss_weight: 3 }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 3\n'


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def write(folder: Path, text: str = "") -> Path:
    (folder / "solver.prototxt").write_text(SOLVER + text)
    return folder / "solver.prototxt"


def feed(number: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(number)
    return {k: torch.from_numpy(rng.normal(size=(2, n)).astype(np.float32)) for k, n in (("data", 3), ("goal", 2))}


def test_they_share_the_weights_and_leave_the_training_as_it_is(folder: Path) -> None:
    """Scores are means over test_iter; dropout does nothing in TEST; trained losses are those without tests."""
    plain = Solver.from_prototxt(write(folder))
    losses = [plain.step(feed(i)).losses for i in range(4)]
    path = write(folder, "test_iter: 2 test_interval: 2 test_compute_loss: true")
    solver = Solver.from_prototxt(path)
    (net,) = solver.add_test_nets(path)
    due, found = [], []
    for i in range(4):
        due.append(solver.test_is_due)
        scores = solver.test(0, [feed(100), feed(101)])
        (w1, b1), (w3, b3) = (solver.net.weights()[name] for name in ("ip1", "ip3"))
        wanted = 0.0
        for one in (feed(100), feed(101)):
            out = (one["data"].numpy() @ w1.T + b1) @ w3.T + b3
            wanted += float(((out - one["goal"].numpy()) ** 2).sum()) / 4 / 2
        assert scores.scores == {"loss": pytest.approx(wanted, rel=1e-5)}
        assert scores.loss == pytest.approx(3 * wanted, rel=1e-5)
        found.append(solver.step(feed(i)).losses)
    assert due == [True, False, True, False]
    assert found == losses
    assert net.layers[2].blobs[0] is solver.net.layers[2].blobs[0]
    with pytest.raises(NetError, match="1 feeds for test_iter 2"):
        solver.test(0, [feed(1)])


def test_the_first_test_may_be_left_out(folder: Path) -> None:
    path = write(folder, "test_iter: 1 test_interval: 1 test_initialization: false")
    solver = Solver.from_prototxt(path)
    assert not solver.test_is_due
    solver.step(feed(0))
    assert solver.test_is_due


def test_outputs_of_several_numbers_are_lists(folder: Path) -> None:
    (folder / "net.prototxt").write_text(NET.replace('name: "loss"', 'name: "loss" include { phase: TRAIN }'))
    path = write(folder, "test_iter: 1 test_interval: 1")
    solver = Solver.from_prototxt(path)
    solver.add_test_nets(path)
    scores = solver.test(0, [feed(0)])
    assert {top: np.shape(value) for top, value in scores.scores.items()} == {"goal": (4,), "ip2": (4,)}
    assert scores.loss is None


def test_they_may_be_files_texts_and_states(folder: Path) -> None:
    """test_net_param first, then test_net, then the train net once for each test_iter left, as in Caffe."""
    (folder / "other.prototxt").write_text(NET.replace('name: "small"', 'name: "other"'))
    nets = f'test_net: "other.prototxt" test_net_param {{ {NET.replace("small", "inline")} }} test_interval: 1 '
    states = 'test_state {} test_state { stage: "two" } test_state { level: 1 }'
    path = write(folder, nets + "test_iter: 1 test_iter: 1 test_iter: 1 " + states)
    found = Solver.from_prototxt(path).add_test_nets(path)
    assert [net.name for net in found] == ["inline", "other", "small"]
    assert [net.layers[4].spec.name for net in found] == ["ip3", "ip2", "ip3"]
    assert all(layer.spec.phase == "TEST" for net in found for layer in net.layers)


def test_other_shapes_are_refused(folder: Path) -> None:
    (folder / "other.prototxt").write_text(NET.replace("num_output: 4", "num_output: 5"))
    path = write(folder, 'test_net: "other.prototxt" test_iter: 1 test_interval: 1')
    solver = Solver.from_prototxt(path)
    with pytest.raises(PrototxtError, match=r'other.prototxt:5: layer "ip1" .*\(5, 3\).*\(4, 3\).*must be equal'):
        solver.add_test_nets(path)


def test_train_state_may_say_the_phase_and_the_solver_the_engine(folder: Path) -> None:
    net = Solver.from_prototxt(write(folder, "train_state { phase: TEST }")).net
    assert {layer.spec.phase for layer in net.layers} == {"TEST"}
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "ip1" top: "bn" }\nlayer { name: "loss"'
    (folder / "net.prototxt").write_text(NET.replace('layer { name: "loss"', norm))
    path = write(folder, 'engine: "MKL2017"')
    assert len(Solver.from_prototxt(path, dialect="extended").net.weights()["bn"]) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test_iter: 3", "test_interval is 0; with test_iter it must be 1 or more"),
        ("test_iter: 0 test_interval: 1", "test_iter is 0; allowed: 1 or more"),
        ('test_net: "a" test_net: "b" test_iter: 1', "1 test_iter for 2 test nets; allowed: one for each or more"),
        ("test_iter: 1 test_interval: 1 test_state {} test_state {}", "2 test_state for 1 test nets; give one each"),
    ],
)
def test_counts_that_do_not_go_together_are_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=rf"solver.prototxt:[12]: {message}"):
        Solver.from_prototxt(write(folder, text))
