"""Reduction: all axes from one on become a single number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch

_ONNX = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


@dataclass(frozen=True)
class ReductionParams:
    """operation is SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN."""

    operation: str
    axis: int
    coeff: float


@register("Reduction")
class Reduction(Layer):
    """coeff times the sum, the sum of |x| or x ** 2, or the mean, over the axes from `axis` (default 0) on."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("reduction_param")
        operation, axis = str(message.get("operation")), int(message.get("axis"))
        self.params = ReductionParams(operation, axis, float(message.get("coeff")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0][: canonical_axis(self.params.axis, len(bottoms[0]), self.spec)]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        operation = self.params.operation
        x = tensors[0].abs() if operation == "ASUM" else tensors[0].square() if operation == "SUMSQ" else tensors[0]
        axes = tuple(range(self.params.axis % x.ndim, x.ndim))
        return [(x.mean(axes) if operation == "MEAN" else x.sum(axes)) * self.params.coeff]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, rank = self.spec.name, graph.rank(bottoms[0])
        axes = graph.constant(int64(*range(self.params.axis % rank, rank)), f"{name}_axes")
        reduced = graph.fresh(f"{name}_reduced") if self.params.coeff != 1 else tops[0]
        graph.node(_ONNX[self.params.operation], [bottoms[0], axes], [reduced], keepdims=0)
        if self.params.coeff != 1:
            coeff = graph.constant(np.array(self.params.coeff, np.float32), f"{name}_coeff")
            graph.node("Mul", [reduced, coeff], tops)
