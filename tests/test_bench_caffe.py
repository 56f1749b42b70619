"""The engine's benchmark, small; and that it measures equal things. Bounds are loose: CI machines are shared."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bench.plain_torch
from bench.caffe_engine import bench_caffe, table, write_json
from caffe_models.errors import NetError, Rpn3dError
from caffe_models.net import Net
from commands.options import NET, WEIGHTS


def test_figures_table_and_file(tmp_path: Path) -> None:
    said: list[str] = []
    found = bench_caffe(NET, WEIGHTS, crops=(32,), runs=1, layouts=["channels-last"], backward=False, say=said.append)
    assert [(pair.what, pair.crop) for pair in found.pairs] == [("forward", 32)]
    assert all(pair.difference <= 1e-4 and pair.engine_s > 0 and pair.module_s > 0 for pair in found.pairs)
    assert found.files_s["read_caffemodel"] < 1
    assert found.files_s["build_net"] < 3
    assert found.files_s["export_onnx"] < 6
    blob = 24 * 32**3 * 4  # bytes of a blob at full resolution; the first two convolutions need two at once
    for peak in found.peaks:
        assert 1.5 * blob < peak.engine_bytes < 40 * blob
        assert 1.5 * blob < peak.module_bytes < 40 * blob
    written = json.loads(write_json(found, tmp_path / "bench_caffe.json").read_text())
    assert written["pairs"][0]["ratio"] == pytest.approx(found.pairs[0].engine_s / found.pairs[0].module_s)
    text = table(written)
    assert found.machine.cpu in text
    assert all(line in text for line in said[1:])


def test_nothing_is_timed_where_engine_and_module_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    load = bench.plain_torch.load_caffe

    def load_wrongly(module: nn.Module, weights: Any) -> None:
        load(module, weights)
        with torch.no_grad():
            module.get_parameter("forw2.1.conv2.bias").add_(0.1)

    monkeypatch.setattr(bench.plain_torch, "load_caffe", load_wrongly)
    with pytest.raises(NetError, match=r"engine and module differ by .* \(forward, crop 32, contiguous\)"):
        bench_caffe(NET, WEIGHTS, crops=(32,), runs=1, backward=False, memory=False)
    with pytest.raises(ValueError, match="no module for stranger"):
        load(bench.plain_torch.PlainRpn3d(), {**_weights(), "stranger": []})


@pytest.mark.parametrize(("crops", "runs"), [((), 1), ((24,), 1), ((16,), 1), ((32,), 0)])
def test_crops_and_runs_that_cannot_be_measured(crops: tuple[int, ...], runs: int) -> None:
    with pytest.raises(Rpn3dError, match="multiples of 16 from 32 on, 1 or more"):
        bench_caffe(NET, WEIGHTS, crops=crops, runs=runs)


def test_every_relu_of_the_deploy_net_works_in_place() -> None:
    """What keeps the engine as fast and as small as the module written by hand."""
    net = Net.from_prototxt(NET)
    relus = {index for index, layer in enumerate(net.layers) if layer.spec.type == "ReLU"}
    assert len(relus) == 37
    assert relus <= net.graph.overwritten


def _weights() -> Any:
    from caffe_models.weights import read_caffemodel

    return read_caffemodel(WEIGHTS)
