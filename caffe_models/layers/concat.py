"""Concat along one axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ConcatParams:
    """Axis, possibly negative."""

    axis: int


@register("Concat")
class Concat(Layer):
    """Bottoms behind one another along `axis` (default 1, channels); all other extents are equal."""

    bottoms_allowed = (1, None)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("concat_param")
        if message.has("axis") and message.has("concat_dim"):
            raise spec.error("axis and concat_dim (its old name) exclude each other", message.line)
        self.params = ConcatParams(int(message.get("concat_dim" if message.has("concat_dim") else "axis")))
        self.fresh_tops = len(spec.bottoms) > 1

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis = canonical_axis(self.params.axis, len(bottoms[0]), self.spec)
        rest = {(len(shape), *shape[:axis], *shape[axis + 1 :]) for shape in bottoms}
        if len(rest) > 1:
            shapes = ", ".join(map(str, bottoms))
            raise self.spec.error(f"bottoms of shapes {shapes}; all extents but that of axis {axis} must be equal")
        return [(*bottoms[0][:axis], sum(shape[axis] for shape in bottoms), *bottoms[0][axis + 1 :])]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        return [torch.cat(list(tensors), self.params.axis) if len(tensors) > 1 else tensors[0]]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Concat", bottoms, tops, axis=self.params.axis)
