"""Clip: x limited to [min, max]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.elementwise import Elementwise
from caffe_models.layer import LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClipParams:
    """Caffe's ClipParameter."""

    min: float
    max: float


@register("Clip")
class Clip(Elementwise):
    """x limited to [min, max], value by value."""

    dialects = ("bvlc",)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("clip_param")
        self.params = ClipParams(float(message.get("min")), float(message.get("max")))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0].clamp(self.params.min, self.params.max)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        limits = {"min": self.params.min, "max": self.params.max}
        inputs = [
            graph.constant(np.array(value, np.float32), f"{self.spec.name}_{key}") for key, value in limits.items()
        ]
        graph.node("Clip", [bottoms[0], *inputs], tops)
