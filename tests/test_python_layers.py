"""The Python layers of the train nets, alone on small blobs, and in the whole net."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe_models.errors import NetError, PrototxtError
from caffe_models.generators.rpn3d import train_net
from caffe_models.net import Net
from caffe_models.solver import Solver
from caffe_models.text_format import parse_text
from train.python_layers import CropBatch, set_source

CELLS = 64  # 4 x 4 x 4


def crop_batch(size: int, crops: int, nodules: list[list[float]], seed: int = 0) -> CropBatch:
    rng = np.random.default_rng(seed)
    rows = np.full((crops, 12, 5), -1, np.float32)
    if nodules:
        rows[:, : len(nodules)] = nodules
    return CropBatch(
        data=rng.normal(size=(crops, 1, size, size, size)).astype(np.float32),
        coord=np.zeros((crops, 3, *[size // 4] * 3), np.float32),
        nodules=rows,
        mining=np.ones(crops, np.float32),
    )


def layer_net(layer: str, inputs: dict[str, tuple[int, ...]], tops: list[str], param: str = "{}") -> Net:
    text = ""
    for blob, shape in inputs.items():
        dims = " ".join(f"dim: {n}" for n in shape)
        text += f'layer {{ name: "{blob}" type: "Input" top: "{blob}" input_param {{ shape {{ {dims} }} }} }}\n'
    wiring = "".join(f' bottom: "{blob}"' for blob in inputs) + "".join(f' top: "{top}"' for top in tops)
    text += f'layer {{ name: "{layer}" type: "Python"{wiring} python_param {{ module: "rpn3d" layer: "{layer}" '
    text += f"param_str: '{param}' }} }}"
    return Net.from_message(parse_text(text, "NetParameter"), "TRAIN").to_torch()


def choose(head: torch.Tensor, target: torch.Tensor, mining: list[float], param: str) -> dict[str, torch.Tensor]:
    tops = ["pos_logit", "pos_label", "neg_logit", "neg_label", "delta", "delta_target", "inside", "outside"]
    shape = tuple(head.shape)
    net = layer_net("hard_negatives", {"head": shape, "target": shape, "mining": shape[:1]}, tops, param)
    values = net.forward({"head": head, "target": target, "mining": torch.tensor(mining)})
    assert {top: tuple(values[top].shape) for top in tops} == {top: net.shapes[top] for top in tops}
    return values


@pytest.fixture
def head() -> torch.Tensor:
    return torch.randn(2, 3, 5, CELLS, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_targets_stand_in_the_layout_of_the_head() -> None:
    net = layer_net("targets", {"nodules": (2, 3, 5), "head": (2, 15, 4, 4, 4)}, ["target"])
    nodules = torch.full((2, 3, 5), -1.0)
    nodules[1, 0] = torch.tensor([5.5, 9.5, 1.5, 10.0, 1.0])
    target = net.forward({"nodules": nodules, "head": torch.zeros(2, 15, 4, 4, 4)})["target"]
    assert not target[0].any()
    assert torch.nonzero(target[:, ::5] == 1).tolist() == [[1, 1, 1, 2, 0]]


def test_the_hardest_negatives_of_the_batch_are_chosen(head: torch.Tensor) -> None:
    """Two crops, three places each: the six highest logits of background, from wherever they are."""
    target = torch.zeros(2, 3, 5, CELLS)
    target[0, :, 0, :32] = -1.0
    values = choose(head, target, [1.0, 1.0], '{"num_hard": 3}')
    background = head[:, :, 0][target[:, :, 0] == 0]
    wanted = background.sort(descending=True).values[:6]
    torch.testing.assert_close(values["neg_logit"][:, 0].sort(descending=True).values, wanted)
    assert values["neg_label"].tolist() == [[0.0]] * 6


def test_a_crop_that_must_not_be_mined_gives_random_negatives(head: torch.Tensor) -> None:
    """Its logits lie above all others, yet of its 192 anchors three are drawn by chance, not the three highest."""
    high = torch.cat([head[:1], head[1:] + 100.0])
    torch.manual_seed(0)
    values = [choose(high, torch.zeros(2, 3, 5, CELLS), [1.0, 0.0], '{"num_hard": 3}') for _ in range(5)]
    own = [v["neg_logit"][:, 0][v["neg_logit"][:, 0] > 50] for v in values]
    assert [len(one) for one in own] == [3] * 5
    assert len({tuple(one.tolist()) for one in own}) == 5
    mined = head[0, :, 0].flatten().sort(descending=True).values[:3]
    for one in values:
        assert set(mined.tolist()) <= set(one["neg_logit"][:, 0].tolist())


def test_a_pool_bounds_how_hard_the_negatives_are(head: torch.Tensor) -> None:
    values = choose(head, torch.zeros(2, 3, 5, CELLS), [1.0, 1.0], '{"num_hard": 3, "pool": 3}')
    assert values["neg_logit"].min() < head[:, :, 0].sort().values.quantile(0.9)


def test_positives_and_what_fills_up(head: torch.Tensor) -> None:
    target = torch.zeros(2, 3, 5, CELLS)
    target[0, 1, :, 7] = torch.tensor([1.0, 0.1, 0.2, 0.3, 0.4])
    target[1, 2, :, 9] = torch.tensor([1.0, -0.1, -0.2, -0.3, -0.4])
    values = choose(head, target, [1.0, 1.0], '{"max_positives": 4}')
    assert values["pos_label"][:, 0].tolist() == [1, 1, -1, -1, -1, -1, -1, -1]
    torch.testing.assert_close(values["pos_logit"][:2, 0], torch.stack([head[0, 1, 0, 7], head[1, 2, 0, 9]]))
    torch.testing.assert_close(values["delta"][:2], torch.stack([head[0, 1, 1:, 7], head[1, 2, 1:, 9]]))
    torch.testing.assert_close(
        values["delta_target"][:2], torch.tensor([[0.1, 0.2, 0.3, 0.4]]) * torch.tensor([[1.0], [-1]])
    )
    assert values["inside"][:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert values["outside"][:, 0].tolist() == [4, 4, 0, 0, 0, 0, 0, 0]  # 8 rows for 2 positives


def test_more_positives_than_places(head: torch.Tensor) -> None:
    target = torch.zeros(2, 3, 5, CELLS)
    target[:, :, 0] = 1.0
    values = choose(head, target, [1.0, 1.0], '{"max_positives": 4, "num_hard": 2}')
    assert values["pos_label"].tolist() == [[1.0]] * 8
    assert values["neg_label"].tolist() == [[-1.0]] * 4


def small_net(folder: Path, crop: int = 16, batch: int = 2) -> Path:
    (folder / "train.prototxt").write_text(train_net(crop, batch))
    (folder / "solver.prototxt").write_text('net: "train.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9')
    return folder / "solver.prototxt"


def test_the_three_losses_are_those_of_the_team(tmp_path: Path) -> None:
    """0.5 mean BCE of positives + 0.5 mean BCE of negatives + sum of smooth L1 over the number of positives."""
    net = Solver.from_prototxt(small_net(tmp_path)).net
    set_source(net, lambda: crop_batch(16, 2, [[5.5, 9.5, 1.5, 10.0, 1.0], [9.5, 1.5, 9.5, 5.0, 1.0]]))
    tops = ["pos_logit", "pos_label", "neg_logit", "delta", "delta_target"]
    values = {name: value.detach() for name, value in net.forward({}, keep=tops).items()}
    count = int((values["pos_label"] == 1).sum())
    assert count == 4
    positive, negative = values["pos_logit"][:count], values["neg_logit"]
    torch.testing.assert_close(values["loss_pos"], torch.log1p(torch.exp(-positive)).mean())
    torch.testing.assert_close(values["loss_neg"], torch.log1p(torch.exp(negative)).mean())
    size = (values["delta"] - values["delta_target"])[:count].abs()
    smooth = torch.where(size < 1, 0.5 * size**2, size - 0.5)
    torch.testing.assert_close(values["loss_reg"], smooth.sum() / count)
    total = 0.5 * values["loss_pos"] + 0.5 * values["loss_neg"] + values["loss_reg"]
    torch.testing.assert_close(net.total_loss(values), total)


def test_a_batch_without_nodules_costs_nothing_but_its_negatives(tmp_path: Path) -> None:
    solver = Solver.from_prototxt(small_net(tmp_path))
    set_source(solver.net, lambda: crop_batch(16, 2, []))
    result = solver.step()
    assert result.losses["loss_pos"] == 0
    assert result.losses["loss_reg"] == 0
    assert 0 < result.losses["loss_neg"] < 100
    assert all(np.isfinite(blob).all() for blobs in solver.net.weights().values() for blob in blobs)


def test_the_net_learns_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    """A batch learnt by heart; its random choices and dropout repeat after a restart."""
    torch.set_num_threads(1)
    path = small_net(tmp_path)

    def fresh() -> Solver:
        solver = Solver.from_prototxt(path, seed=1)
        solver.snapshot_prefix = str(tmp_path / "run")
        set_source(solver.net, iter(lambda: crop_batch(16, 2, [[5.5, 9.5, 1.5, 10.0, 1.0]]), None))
        return solver

    solver = fresh()
    losses = [solver.step().total_loss for _ in range(8)]
    state = solver.snapshot()
    assert np.mean(losses[-2:]) < 0.7 * losses[0]
    after = [solver.step().losses for _ in range(2)]
    resumed = fresh()
    resumed.restore(state)
    assert [resumed.step().losses for _ in range(2)] == after


def test_the_last_level_learns_and_leaves_the_statistics_alone(tmp_path: Path) -> None:
    """In batches of one crop they would be of single crops, and detection would normalise by them."""
    path = small_net(tmp_path)
    before = Solver.from_prototxt(path)
    set_source(before.net, lambda: crop_batch(16, 2, [[5.5, 9.5, 1.5, 10.0, 1.0]]))
    before.step()
    (tmp_path / "train.prototxt").write_text(train_net(16, 1, weighted=True, frozen=True))
    solver = Solver.from_prototxt(path)
    was = before.net.weights()
    solver.net.load(was, "before")
    set_source(solver.net, lambda: crop_batch(16, 1, [[5.5, 9.5, 1.5, 10.0, 1.0]]))
    solver.step()
    now = solver.net.weights()
    statistics = {name for name, blobs in now.items() if len(blobs) == 5}
    assert len(statistics) == 40
    for name, blobs in now.items():
        kept = 3 if name in statistics else 0
        assert all(np.array_equal(a, b) for a, b in zip(blobs[:kept], was[name][:kept], strict=True)), name
        assert any(not np.array_equal(a, b) for a, b in zip(blobs[kept:], was[name][kept:], strict=True)), name


def test_crops_need_a_source_that_fits(tmp_path: Path) -> None:
    net = Solver.from_prototxt(small_net(tmp_path)).net
    with pytest.raises(NetError, match=r'train.prototxt:3: layer "crops": has no source of crops; call .*set_source'):
        net.forward({})
    set_source(net.layers[0], lambda: crop_batch(16, 1, []))
    with pytest.raises(NetError, match=r"gives data of shape \(1, 1, 16, 16, 16\); param_str asks for \(2, 1, 16"):
        net.forward({})
    with pytest.raises(NetError, match='"pool_0" has no Python layer "crops"'):
        set_source(next(layer for layer in net.layers if layer.spec.name == "pool_0"), lambda: crop_batch(16, 1, []))


@pytest.mark.parametrize(
    ("layer", "param", "message"),
    [
        ("hard_negatives", '{"hard": 5}', 'param_str has "hard" .allowed: num_hard, pool, max_positives'),
        ("hard_negatives", '{"pool": 1.5}', '"pool" is 1.5; allowed: a whole number above 0'),
        ("targets", '{"anchors": [5, -10]}', '"anchors" is -10; allowed: a number above 0'),
    ],
)
def test_settings_are_checked(layer: str, param: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message):
        layer_net(layer, {"head": (2, 3, 5, 8)}, ["top"], param)


def test_bottoms_are_checked() -> None:
    with pytest.raises(
        PrototxtError, match=r'"targets".*bottoms of shapes .*allowed: \(n, k, 5\) and \(n, 15, z, y, x\)'
    ):
        layer_net("targets", {"nodules": (2, 3, 5), "head": (2, 12, 4, 4, 4)}, ["target"])
    with pytest.raises(PrototxtError, match=r"has 1 bottom\(s\), allowed: 3"):
        layer_net("hard_negatives", {"head": (2, 3, 5, 8)}, [f"t{k}" for k in range(8)])


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    """PyTorch hands out new memory as NaN, so that reading what nobody wrote shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.parametrize("autocast", [False, True])
def test_nothing_reads_memory_that_nobody_wrote(tmp_path: Path, autocast: bool) -> None:
    solver = Solver.from_prototxt(small_net(tmp_path), autocast=autocast)
    set_source(solver.net, lambda: crop_batch(16, 2, [[5.5, 9.5, 1.5, 10.0, 1.0]]))
    result = solver.step()
    assert all(np.isfinite(loss) for loss in result.losses.values())
    weights = solver.net.weights()
    assert [(name, i) for name in weights for i, blob in enumerate(weights[name]) if not np.isfinite(blob).all()] == []


