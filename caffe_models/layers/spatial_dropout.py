"""SpatialDropout: whole channels are dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SpatialDropoutParams:
    """Probability that a channel of an example is dropped."""

    dropout_ratio: float


@register("SpatialDropout")
class SpatialDropout(Layer):
    """TRAIN: each channel of each example is 0 with probability p, else x / (1 - p). TEST: the bottom itself (Tompson
    et al., Efficient Object Localization Using Convolutional Networks, 2015)."""

    dialects = ("intel", "extended")
    refused_in_3d = frozenset({"intel"})
    spatial_axes = (1, None)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("spatial_dropout_param")
        self.params = SpatialDropoutParams(float(message.get("dropout_ratio")))
        if not 0 <= self.params.dropout_ratio < 1:
            raise spec.error(f"dropout_ratio {self.params.dropout_ratio:g}; allowed: 0 to less than 1", message.line)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) < 3:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: batch, channels and spatial axes")
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        x, ratio = tensors[0], self.params.dropout_ratio
        if self.spec.phase == "TEST" or ratio == 0:
            return [x]
        kept = torch.rand((*x.shape[:2], *[1] * (x.ndim - 2)), device=x.device) >= ratio
        return [x * (kept.to(x.dtype) / (1 - ratio))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Identity", bottoms, tops)
