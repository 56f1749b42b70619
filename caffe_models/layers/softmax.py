"""Softmax along one axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SoftmaxParams:
    """Axis, possibly negative."""

    axis: int


@register("Softmax")
class Softmax(Layer):
    """exp(x) over its sum along `axis` (default 1)."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = SoftmaxParams(int(spec.param("softmax_param").get("axis")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        canonical_axis(self.params.axis, len(bottoms[0]), self.spec)
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0].softmax(self.params.axis)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Softmax", bottoms, tops, axis=self.params.axis)
