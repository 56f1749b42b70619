"""Parameter: a learnt blob as a top."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ParameterParams:
    """The shape of the blob."""

    shape: Shape


@register("Parameter")
class Parameter(Layer):
    """The top is the layer's only blob, which starts as zeros; for sharing and for layers with two bottoms."""

    bottoms_allowed = (0, 0)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("parameter_param")
        self.params = ParameterParams(tuple(int(extent) for extent in message.get("shape").get("dim")))
        if any(extent < 1 for extent in self.params.shape):
            raise spec.error(f"shape {self.params.shape}; every extent must be 1 or more", message.line)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [self.params.shape]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        return [BlobSpec(self.params.shape, lr_mult=self.multipliers(0)[0], decay_mult=self.multipliers(0)[1])]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [self.blobs[0]]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Identity", [graph.constant(self.array(0), f"{self.spec.name}_blob")], tops)
