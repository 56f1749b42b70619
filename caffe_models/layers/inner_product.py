"""InnerProduct: a fully connected layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InnerProductParams:
    """Caffe's InnerProductParameter."""

    num_output: int
    bias: bool
    axis: int
    transpose: bool
    weight_filler: FillerSpec
    bias_filler: FillerSpec


@register("InnerProduct")
class InnerProduct(Layer):
    """The axes from `axis` on are flattened to K values and multiplied; weight (num_output, K), or (K, num_output)
    with `transpose`; bias (num_output). K is fixed, so these axes cannot change at run time."""

    fresh_tops = True
    note = "the extents from `axis` on are fixed"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("inner_product_param")
        self.params = InnerProductParams(
            num_output=int(message.get("num_output")),
            bias=bool(message.get("bias_term")),
            axis=int(message.get("axis")),
            transpose=bool(message.get("transpose")),
            weight_filler=FillerSpec.read(message, "weight_filler"),
            bias_filler=FillerSpec.read(message, "bias_filler"),
        )
        if self.params.num_output < 1:
            raise spec.error("num_output is missing; give 1 or more", message.line)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        axis = canonical_axis(self.params.axis, len(bottoms[0]), self.spec)
        return [(*bottoms[0][:axis], self.params.num_output)]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        params = self.params
        count = math.prod(bottoms[0][canonical_axis(params.axis, len(bottoms[0]), self.spec) :])
        weight = (count, params.num_output) if params.transpose else (params.num_output, count)
        specs = [BlobSpec(weight, params.weight_filler, *self.multipliers(0))]
        if params.bias:
            specs.append(BlobSpec((params.num_output,), params.bias_filler, *self.multipliers(1)))
        return specs

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        weight = self.blobs[0].t() if self.params.transpose else self.blobs[0]
        return [F.linear(tensors[0].flatten(self.params.axis), weight, self.blobs[1] if self.params.bias else None)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name = self.spec.name
        axis = self.params.axis % graph.rank(bottoms[0])
        weight = self.array(0) if self.params.transpose else self.array(0).T.copy()
        rows = graph.fresh(f"{name}_rows")
        shape = graph.constant(int64(*[0] * axis, weight.shape[0]), f"{name}_shape")
        graph.node("Reshape", [bottoms[0], shape], [rows])
        product = graph.fresh(f"{name}_product") if self.params.bias else tops[0]
        graph.node("MatMul", [rows, graph.constant(weight, f"{name}_weight")], [product])
        if self.params.bias:
            graph.node("Add", [product, graph.constant(self.array(1), f"{name}_bias")], tops)
