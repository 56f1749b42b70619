"""Threshold: 1 for x > threshold, else 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.elementwise import Elementwise
from caffe_models.layer import FLOAT, LayerSpec, OnnxGraph, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ThresholdParams:
    """Caffe's ThresholdParameter."""

    threshold: float


@register("Threshold")
class Threshold(Elementwise):
    """1 for x > threshold, else 0, value by value."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("threshold_param")
        self.params = ThresholdParams(float(message.get("threshold")))

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [(tensors[0] > self.params.threshold).to(tensors[0].dtype)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        limit = graph.constant(np.array(self.params.threshold, np.float32), f"{self.spec.name}_threshold")
        above = graph.fresh(f"{self.spec.name}_above")
        graph.node("Greater", [bottoms[0], limit], [above])
        graph.node("Cast", [above], tops, to=FLOAT)
