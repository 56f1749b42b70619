"""Crop: the first bottom cut to the size of the second."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CropParams:
    """First axis that is cut, and where each cut begins: no offset (0), one for all axes, or one each."""

    axis: int
    offset: tuple[int, ...]


@register("Crop")
class Crop(Layer):
    """From `axis` (default 2) on, keeps [offset, offset + extent of the second bottom)."""

    bottoms_allowed = (2, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("crop_param")
        self.params = CropParams(int(message.get("axis")), tuple(int(offset) for offset in message.get("offset")))

    def offsets(self, rank: int) -> tuple[int, tuple[int, ...]]:
        """First axis cut, and the offset of every axis from there on."""
        axis = canonical_axis(self.params.axis, rank, self.spec)
        offset, axes = self.params.offset or (0,), rank - axis
        if len(offset) not in (1, axes):
            raise self.spec.error(f"{len(offset)} offset for {axes} axes from {axis} on; give none, one, or {axes}")
        return axis, offset * axes if len(offset) == 1 else offset

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape, wanted = bottoms
        axis, offsets = self.offsets(len(shape))
        if len(shape) != len(wanted):
            raise self.spec.error(f"bottoms of shapes {shape} and {wanted}; the ranks must be equal")
        if any(o + w > n for o, w, n in zip(offsets, wanted[axis:], shape[axis:], strict=True)):
            raise self.spec.error(f"offset {offsets} plus {wanted[axis:]} exceeds the bottom's {shape[axis:]}")
        return [(*shape[:axis], *wanted[axis:])]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        result, wanted = tensors
        axis, offsets = self.offsets(result.ndim)
        for place, offset in enumerate(offsets, axis):
            result = result.narrow(place, offset, wanted.shape[place])
        return [result]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, rank = self.spec.name, graph.rank(bottoms[0])
        axis, offsets = self.offsets(rank)
        starts = graph.constant(int64(*offsets), f"{name}_starts")
        axes = graph.constant(int64(*range(axis, rank)), f"{name}_axes")
        wanted, ends = graph.fresh(f"{name}_wanted"), graph.fresh(f"{name}_ends")
        graph.node("Shape", [bottoms[1]], [wanted], start=axis)
        graph.node("Add", [wanted, starts], [ends])
        graph.node("Slice", [bottoms[0], starts, ends, axes], tops)
