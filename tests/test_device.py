"""Where the run is trained."""

import pytest
import torch

from caffe_models.errors import Rpn3dError
from train.device import choose_device


@pytest.mark.parametrize(
    ("wanted", "processes", "gpu", "chosen"),
    [
        ("auto", 1, False, "cpu"),
        ("auto", 1, True, "cuda"),
        ("auto", 2, True, "cpu"),
        ("cpu", 1, True, "cpu"),
        ("cuda", 1, True, "cuda"),
        ("cuda", 1, False, r"--device cuda: PyTorch .* sees no GPU; .* --device cpu"),
        ("cuda", 2, True, r"--processes 2 share the batch on CPUs alone"),
        ("tpu", 1, True, r'--device "tpu" is not known; allowed: auto, cpu, cuda'),
    ],
)
def test_the_device(monkeypatch: pytest.MonkeyPatch, wanted: str, processes: int, gpu: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if " " not in chosen:
        assert choose_device(wanted, processes) == chosen
        return
    with pytest.raises(Rpn3dError, match=chosen):
        choose_device(wanted, processes)
