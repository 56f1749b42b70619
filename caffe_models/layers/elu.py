"""ELU: x for x > 0, else alpha (exp(x) - 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise
from caffe_models.layer import LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ELUParams:
    """Caffe's ELUParameter."""

    alpha: float


@register("ELU")
class ELU(Elementwise):
    """x for x > 0, else alpha (exp(x) - 1), value by value."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("elu_param")
        self.params = ELUParams(float(message.get("alpha")))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        return [F.elu(tensors[0], self.params.alpha)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Elu", bottoms, tops, alpha=self.params.alpha)
