"""Tile: the bottom several times behind itself along one axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TileParams:
    """Axis, and how many copies."""

    axis: int
    tiles: int


@register("Tile")
class Tile(Layer):
    """`tiles` copies along `axis` (default 1)."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("tile_param")
        self.params = TileParams(int(message.get("axis")), int(message.get("tiles")))
        if self.params.tiles < 1:
            raise spec.error(f"tiles {self.params.tiles}; give 1 or more", message.line)

    def repeats(self, rank: int) -> tuple[int, ...]:
        """Copies along every axis."""
        axis = canonical_axis(self.params.axis, rank, self.spec)
        return tuple(self.params.tiles if place == axis else 1 for place in range(rank))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(n * r for n, r in zip(bottoms[0], self.repeats(len(bottoms[0])), strict=True))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0].repeat(self.repeats(tensors[0].ndim))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        repeats = graph.constant(int64(*self.repeats(graph.rank(bottoms[0]))), f"{self.spec.name}_repeats")
        graph.node("Tile", [bottoms[0], repeats], tops)
