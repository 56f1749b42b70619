"""Deconvolution (transposed convolution) in one, two or three spatial dimensions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import BlobSpec, OnnxGraph, Shape, register
from caffe_models.layers.convolution import SlidingWindow
from caffe_models.nd import deconvolved

if TYPE_CHECKING:
    import torch


@register("Deconvolution")
class Deconvolution(SlidingWindow):
    """The gradient of a convolution; weight (channels, num_output / group, kernel...), as ONNX's ConvTranspose."""

    @staticmethod
    def extent(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return deconvolved(size, kernel, stride, pad, dilation)

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        kernel = self.geometry(len(bottoms[0]) - 2)[0]
        return self.weights((bottoms[0][1], self.params.num_output // self.params.group, *kernel))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        axes = tensors[0].ndim - 2
        _, stride, pad, dilation = self.geometry(axes)
        deconvolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        weight, bias = self.blobs[0], self.blobs[1] if self.params.bias else None
        return [deconvolve(tensor, weight, bias, stride, pad, 0, self.params.group, dilation) for tensor in tensors]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        self.onnx("ConvTranspose", graph, bottoms, tops)
