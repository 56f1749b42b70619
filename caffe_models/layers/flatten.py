"""Flatten: a run of axes becomes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, register
from caffe_models.reshaping import reshape_onnx, reshaped

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FlattenParams:
    """First and last axis of the run."""

    axis: int
    end_axis: int


@register("Flatten")
class Flatten(Layer):
    """The axes from `axis` to `end_axis` (included; default 1 to -1) are merged."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("flatten_param")
        self.params = FlattenParams(int(message.get("axis")), int(message.get("end_axis")))

    def span(self, rank: int) -> tuple[int, int]:
        """First and last + 1 of the merged axes."""
        start = canonical_axis(self.params.axis, rank, self.spec)
        stop = canonical_axis(self.params.end_axis, rank, self.spec, "end_axis") + 1
        if stop <= start:
            raise self.spec.error(f"end_axis {self.params.end_axis} lies before axis {self.params.axis}")
        return start, stop

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [reshaped(bottoms[0], (-1,), *self.span(len(bottoms[0])), self.spec)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        start, stop = self.span(tensors[0].ndim)
        return [tensors[0].flatten(start, stop - 1)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        reshape_onnx(graph, bottoms[0], tops[0], (-1,), *self.span(graph.rank(bottoms[0])), self.spec.name)
