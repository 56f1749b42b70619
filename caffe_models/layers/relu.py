"""ReLU, leaky with `negative_slope`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ReLUParams:
    """Slope for negative values."""

    negative_slope: float


@register("ReLU")
class ReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0)."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = ReLUParams(float(spec.param("relu_param").get("negative_slope")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        if self.params.negative_slope == 0:
            return [F.relu(tensors[0], inplace=self.may_overwrite)]
        # torch's in-place leaky_relu has no gradient for negative slopes, so it takes new memory there
        inplace = self.may_overwrite and self.params.negative_slope > 0
        return [F.leaky_relu(tensors[0], self.params.negative_slope, inplace=inplace)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        if self.params.negative_slope == 0:
            graph.node("Relu", bottoms, tops)
        else:
            graph.node("LeakyRelu", bottoms, tops, alpha=self.params.negative_slope)
