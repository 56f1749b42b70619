"""Im2col: the windows of a convolution as channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, register
from caffe_models.nd import convolved, per_axis, read_axes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Im2colParams:
    """The geometry of a ConvolutionParameter; sizes are as written: empty, one for all axes, or one each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]


@register("Im2col")
class Im2col(Layer):
    """Channel c * K + k of the top is channel c of the bottom, shifted by place k of the K places of the kernel."""

    spatial_axes = (1, 3)
    fresh_tops = True

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("convolution_param")
        self.params = Im2colParams(
            kernel=read_axes(message, "kernel_size", spec, "kernel"),
            stride=read_axes(message, "stride", spec),
            pad=read_axes(message, "pad", spec),
            dilation=read_axes(message, "dilation", spec),
        )
        if not self.params.kernel or any(one < 1 for one in self.params.kernel + self.params.stride):
            raise spec.error("kernel_size and stride must be given and be 1 or more", message.line)
        if any(one < 1 for one in self.params.dilation):
            raise spec.error(f"dilation {self.params.dilation} must be 1 or more", message.line)
        self.axis = int(message.get("axis"))

    def geometry(self, axes: int) -> list[tuple[int, int, int, int]]:
        """(kernel, stride, pad, dilation) of each of `axes` spatial axes."""
        params, spec = self.params, self.spec
        return list(
            zip(
                per_axis(params.kernel, axes, 1, "kernel_size", spec),
                per_axis(params.stride, axes, 1, "stride", spec),
                per_axis(params.pad, axes, 0, "pad", spec),
                per_axis(params.dilation, axes, 1, "dilation", spec),
                strict=True,
            )
        )

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = bottoms[0]
        if not 3 <= len(shape) <= 5 or canonical_axis(self.axis, len(shape), self.spec) != 1:
            raise self.spec.error(
                f"bottom has shape {shape}; allowed: batch, channels (axis 1) and 1 to 3 spatial axes"
            )
        geometry = self.geometry(len(shape) - 2)
        spatial = (convolved(size, *one) for size, one in zip(shape[2:], geometry, strict=True))
        return [(shape[0], shape[1] * prod(kernel for kernel, *_ in geometry), *spatial)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        windows, axes = tensors[0], tensors[0].ndim - 2
        geometry = self.geometry(axes)
        windows = F.pad(windows, [side for _, _, pad, _ in reversed(geometry) for side in (pad, pad)])
        for axis, (kernel, stride, _, dilation) in enumerate(geometry, 2):
            windows = windows.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        # N, C, places of the top..., places of the kernel... -> N, C, kernel..., top...
        order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
        return [windows.permute(order).flatten(1, 1 + axes)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """A convolution of each channel by itself, with one output for each place of the kernel."""
        channels = graph.shape(bottoms[0])[1]
        geometry = self.geometry(graph.rank(bottoms[0]) - 2)
        kernel, stride, pad, dilation = zip(*geometry, strict=True)
        places = prod(kernel)
        weight = np.tile(np.eye(places, dtype=np.float32), (channels, 1)).reshape(channels * places, 1, *kernel)
        graph.node(
            "Conv",
            [bottoms[0], graph.constant(weight, f"{self.spec.name}_places")],
            tops,
            kernel_shape=kernel,
            strides=stride,
            pads=(*pad, *pad),
            dilations=dilation,
            group=channels,
        )
