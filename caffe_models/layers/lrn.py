"""LRN: local response normalisation, across channels or within each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise, chain
from caffe_models.layer import LayerSpec, OnnxGraph, Shape, int64, register

if TYPE_CHECKING:
    import torch


MOST_SIZE = 65535
"""Beyond any number of channels; the bottom is padded by half of it."""


@dataclass(frozen=True)
class LRNParams:
    """Caffe's LRNParameter; k serves ACROSS_CHANNELS only."""

    size: int
    alpha: float
    beta: float
    k: float
    within: bool


@register("LRN")
class LRN(Elementwise):
    """Across: x / (k + alpha / n * sum of squares over n channels) ** beta. Within: the sum is over an n by n window,
    divided by its area with the zeros of the padding, and k is 1, whatever is given (Caffe, lrn_layer.cpp)."""

    spatial_axes = (2, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("lrn_param")
        self.params = LRNParams(
            size=int(message.get("local_size")),
            alpha=float(message.get("alpha")),
            beta=float(message.get("beta")),
            k=float(message.get("k")),
            within=str(message.get("norm_region")) == "WITHIN_CHANNEL",
        )
        if self.params.size % 2 == 0:
            raise spec.error(f"local_size {self.params.size}; it must be odd", message.line)
        if self.params.size > MOST_SIZE:
            raise spec.error(f"local_size {self.params.size}; allowed: odd, at most {MOST_SIZE}", message.line)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[0]) != 4:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: 4 axes")
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        x, params = tensors[0], self.params
        if not params.within:
            return [F.local_response_norm(x, params.size, params.alpha, params.beta, params.k)]
        mean = F.avg_pool2d(x.square(), params.size, 1, params.size // 2)
        return [x * (1 + params.alpha * mean) ** -params.beta]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Spelt out as a mean of squares: OpenVINO's own LRN rounds k to an integer."""
        name, params, half = self.spec.name, self.params, self.params.size // 2
        square, mean, factor = (graph.fresh(f"{name}_{part}") for part in ("square", "mean", "factor"))
        graph.node("Mul", [bottoms[0], bottoms[0]], [square])
        if params.within:
            graph.node(
                "AveragePool", [square], [mean], kernel_shape=[params.size] * 2, pads=[half] * 4, count_include_pad=1
            )
        else:  # channels as the first of three spatial axes
            axis = graph.constant(int64(1), f"{name}_axis")
            apart, averaged = graph.fresh(f"{name}_apart"), graph.fresh(f"{name}_averaged")
            graph.node("Unsqueeze", [square, axis], [apart])
            window, pads = [params.size, 1, 1], [half, 0, 0, half, 0, 0]
            graph.node("AveragePool", [apart], [averaged], kernel_shape=window, pads=pads, count_include_pad=1)
            graph.node("Squeeze", [averaged, axis], [mean])
        k = 1.0 if params.within else params.k
        chain(graph, name, mean, factor, [("Mul", params.alpha), ("Add", k), ("Pow", -params.beta)])
        graph.node("Mul", [bottoms[0], factor], tops)
