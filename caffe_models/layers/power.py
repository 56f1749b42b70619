"""Power: (shift + scale x) ** power."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise, chain
from caffe_models.layer import LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PowerParams:
    """Caffe's PowerParameter."""

    power: float
    scale: float
    shift: float


@register("Power")
class Power(Elementwise):
    """(shift + scale x) ** power, value by value."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("power_param")
        self.params = PowerParams(float(message.get("power")), float(message.get("scale")), float(message.get("shift")))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        params, value = self.params, tensors[0]
        value = value * params.scale + params.shift
        return [value if params.power == 1 else value**params.power]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        steps: list[tuple[str, float | None]] = [("Mul", self.params.scale), ("Add", self.params.shift)]
        if self.params.power != 1:
            steps.append(("Pow", self.params.power))
        chain(graph, self.spec.name, bottoms[0], tops[0], steps)
