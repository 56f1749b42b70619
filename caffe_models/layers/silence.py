"""Silence: reads blobs so that they do not count as outputs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@register("Silence")
class Silence(Layer):
    """Makes nothing."""

    bottoms_allowed = (1, None)
    tops_allowed = (0, 0)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return []

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return []

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Nothing."""
