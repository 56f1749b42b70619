"""MVN: mean and variance normalisation of each example."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.elementwise import Elementwise
from caffe_models.layer import LayerSpec, OnnxGraph, Shape, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MVNParams:
    """Caffe's MVNParameter."""

    normalize_variance: bool
    across_channels: bool
    eps: float


@register("MVN")
class MVN(Elementwise):
    """(x - mean) / (standard deviation + eps), over each channel or, with across_channels, each example."""

    refused_in_3d = frozenset({"bvlc", "extended"})
    spatial_axes = (1, None)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("mvn_param")
        self.params = MVNParams(
            normalize_variance=bool(message.get("normalize_variance")),
            across_channels=bool(message.get("across_channels")),
            eps=float(message.get("eps")),
        )

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) < 3:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: batch, channels and spatial axes")
        return [bottoms[0]]

    def shared_axes(self, rank: int) -> tuple[int, ...]:
        """The axes that share a mean."""
        return tuple(range(1 if self.params.across_channels else 2, rank))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        axes = self.shared_axes(tensors[0].ndim)
        centred = tensors[0] - tensors[0].mean(axes, keepdim=True)
        if not self.params.normalize_variance:
            return [centred]
        return [centred / (centred.square().mean(axes, keepdim=True).sqrt() + self.params.eps)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name = self.spec.name
        axes = graph.constant(int64(*self.shared_axes(graph.rank(bottoms[0]))), f"{name}_axes")
        mean = graph.fresh(f"{name}_mean")
        graph.node("ReduceMean", [bottoms[0], axes], [mean], keepdims=1)
        centred = graph.fresh(f"{name}_centred") if self.params.normalize_variance else tops[0]
        graph.node("Sub", [bottoms[0], mean], [centred])
        if not self.params.normalize_variance:
            return
        square, variance, root, divisor = (
            graph.fresh(f"{name}_{p}") for p in ("square", "variance", "root", "divisor")
        )
        graph.node("Mul", [centred, centred], [square])
        graph.node("ReduceMean", [square, axes], [variance], keepdims=1)
        graph.node("Sqrt", [variance], [root])
        graph.node("Add", [root, graph.constant(np.array(self.params.eps, np.float32), f"{name}_eps")], [divisor])
        graph.node("Div", [centred, divisor], tops)
