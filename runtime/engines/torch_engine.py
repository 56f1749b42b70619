"""PyTorch: runs the prototxt and the caffemodel themselves, without any conversion; slower than the others."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from runtime.engines.base import Engine, EngineOptions, Voxels, as_input, check_blobs, check_window


class TorchEngine:
    """A Net in PyTorch, channels last, under autocast for bf16. Sets PyTorch's number of threads, which is global."""

    name = "torch"

    def __init__(self, model: Path, options: EngineOptions) -> None:
        if options.weights is None:
            raise NetError(f"{model}: engine torch needs the weights too: name the .caffemodel")
        net = Net.from_prototxt(model)
        check_blobs(model, net.inputs, net.outputs)
        report = net.load(read_caffemodel(options.weights), str(options.weights))
        if report.missing:
            raise NetError(f"{options.weights}: has no weights for layer {report.missing[0]} of {model}")
        torch.set_num_threads(options.threads)
        net.to_torch(channels_last=True)
        self._net = net
        self.precision = "bf16" if options.precision == "bf16" else "f32"
        self.notes: tuple[str, ...] = (
            ("engine torch has no int8: ran in f32; use openvino",) if options.precision == "int8" else ()
        )

    def __call__(self, data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        check_window(data, coord)
        inputs = {"data": torch.from_numpy(as_input(data)), "coord": torch.from_numpy(coord)}
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            head = self._net.forward(inputs)["head"]
        return np.ascontiguousarray(head.float().numpy())

    def release(self) -> None:
        """Nothing is kept."""

    def keep_memory(self, on: bool) -> None:
        """The library decides for itself."""


def load(model: Path, options: EngineOptions) -> Engine:
    return TorchEngine(model, options)
