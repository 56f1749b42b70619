"""Batch normalisation with voxels side by side against PyTorch's own, and that the engine takes it."""

import math

import pytest
import torch

from caffe_models import folded_batch_norm
from caffe_models.folded_batch_norm import LEAST, batch_norm, rows_to_fold
from caffe_models.net import Net
from caffe_models.text_format import parse_text

SHAPE = (2, 24, 16, 16, 16)


def blob(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(shape, generator=made) + torch.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return x.to(dtype).to(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (4, 24, 32, 36), (2, 3, 32, 32, 32), (2, 40, 16, 16, 16)])
def test_it_is_as_close_to_the_truth_as_torch(shape: tuple[int, ...], scaled: bool, dtype: torch.dtype) -> None:
    channels = shape[1]
    x, weights = blob(shape, dtype), blob(shape, dtype, seed=1)

    def run(x: torch.Tensor, ours: bool) -> dict[str, torch.Tensor]:
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        gamma = torch.linspace(0.5, 2, channels, dtype=kind).requires_grad_() if scaled else None
        beta = torch.linspace(-1, 1, channels, dtype=kind).requires_grad_() if scaled else None
        if ours:
            y, mean, var = batch_norm(x, gamma, beta, 1e-5, 32 // math.gcd(channels, 32))
        else:
            mean, var = torch.zeros(channels, dtype=kind), torch.zeros(channels, dtype=kind)
            y = torch.batch_norm(x, gamma, beta, mean, var, True, 1.0, 1e-5, False)
        assert y.stride() == x.stride()
        assert mean.dtype == var.dtype == kind
        (y.to(kind) * weights.to(kind)).sum().backward()  # type: ignore[no-untyped-call]
        found = {"y": y.detach(), "mean": mean, "var": var, "x": x.grad}
        found |= {"gamma": gamma.grad, "beta": beta.grad} if gamma is not None and beta is not None else {}
        return {name: one.double() for name, one in found.items() if one is not None}

    truth, folded, plain = run(x.double(), ours=False), run(x, ours=True), run(x, ours=False)
    assert list(folded) == list(truth)
    for name, true in truth.items():
        error, torchs = (float((one[name] - true).norm() / true.norm()) for one in (folded, plain))
        assert error <= 1.5 * torchs + 1e-5, name


def test_only_what_gains_by_it_is_folded() -> None:
    assert blob((2, 24, 32, 32, 32)).numel() >= LEAST
    assert rows_to_fold(blob((2, 24, 32, 32, 32))) == 4
    assert rows_to_fold(blob((2, 24, 32, 32, 32)).contiguous()) == 1, "another layout"
    assert rows_to_fold(blob((2, 24, 32, 32, 32), torch.float64)) == 1, "another type"
    assert rows_to_fold(blob((2, 32, 32, 32, 32))) == 1, "as wide as a register"
    assert rows_to_fold(blob((2, 24, 8, 8, 8))) == 1, "small"
    assert rows_to_fold(blob((1, 24, 33, 33, 33))) == 1, "voxels that four do not divide"


def test_the_layer_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 24, 32, 32, 32)
    dims = " ".join(f"dim: {extent}" for extent in shape)
    text = (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
        'layer { name: "b" type: "BatchNorm" bottom: "data" top: "b" }'
    )
    given: list[int] = []

    def noted(x: torch.Tensor, gamma: None, beta: None, eps: float, fold: int) -> tuple[torch.Tensor, ...]:
        given.append(fold)
        return batch_norm(x, gamma, beta, eps, fold)

    monkeypatch.setattr(folded_batch_norm, "batch_norm", noted)
    found = []
    for folds in (True, False):
        if not folds:
            monkeypatch.setattr(folded_batch_norm, "rows_to_fold", lambda x: 1)
        net = Net.from_message(parse_text(text, "NetParameter", "extended", "net.prototxt"), "TRAIN", "extended")
        y = net.to_torch(channels_last=True).forward({"data": blob(shape)})["b"]
        found.append([y, *(torch.from_numpy(one) for one in net.weights()["b"])])
    assert given == [4]
    assert all(one.abs().max() > 0 for one in found[0])
    for folded, plain in zip(*found, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)
