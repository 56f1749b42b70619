"""BNLL: log(1 + exp(x))."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise
from caffe_models.layer import OnnxGraph, register

if TYPE_CHECKING:
    import torch


@register("BNLL")
class BNLL(Elementwise):
    """log(1 + exp(x)), value by value."""

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        return [F.softplus(tensors[0])]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Softplus", bottoms, tops)