def weighted(logit: torch.Tensor, label: list[float], gamma: float = 1.0) -> torch.Tensor:
    net = layer_net(
        "weighted_loss", {"logit": tuple(logit.shape), "label": tuple(logit.shape)}, ["loss"], f'{{"gamma": {gamma}}}'
    )
    assert net.shapes["loss"] == ()
    return net.forward({"logit": logit, "label": torch.tensor(label)[:, None]})["loss"]


def test_the_weighted_loss_counts_a_sample_by_how_wrong_it_is() -> None:
    """Negatives at p = 0.5 and 0.75: losses ln 2 and ln 4, weights 0.5 and 0.75; a label of -1 counts nothing.

    (0.5 ln 2 + 0.75 ln 4) / 1.25 = 1.6 ln 2, where the plain mean would be 1.5 ln 2.
    """
    logit = torch.tensor([[0.0], [math.log(3.0)], [9.0]])
    assert float(weighted(logit, [0, 0, -1])) == pytest.approx(1.6 * math.log(2.0), rel=1e-6)
    assert float(weighted(logit, [0, 0, -1], gamma=2.0)) == pytest.approx(
        (0.25 + 0.5625 * 2) / 0.8125 * math.log(2.0), rel=1e-6
    )


def test_the_weights_of_the_weighted_loss_have_no_gradient_of_their_own() -> None:
    """d loss / d logit = w (p - label) / sum w: 0.5 * 0.5 / 1.25 and 0.75 * 0.75 / 1.25."""
    logit = torch.tensor([[0.0], [math.log(3.0)]], requires_grad=True)
    weighted(logit, [0, 0]).backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    assert logit.grad[:, 0].tolist() == pytest.approx([0.2, 0.45], rel=1e-6)


def test_the_weighted_loss_of_nothing_is_nothing() -> None:
    assert float(weighted(torch.tensor([[3.0], [4.0]]), [-1, -1])) == 0.0
