"""Convolution in one, two or three spatial dimensions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, register
from caffe_models.nd import convolved, per_axis, read_axes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ConvolutionParams:
    """Caffe's ConvolutionParameter; sizes are as written: empty, one for all axes, or one each."""

    num_output: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    group: int
    bias: bool
    axis: int
    weight_filler: FillerSpec
    bias_filler: FillerSpec

    @staticmethod
    def read(spec: LayerSpec) -> "ConvolutionParams":
        """From `convolution_param`. Raises PrototxtError for settings Caffe does not allow."""
        message = spec.param("convolution_param")
        params = ConvolutionParams(
            num_output=int(message.get("num_output")),
            kernel=read_axes(message, "kernel_size", spec, "kernel"),
            stride=read_axes(message, "stride", spec),
            pad=read_axes(message, "pad", spec),
            dilation=read_axes(message, "dilation", spec),
            group=int(message.get("group")),
            bias=bool(message.get("bias_term")),
            axis=int(message.get("axis")),
            weight_filler=FillerSpec.read(message, "weight_filler"),
            bias_filler=FillerSpec.read(message, "bias_filler"),
        )
        for field in ("kernel", "stride", "dilation"):
            if any(value < 1 for value in getattr(params, field)):
                raise spec.error(f"{field} {getattr(params, field)} must be 1 or more", message.line)
        if not params.kernel:
            raise spec.error("kernel_size is missing; give it once, or once for each spatial axis", message.line)
        if params.num_output < 1 or params.group < 1 or params.num_output % params.group:
            raise spec.error(f"num_output {params.num_output} must be a positive multiple of group {params.group}")
        return params


class SlidingWindow(Layer):
    """What Convolution and Deconvolution share: geometry, weights, one top for each bottom."""

    bottoms_allowed = (1, None)
    spatial_axes = (1, 3)
    tops_allowed = (1, None)
    fresh_tops = True

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        if len(spec.bottoms) != len(spec.tops):
            raise spec.error(f"has {len(spec.bottoms)} bottoms and {len(spec.tops)} tops; give one top for each bottom")
        if set(spec.bottoms) & set(spec.tops):
            raise spec.error("cannot work in place: its top needs another name than its bottom")
        self.params = ConvolutionParams.read(spec)

    def geometry(self, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(kernel, stride, pad, dilation), one value for each of `axes` spatial axes."""
        params, spec = self.params, self.spec
        return (
            per_axis(params.kernel, axes, 1, "kernel_size", spec),
            per_axis(params.stride, axes, 1, "stride", spec),
            per_axis(params.pad, axes, 0, "pad", spec),
            per_axis(params.dilation, axes, 1, "dilation", spec),
        )

    def check(self, bottoms: Sequence[Shape]) -> int:
        """Number of spatial axes. Raises PrototxtError for bottoms that do not fit."""
        rank, channels = len(bottoms[0]), bottoms[0][1] if len(bottoms[0]) > 1 else 0
        if not 3 <= rank <= 5:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: batch, channels and 1 to 3 spatial axes")
        if canonical_axis(self.params.axis, rank, self.spec) != 1:
            raise self.spec.error(f"axis {self.params.axis}; the channel axis must be 1")
        if channels % self.params.group:
            raise self.spec.error(f"{channels} channels of the bottom cannot be divided into group {self.params.group}")
        for shape in bottoms[1:]:
            if len(shape) != rank or shape[1] != channels:
                raise self.spec.error(f"bottoms of shapes {list(bottoms)}; rank and channels must be equal")
        return rank - 2

    @staticmethod
    @abstractmethod
    def extent(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """Extent of the top along one axis for the bottom's `size`."""

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        geometry = list(zip(*self.geometry(self.check(bottoms)), strict=True))
        return [
            (
                shape[0],
                self.params.num_output,
                *(self.extent(size, *g) for size, g in zip(shape[2:], geometry, strict=True)),
            )
            for shape in bottoms
        ]

    def weights(self, weight: Shape) -> list[BlobSpec]:
        """Blob specs for a weight of that shape, and the bias."""
        specs = [BlobSpec(weight, self.params.weight_filler, *self.multipliers(0))]
        if self.params.bias:
            specs.append(BlobSpec((self.params.num_output,), self.params.bias_filler, *self.multipliers(1)))
        return specs

    def onnx(self, op: str, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """One node of type `op` (Conv or ConvTranspose) for each bottom."""
        names = ("weight", "bias")[: len(self.blobs)]
        blobs = [graph.constant(self.array(index), f"{self.spec.name}_{name}") for index, name in enumerate(names)]
        for bottom, top in zip(bottoms, tops, strict=True):
            kernel, stride, pad, dilation = self.geometry(graph.rank(bottom) - 2)
            graph.node(
                op,
                [bottom, *blobs],
                [top],
                kernel_shape=kernel,
                strides=stride,
                pads=pad + pad,
                dilations=dilation,
                group=self.params.group,
            )


@register("Convolution")
class Convolution(SlidingWindow):
    """Cross-correlation; weight (num_output, channels / group, kernel...), bias (num_output)."""

    @staticmethod
    def extent(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return convolved(size, kernel, stride, pad, dilation)

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        kernel = self.geometry(len(bottoms[0]) - 2)[0]
        return self.weights((self.params.num_output, bottoms[0][1] // self.params.group, *kernel))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        """Under autocast too, an input narrower than the kernel is convolved in float32.

        PyTorch 2.13's oneDNN fills the weights' bfloat16 gradient with garbage, infinities among it, where the depth
        is 2 and the kernel 3 (crop 32, after four poolings); such an input is too small for bfloat16 to save time.
        """
        import torch
        from torch.nn import functional as F

        axes = tensors[0].ndim - 2
        kernel, stride, pad, dilation = self.geometry(axes)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        weight, bias = self.blobs[0], self.blobs[1] if self.params.bias else None
        device = tensors[0].device.type
        narrow = any(extent < k for extent, k in zip(tensors[0].shape[2:], kernel, strict=True))
        if narrow and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return [
                    convolve(tensor.float(), weight, bias, stride, pad, dilation, self.params.group)
                    for tensor in tensors
                ]
        return [convolve(tensor, weight, bias, stride, pad, dilation, self.params.group) for tensor in tensors]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        self.onnx("Conv", graph, bottoms, tops)
