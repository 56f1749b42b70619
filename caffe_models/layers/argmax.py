"""ArgMax: indices (as floats) or values of the largest numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import FLOAT, Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ArgMaxParams:
    """Caffe's ArgMaxParameter; axis None: over each whole example."""

    axis: int | None
    top_k: int
    values: bool


@register("ArgMax")
class ArgMax(Layer):
    """With `axis`: the top_k indices, or with out_max_val the values instead, along it. Without: of each flattened
    example, shape (N, 1, top_k), or (N, 2, top_k) with out_max_val: indices, then values (padded with ones to the
    rank of the bottom)."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("argmax_param")
        axis = int(message.get("axis")) if message.has("axis") else None
        self.params = ArgMaxParams(axis, int(message.get("top_k")), bool(message.get("out_max_val")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape, params = bottoms[0], self.params
        axis = None if params.axis is None else canonical_axis(params.axis, len(shape), self.spec)
        extent = shape[axis] if axis is not None else 1
        if axis is None:
            for size in shape[1:]:
                extent *= size
        if not 1 <= params.top_k <= extent:
            raise self.spec.error(f"top_k {params.top_k}; allowed: 1 to {extent}")
        if axis is not None:
            return [(*shape[:axis], params.top_k, *shape[axis + 1 :])]
        return [(shape[0], 2 if params.values else 1, params.top_k, *[1] * (len(shape) - 3))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        x, params = tensors[0], self.params
        if params.axis is not None:
            values, indices = x.topk(params.top_k, params.axis)
            return [values if params.values else indices.to(x.dtype)]
        values, indices = x.flatten(1).topk(params.top_k, 1)
        found = torch.stack([indices.to(x.dtype), values][: 2 if params.values else 1], 1)
        return [found.reshape(*found.shape, *[1] * (x.ndim - 3))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, params, rank = self.spec.name, self.params, graph.rank(bottoms[0])
        values, indices, numbers = (graph.fresh(f"{name}_{part}") for part in ("values", "indices", "numbers"))
        count = graph.constant(int64(params.top_k), f"{name}_top_k")
        if params.axis is not None:
            ends = [tops[0] if params.values else values, indices]
            graph.node("TopK", [bottoms[0], count], ends, axis=params.axis)
            if not params.values:
                graph.node("Cast", [indices], tops, to=FLOAT)
            return
        rows = graph.fresh(f"{name}_rows")
        graph.node("Flatten", bottoms, [rows], axis=1)
        graph.node("TopK", [rows, count], [values, indices], axis=1)
        graph.node("Cast", [indices], [numbers], to=FLOAT)
        axes = graph.constant(int64(1, *range(3, rank)), f"{name}_axes")
        if not params.values:
            graph.node("Unsqueeze", [numbers, axes], tops)
            return
        parts = [graph.fresh(f"{name}_part") for _ in range(2)]
        graph.node("Unsqueeze", [numbers, axes], [parts[0]])
        graph.node("Unsqueeze", [values, axes], [parts[1]])
        graph.node("Concat", parts, tops, axis=1)
