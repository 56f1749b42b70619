"""TanH: the hyperbolic tangent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise
from caffe_models.layer import OnnxGraph, register

if TYPE_CHECKING:
    import torch


@register("TanH")
class TanH(Elementwise):
    """the hyperbolic tangent, value by value."""

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0].tanh()]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Tanh", bottoms, tops)
