"""Split: the same blob under several names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@register("Split")
class Split(Layer):
    """Every top is the bottom."""

    tops_allowed = (1, None)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.spec.tops)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0]] * len(self.spec.tops)

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        for top in tops:
            graph.node("Identity", bottoms, [top])
