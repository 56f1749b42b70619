"""Normalize: vectors divided by their length, times a learnt scale (ParseNet, SSD)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.elementwise import Elementwise
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, LayerSpec, OnnxGraph, Shape, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NormalizeParams:
    """SSD's NormalizeParameter."""

    across_spatial: bool
    channel_shared: bool
    eps: float
    filler: FillerSpec


@register("Normalize")
class Normalize(Elementwise):
    """x / sqrt(sum of squares + eps) * scale; the sum is over each whole example or, without across_spatial, over the
    channels at each place. Blob: one scale (no axes) or, without channel_shared, one per channel; starts at 1."""

    fresh_tops = True
    dialects = ("intel", "extended")
    refused_in_3d = frozenset({"intel", "extended"})

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("norm_param")
        self.params = NormalizeParams(
            across_spatial=bool(message.get("across_spatial")),
            channel_shared=bool(message.get("channel_shared")),
            eps=float(message.get("eps")),
            filler=FillerSpec.read(message, "scale_filler", FillerSpec(value=1.0)),
        )

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) < 2:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: 2 axes or more")
        return [bottoms[0]]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        shape: Shape = () if self.params.channel_shared else (bottoms[0][1],)
        return [BlobSpec(shape, self.params.filler, *self.multipliers(0))]

    def summed_axes(self, rank: int) -> tuple[int, ...]:
        """The axes whose squares are added up."""
        return tuple(range(1, rank)) if self.params.across_spatial else (1,)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        x = tensors[0]
        length = (x.square().sum(self.summed_axes(x.ndim), keepdim=True) + self.params.eps).sqrt()
        return [x / length * self.blobs[0].reshape(-1, *[1] * (x.ndim - 2))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, rank = self.spec.name, graph.rank(bottoms[0])
        square, total, safe, length, unit = (
            graph.fresh(f"{name}_{p}") for p in ("square", "sum", "safe", "root", "unit")
        )
        axes = graph.constant(int64(*self.summed_axes(rank)), f"{name}_axes")
        scale = graph.constant(self.array(0).reshape(-1, *[1] * (rank - 2)), f"{name}_scale")
        graph.node("Mul", [bottoms[0], bottoms[0]], [square])
        graph.node("ReduceSum", [square, axes], [total], keepdims=1)
        graph.node("Add", [total, graph.constant(np.array(self.params.eps, np.float32), f"{name}_eps")], [safe])
        graph.node("Sqrt", [safe], [length])
        graph.node("Div", [bottoms[0], length], [unit])
        graph.node("Mul", [unit, scale], tops)
