"""Swish: x * sigmoid(beta x)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise, chain
from caffe_models.layer import LayerSpec, OnnxGraph, knows, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SwishParams:
    """Caffe's SwishParameter."""

    beta: float


@register("Swish")
class Swish(Elementwise):
    """x * sigmoid(beta x), value by value."""

    dialects = ("bvlc", "intel")

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        known = knows(spec.message, "swish_param")  # Intel Caffe has the type; its field is not in our intel schema
        self.params = SwishParams(float(spec.param("swish_param").get("beta")) if known else 1.0)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0] * (tensors[0] * self.params.beta).sigmoid()]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        gate = graph.fresh(f"{self.spec.name}_gate")
        chain(graph, self.spec.name, bottoms[0], gate, [("Mul", self.params.beta), ("Sigmoid", None)])
        graph.node("Mul", [bottoms[0], gate], tops)
