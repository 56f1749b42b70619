"""Log: log(shift + scale x) to a base; base -1 is e."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise, chain
from caffe_models.layer import LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LogParams:
    """Caffe's LogParameter."""

    base: float
    scale: float
    shift: float


@register("Log")
class Log(Elementwise):
    """log(shift + scale x) to a base; base -1 is e, value by value."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("log_param")
        self.params = LogParams(float(message.get("base")), float(message.get("scale")), float(message.get("shift")))
        if self.params.base != -1 and (self.params.base <= 0 or self.params.base == 1):
            raise spec.error(f"base {self.params.base:g}; allowed: -1 (e) or a positive number but 1", message.line)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [(tensors[0] * self.params.scale + self.params.shift).log() * self.factor]

    @property
    def factor(self) -> float:
        """From natural logarithms to those of the base."""
        return 1.0 if self.params.base == -1 else 1.0 / math.log(self.params.base)

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        params = self.params
        steps: list[tuple[str, float | None]] = [("Mul", params.scale), ("Add", params.shift), ("Log", None)]
        chain(graph, self.spec.name, bottoms[0], tops[0], [*steps, ("Mul", self.factor)])
