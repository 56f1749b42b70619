"""Eltwise: sum with coefficients, product or maximum of equal shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EltwiseParams:
    """operation is SUM, PROD or MAX; coeff (SUM only) is empty or one per bottom."""

    operation: str
    coeff: tuple[float, ...]


@register("Eltwise")
class Eltwise(Layer):
    """Bottoms are combined value by value; nothing is broadcast."""

    bottoms_allowed = (2, None)
    fresh_tops = True

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("eltwise_param")
        self.params = EltwiseParams(str(message.get("operation")), tuple(float(c) for c in message.get("coeff")))
        if self.params.coeff and len(self.params.coeff) != len(spec.bottoms):
            raise spec.error(f"{len(self.params.coeff)} coeff for {len(spec.bottoms)} bottoms; give one each or none")
        if self.params.coeff and self.params.operation != "SUM":
            raise spec.error(f"coeff is for operation SUM, not {self.params.operation}")
        self.fresh_tops = self.params.operation == "SUM"

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if any(shape != bottoms[0] for shape in bottoms):
            raise self.spec.error(f"bottoms of shapes {', '.join(map(str, bottoms))}; all must be equal")
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        if self.params.operation == "PROD":
            return [reduce(torch.mul, tensors)]
        if self.params.operation == "MAX":
            return [reduce(torch.maximum, tensors)]
        if not self.params.coeff:
            return [reduce(torch.add, tensors)]
        total = tensors[0] * self.params.coeff[0]
        for tensor, coeff in zip(tensors[1:], self.params.coeff[1:], strict=True):
            total = torch.add(total, tensor, alpha=coeff)
        return [total]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        op = {"SUM": "Add", "PROD": "Mul", "MAX": "Max"}[self.params.operation]
        name, terms = self.spec.name, list(bottoms)
        for index, coeff in enumerate(self.params.coeff):
            if coeff == 1:
                continue
            factor = graph.constant(np.array(coeff, np.float32), f"{name}_coeff{index}")
            terms[index] = graph.fresh(f"{name}_term{index}")
            graph.node("Mul", [bottoms[index], factor], [terms[index]])
        total = terms[0]
        for index, term in enumerate(terms[1:], 2):
            result = tops[0] if index == len(terms) else graph.fresh(f"{name}_partial")
            graph.node(op, [total, term], [result])
            total = result
