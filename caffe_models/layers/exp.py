"""Exp: base ** (shift + scale x); base -1 is e."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise, chain
from caffe_models.layer import LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ExpParams:
    """Caffe's ExpParameter."""

    base: float
    scale: float
    shift: float


@register("Exp")
class Exp(Elementwise):
    """base ** (shift + scale x); base -1 is e, value by value."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("exp_param")
        self.params = ExpParams(float(message.get("base")), float(message.get("scale")), float(message.get("shift")))
        if self.params.base != -1 and self.params.base <= 0:
            raise spec.error(f"base {self.params.base:g}; allowed: -1 (e) or a positive number", message.line)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [(tensors[0] * (self.rate * self.params.scale) + self.rate * self.params.shift).exp()]

    @property
    def rate(self) -> float:
        """Natural logarithm of the base."""
        return 1.0 if self.params.base == -1 else math.log(self.params.base)

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        scale, shift = self.rate * self.params.scale, self.rate * self.params.shift
        chain(graph, self.spec.name, bottoms[0], tops[0], [("Mul", scale), ("Add", shift), ("Exp", None)])
