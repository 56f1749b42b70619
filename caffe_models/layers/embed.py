"""Embed: a learnt vector for each index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.fillers import FillerSpec
from caffe_models.layer import INT64, BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EmbedParams:
    """Caffe's EmbedParameter: `input_dim` vectors of `num_output` values."""

    num_output: int
    input_dim: int
    bias: bool
    weight_filler: FillerSpec
    bias_filler: FillerSpec


@register("Embed")
class Embed(Layer):
    """Row `i` of the weight for each index `i` (a whole number as float) of the bottom, plus the bias; the top has one
    axis more than the bottom. Blobs: weight (input_dim, num_output), bias (num_output)."""

    fresh_tops = True

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("embed_param")
        self.params = EmbedParams(
            num_output=int(message.get("num_output")),
            input_dim=int(message.get("input_dim")),
            bias=bool(message.get("bias_term")),
            weight_filler=FillerSpec.read(message, "weight_filler"),
            bias_filler=FillerSpec.read(message, "bias_filler"),
        )
        if self.params.num_output < 1 or self.params.input_dim < 1:
            found = f"num_output {self.params.num_output}, input_dim {self.params.input_dim}"
            raise spec.error(f"{found}; both must be given and be 1 or more", message.line)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [(*bottoms[0], self.params.num_output)]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        params = self.params
        specs = [BlobSpec((params.input_dim, params.num_output), params.weight_filler, *self.multipliers(0))]
        if params.bias:
            specs.append(BlobSpec((params.num_output,), params.bias_filler, *self.multipliers(1)))
        return specs

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        indices, count = tensors[0].detach().to(torch.int64), self.params.input_dim
        wrong = indices[(indices < 0) | (indices >= count)]
        if wrong.numel():
            where = f'{self.spec.source}:{self.spec.line}: layer "{self.spec.name}"'
            raise NetError(f"{where}: index {int(wrong[0])} in its bottom; allowed: 0 to {count - 1}")
        rows = self.blobs[0][indices]
        return [rows + self.blobs[1] if self.params.bias else rows]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name = self.spec.name
        indices = graph.fresh(f"{name}_indices")
        graph.node("Cast", [bottoms[0]], [indices], to=INT64)
        rows = graph.fresh(f"{name}_rows") if self.params.bias else tops[0]
        graph.node("Gather", [graph.constant(self.array(0), f"{name}_weight"), indices], [rows], axis=0)
        if self.params.bias:
            graph.node("Add", [rows, graph.constant(self.array(1), f"{name}_bias")], tops)
