"""Permute: axes in another order (SSD's layer; Intel and Extended Caffe)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PermuteParams:
    """The first axes of the top, as axes of the bottom."""

    order: tuple[int, ...]


@register("Permute")
class Permute(Layer):
    """Axes that `order` does not name follow in their old order."""

    dialects = ("intel", "extended")

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("permute_param")
        self.params = PermuteParams(tuple(int(axis) for axis in message.get("order")))
        if len(set(self.params.order)) != len(self.params.order):
            raise spec.error(f"order {self.params.order} names an axis twice", message.line)

    def order(self, rank: int) -> tuple[int, ...]:
        """All axes of the bottom in the top's order."""
        named = self.params.order
        if any(not 0 <= axis < rank for axis in named):
            raise self.spec.error(f"order {named}; the bottom has axes 0 to {rank - 1}")
        return named + tuple(axis for axis in range(rank) if axis not in named)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(bottoms[0][axis] for axis in self.order(len(bottoms[0])))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0].permute(self.order(tensors[0].ndim))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Transpose", bottoms, tops, perm=self.order(graph.rank(bottoms[0])))
