"""Bias: addition of a learnt blob or of a second bottom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.broadcast import check_fits, covered, lined_up, lined_up_onnx, trailing_ones
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BiasParams:
    """Caffe's BiasParameter; num_axes serves learnt biases only."""

    axis: int
    num_axes: int
    filler: FillerSpec


@register("Bias")
class Bias(Layer):
    """y = x + bias, laid over the axes from `axis` on. Blob: bias, if there is one bottom."""

    bottoms_allowed = (1, 2)
    fresh_tops = True

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("bias_param")
        filler = FillerSpec.read(message, "filler")
        self.params = BiasParams(int(message.get("axis")), int(message.get("num_axes")), filler)
        self.learnt = len(spec.bottoms) == 1

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not self.learnt:
            check_fits(bottoms, self.params.axis, self.spec)
        return [bottoms[0]]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        if not self.learnt:
            return []
        shape = covered(bottoms[0], self.params.axis, self.params.num_axes, self.spec)
        return [BlobSpec(shape, self.params.filler, *self.multipliers(0))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return [tensors[0] + lined_up(self.blobs[0] if self.learnt else tensors[1], tensors[0], self.params.axis)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, axis = self.spec.name, self.params.axis
        if self.learnt:
            blob = self.array(0)
            ones = trailing_ones(graph.rank(bottoms[0]), axis, blob.ndim)
            bias = graph.constant(blob.reshape((*blob.shape, *[1] * ones)), f"{name}_bias")
        else:
            bias = lined_up_onnx(graph, bottoms[1], bottoms[0], axis, name)
        graph.node("Add", [bottoms[0], bias], tops)
