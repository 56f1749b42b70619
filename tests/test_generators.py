"""The prototxt files of rpn3d: what the generator writes is what stands there, and it is the net of 151 layers."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

import train.python_layers  # noqa: F401  (registers the Python layers)
from caffe_models.generators import rpn3d
from caffe_models.layers.batch_norm import BatchNorm
from caffe_models.net import Net
from caffe_models.solver_settings import read_settings
from caffe_models.text_format import read_text

COUNTS = {
    "Convolution": 40,
    "BatchNorm": 40,
    "ReLU": 37,
    "Eltwise": 16,
    "Pooling": 4,
    "Deconvolution": 2,
    "Concat": 3,
    "Dropout": 1,
    "Reshape": 2,
    "Python": 3,
    "SigmoidCrossEntropyLoss": 2,
    "SmoothL1Loss": 1,
}
TRAINING_ONLY = ("Python", "Reshape", "SigmoidCrossEntropyLoss", "SmoothL1Loss")


@pytest.fixture(scope="module")
def nets(root: Path) -> dict[str, Net]:
    folder = root / "prototxt" / "rpn3d"
    found = {name: Net.from_prototxt(folder / f"{name}.prototxt", "TRAIN") for name in ("train_32", "train_128")}
    return {**found, "deploy": Net.from_prototxt(folder / "deploy.prototxt")}


def test_text_and_generator_agree(root: Path) -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in (root / "prototxt" / "rpn3d").glob("*.prototxt")}
    assert texts == rpn3d.generate(), "run python -m caffe_models.generators.rpn3d"


def test_write_makes_all_files(tmp_path: Path) -> None:
    assert sorted(path.name for path in rpn3d.write(tmp_path)) == sorted(path.name for path in tmp_path.iterdir())
    assert len(rpn3d.generate()) == 10


def test_the_151_layers(nets: dict[str, Net]) -> None:
    assert sum(COUNTS.values()) == 151
    for name in ("train_32", "train_128"):
        assert Counter(layer.spec.type for layer in nets[name].layers) == COUNTS


def test_crop_sizes_differ_in_crops_and_in_how_many_negatives_are_chosen() -> None:
    texts = rpn3d.generate()
    settings = re.compile(r'(layer: "(?:crops|hard_negatives)" param_str: )".*\}"')
    stripped = {settings.sub(r"\1", texts[f"train_{n}.prototxt"]) for n in (32, 64, 128)}
    assert len(stripped) == 1
    assert len({texts[f"train_{n}.prototxt"] for n in (32, 64, 128)}) == 3


def test_negatives_are_chosen_from_few_until_the_net_knows_something() -> None:
    texts = rpn3d.generate()
    pools = [int(re.findall(r'\\"pool\\": (\d+)', texts[stage.net])[0]) for stage in rpn3d.STAGES]
    assert pools == [20, 800, 6400, 800, 6400]


def test_the_weighted_net_differs_in_its_two_classification_losses(root: Path) -> None:
    net = Net.from_prototxt(root / "prototxt" / "rpn3d" / "train_128_weighted.prototxt", "TRAIN")
    moved = {"SigmoidCrossEntropyLoss": 0, "Python": 5}
    assert Counter(layer.spec.type for layer in net.layers) == Counter({**COUNTS, **moved})
    assert dict(net.loss_tops) == {"loss_pos": 0.5, "loss_neg": 0.5, "loss_reg": 1.0}
    frozen = [layer.params.use_global_stats for layer in net.layers if isinstance(layer, BatchNorm)]
    assert frozen == [True] * COUNTS["BatchNorm"]


def test_deploy_and_train_share_all_weights(nets: dict[str, Net]) -> None:
    shapes = {
        name: {layer.spec.name: [tuple(b.shape) for b in layer.blobs] for layer in net.layers if layer.blobs}
        for name, net in nets.items()
    }
    assert shapes["deploy"] == shapes["train_32"] == shapes["train_128"]
    kept = [layer.spec.name for layer in nets["train_32"].layers if layer.spec.type not in TRAINING_ONLY]
    assert [layer.spec.name for layer in nets["deploy"].layers if layer.spec.type != "Input"] == kept


def test_parameters(nets: dict[str, Net]) -> None:
    learnt = [p for p in nets["train_32"].parameters() if p.lr_mult]
    assert round(sum(math.prod(p.tensor.shape) for p in learnt) / 1e6, 2) == 5.38
    fixed = {(p.layer, p.index) for p in nets["train_32"].parameters() if not p.lr_mult}
    assert fixed == {(n.spec.name, i) for n in nets["train_32"].layers if n.spec.type == "BatchNorm" for i in range(3)}
    deconvolution = {p.index: p.lr_mult for p in nets["train_32"].parameters() if p.layer == "path1_deconv"}
    assert deconvolution == {0: 1.0, 1: 2.0}


def test_shapes(nets: dict[str, Net]) -> None:
    net = nets["deploy"]
    assert net.inputs == {"data": (1, 1, 128, 128, 128), "coord": (1, 3, 32, 32, 32)}
    assert net.outputs == ("head",)
    extents = {"preBlock_bn2": (24, 128), "forw1_2_sum": (32, 64), "forw2_2_sum": (64, 32), "forw3_3_sum": (64, 16)}
    extents |= {"forw4_3_sum": (64, 8), "path1_bn": (64, 16), "back3_concat": (128, 16), "back3_3_sum": (64, 16)}
    extents |= {"path2_bn": (64, 32), "back2_coord": (131, 32), "back2_3_sum": (128, 32), "head": (15, 32)}
    assert {name: net.shapes[name] for name in extents} == {n: (1, c, e, e, e) for n, (c, e) in extents.items()}
    other = net.infer({"data": (2, 1, 48, 64, 32), "coord": (2, 3, 12, 16, 8)})
    assert other["head"] == (2, 15, 12, 16, 8)


@pytest.mark.parametrize(("crop", "expected"), [(32, 2.64), (64, 21.1), (128, 168.7)])
def test_multiply_adds_per_crop(nets: dict[str, Net], crop: int, expected: float) -> None:
    net, cells = nets["deploy"], crop // 4
    shapes = net.infer({"data": (1, 1, crop, crop, crop), "coord": (1, 3, cells, cells, cells)})
    total = 0
    for layer in net.layers:
        if layer.spec.type in ("Convolution", "Deconvolution"):
            blob = layer.spec.tops[0] if layer.spec.type == "Convolution" else layer.spec.bottoms[0]
            total += math.prod(layer.blobs[0].shape) * math.prod(shapes[blob][2:])
    assert total / 1e9 == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("stage", rpn3d.STAGES, ids=lambda stage: stage.name)
def test_solvers(root: Path, stage: rpn3d.Stage) -> None:
    message = read_text(root / "prototxt" / "rpn3d" / f"solver_{stage.name}.prototxt", "SolverParameter")
    settings = read_settings(message)
    base_lr = {32: 0.01, 64: 0.0025, 128: 0.0006}[stage.crop]  # falls with the batch: 16, 4, 1
    refines = stage.name.startswith("level")
    assert (settings.type, settings.policy.name) == ("SGD", "poly" if refines else "step")
    assert (settings.policy.base_lr, settings.rule.momentum, settings.weight_decay) == (base_lr, 0.9, 1e-4)
    assert settings.policy.power == 1 if refines else settings.policy.gamma == 0.1
    assert settings.max_iter == stage.max_iter
    assert message.get_str("net") == stage.net
    assert message.get_str("solver_mode") == "CPU"
