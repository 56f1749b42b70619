"""Several processes that share a batch end as one that has all of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
import torch.distributed as dist

from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.solver import Solver
from caffe_models.text_format import parse_text
from caffe_models.weights import read_caffemodel
from train.dataset import load_folder, save
from train.distributed import ProcessShare, in_processes, rows_of, share_batch
from train.python_layers import CropBatch
from train.run import RunSettings, TrainingJob, train

SETTINGS = RunSettings(seed=3, autocast=False, threads=1, tensorboard=False, iterations=3)


def test_two_processes_have_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    """Crops of 32, batch 4 as 2 x 2; BatchNorm, dropout, targets, hard negatives of mined and other scans, SGD with
    momentum and decay."""
    solver = tiny_training.write(tmp_path / "nets", crop=32, batch=4)
    prepared = tmp_path / "prepared"
    for scan in (tiny_training.scan("a"), replace(tiny_training.scan("b", 1), mining=False)):
        save(scan, prepared)
    outs = {}
    for count in (1, 2):
        out = outs[count] = tmp_path / f"of{count}"
        job = TrainingJob((solver,), tuple(load_folder(prepared)), out, SETTINGS)
        said: list[str] = []
        assert in_processes(count, job, said.append) == out / "crop32" / "rpn3d_32_iter_3.caffemodel"
        assert len(said) == 1
    one, two = (tiny_training.results(outs[count]) for count in (1, 2))
    assert one.keys() == two.keys()
    for mine, theirs in zip(one["crop32/log.jsonl"], two["crop32/log.jsonl"], strict=True):
        assert all(value > 0 for value in mine["losses"].values())
        assert mine["losses"] == pytest.approx(theirs["losses"], abs=1e-5, rel=0)
    weights, others = (read_caffemodel(outs[count] / "crop32" / "rpn3d_32_iter_3.caffemodel") for count in (1, 2))
    for name, blobs in weights.items():
        # of the layer's largest: the gradient of a bias in front of a BatchNorm is 0, and what it gets is rounding
        near = 1e-4 * max(float(np.abs(blob).max()) for blob in blobs)
        for blob, other in zip(blobs, others[name], strict=True):
            np.testing.assert_allclose(other, blob, rtol=0, atol=near, err_msg=name)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[ProcessShare]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1)
    yield ProcessShare(0, 1)
    dist.destroy_process_group()


def test_shared_batch_norm_is_batch_norm(alone: ProcessShare) -> None:
    """Against PyTorch's, where the share is everything: outputs, statistics and all three gradients."""
    torch.manual_seed(0)
    results = []
    x = torch.randn(3, 4, 5, 6, 7) * 3 + 2
    target = torch.randn(x.shape)
    for shared in (True, False):
        inputs = [x.clone().requires_grad_(), *(torch.linspace(0.5, 2, 4).requires_grad_() for _ in range(2))]
        if shared:
            y, mean, var = alone.batch_norm(inputs[0], inputs[1], inputs[2], 1e-5)
        else:
            mean, var = torch.zeros(4), torch.zeros(4)
            y = torch.batch_norm(inputs[0], inputs[1], inputs[2], mean, var, True, 1.0, 1e-5, False)
        (y * target).sum().backward()  # type: ignore[no-untyped-call]
        results.append([y, mean, var, *(one.grad for one in inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


class Second:
    """The second half of a batch, without anybody else."""

    rank, processes = 1, 2

    rows, own = ProcessShare.rows, ProcessShare.own


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_dropout_has_the_mask_of_the_whole_batch(layout: torch.memory_format) -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 dim: 5 } } }
    layer { name: "d" type: "Dropout" bottom: "x" top: "d" dropout_param { dropout_ratio: 0.3 } }"""
    net = Net.from_message(parse_text(text, "NetParameter"), "TRAIN").to_torch()
    x = torch.randn(4, 3, 5, 5, 5).to(memory_format=layout)
    torch.manual_seed(5)
    whole, after = net.forward({"x": x})["d"], torch.rand(1)
    net.layers[1].share = Second()  # type: ignore[assignment]
    torch.manual_seed(5)
    half = net.forward({"x": x[2:]})["d"]
    assert torch.equal(half, whole[2:])
    assert torch.rand(1) == after


def test_each_process_takes_its_own_crops() -> None:
    arrays = [np.arange(6, dtype=np.float32) + 10 * k for k in range(4)]
    parts = [rows_of(lambda _: CropBatch(*arrays), ProcessShare(rank, 3))(0) for rank in range(3)]
    assert [part.nodules.tolist() for part in parts] == [[20, 21], [22, 23], [24, 25]]
    assert json.dumps(parts[1].mining.tolist()) == "[32.0, 33.0]"


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    """Before anything is trained: the level whose batch it is may come days later."""
    paths = [tiny_training.write(tmp_path, batch=6), tiny_training.write(tmp_path, batch=4, crop=32)]
    wanted = r"3 processes cannot share a batch of 4 evenly; allowed: 1, 2, 4 processes"
    with pytest.raises(NetError, match=rf"solver_32\.prototxt: {wanted}"):
        train(paths, [], tmp_path / "out", SETTINGS, print, share=ProcessShare(0, 3))
    assert not (tmp_path / "out").exists()
    with pytest.raises(NetError, match=rf"train_32\.prototxt: {wanted}"):
        share_batch(Solver.from_prototxt(paths[1]), ProcessShare(0, 3))
