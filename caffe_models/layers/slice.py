"""Slice: one bottom cut along an axis into several tops."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch

_END = 2**63 - 1


@dataclass(frozen=True)
class SliceParams:
    """Axis, and where to cut; no points: equal parts."""

    axis: int
    points: tuple[int, ...]


@register("Slice")
class Slice(Layer):
    """Cuts before each slice_point, or into equal parts, along `axis` (default 1)."""

    tops_allowed = (1, None)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("slice_param")
        if message.has("axis") and message.has("slice_dim"):
            raise spec.error("axis and slice_dim (its old name) exclude each other", message.line)
        axis = int(message.get("slice_dim" if message.has("slice_dim") else "axis"))
        self.params = SliceParams(axis, tuple(int(point) for point in message.get("slice_point")))
        points = self.params.points
        if points and len(points) != len(spec.tops) - 1:
            raise spec.error(f"{len(points)} slice_point for {len(spec.tops)} tops; {len(spec.tops) - 1} are needed")
        if any(right <= left for left, right in pairwise((0, *points))):
            raise spec.error(f"slice_point {points} must be positive and increasing", message.line)

    def extents(self, extent: int) -> list[int]:
        """Extent of each top along the axis."""
        points, tops = self.params.points, len(self.spec.tops)
        if points:
            return [right - left for left, right in pairwise((0, *points, extent))]
        if extent % tops:
            raise self.spec.error(f"{extent} along axis {self.params.axis} cannot be cut into {tops} equal tops")
        return [extent // tops] * tops

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = bottoms[0]
        axis = canonical_axis(self.params.axis, len(shape), self.spec)
        return [(*shape[:axis], extent, *shape[axis + 1 :]) for extent in self.extents(shape[axis])]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        axis = self.params.axis
        return list(torch.split_with_sizes(tensors[0], self.extents(tensors[0].shape[axis]), axis))

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, axis = self.spec.name, self.params.axis
        if len(tops) == 1:
            graph.node("Identity", bottoms, tops)
            return
        if not self.params.points:
            graph.node("Split", bottoms, tops, axis=axis, num_outputs=len(tops))
            return
        axes = graph.constant(int64(axis), f"{name}_axis")
        for index, (top, (start, stop)) in enumerate(zip(tops, pairwise((0, *self.params.points, _END)), strict=True)):
            ends = [
                graph.constant(int64(end), f"{name}_{key}{index}") for key, end in (("start", start), ("end", stop))
            ]
            graph.node("Slice", [bottoms[0], *ends, axes], [top])
