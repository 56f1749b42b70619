"""Reshape: 0 copies an extent of the bottom, -1 takes what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register
from caffe_models.reshaping import reshape_onnx, reshaped

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ReshapeParams:
    """The axes [axis, axis + num_axes) of the bottom (num_axes -1: to the end) are replaced by `dims`."""

    dims: tuple[int, ...]
    axis: int
    num_axes: int


@register("Reshape")
class Reshape(Layer):
    """Same values in the same order under another shape."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("reshape_param")
        dims = tuple(int(extent) for extent in message.get("shape").get("dim"))
        self.params = ReshapeParams(dims, int(message.get("axis")), int(message.get("num_axes")))
        if dims.count(-1) > 1 or any(extent < -1 for extent in dims):
            raise spec.error(f"shape {dims}; allowed: extents of 0 or more and at most one -1", message.line)
        if self.params.num_axes < -1:
            raise spec.error(f"num_axes {self.params.num_axes}; allowed: -1 (to the end) or more", message.line)

    def span(self, rank: int) -> tuple[int, int]:
        """First and last + 1 of the axes that are replaced, in a bottom of `rank` axes."""
        params = self.params
        start = params.axis if params.axis >= 0 else rank + 1 + params.axis  # -1: behind the last axis
        stop = rank if params.num_axes == -1 else start + params.num_axes
        if not 0 <= start <= stop <= rank:
            raise self.spec.error(f"axis {params.axis} with num_axes {params.num_axes} leaves a bottom of {rank} axes")
        return start, stop

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [reshaped(bottoms[0], self.params.dims, *self.span(len(bottoms[0])), self.spec)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        shape = tuple(tensors[0].shape)
        return [tensors[0].reshape(reshaped(shape, self.params.dims, *self.span(len(shape)), self.spec))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        reshape_onnx(graph, bottoms[0], tops[0], self.params.dims, *self.span(graph.rank(bottoms[0])), self.spec.name)
