"""Scale: multiplication by a learnt blob or by a second bottom, with an optional learnt bias."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.broadcast import check_fits, covered, lined_up, lined_up_onnx, trailing_ones
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ScaleParams:
    """Caffe's ScaleParameter; num_axes serves learnt scales only."""

    axis: int
    num_axes: int
    bias: bool
    filler: FillerSpec
    bias_filler: FillerSpec


@register("Scale")
class Scale(Layer):
    """y = x * scale [+ bias], both laid over the axes from `axis` on. Blobs: scale (if one bottom), then bias."""

    bottoms_allowed = (1, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("scale_param")
        self.params = ScaleParams(
            axis=int(message.get("axis")),
            num_axes=int(message.get("num_axes")),
            bias=bool(message.get("bias_term")),
            filler=FillerSpec.read(message, "filler", FillerSpec(value=1.0)),
            bias_filler=FillerSpec.read(message, "bias_filler"),
        )
        self.learnt = len(spec.bottoms) == 1

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not self.learnt:
            check_fits(bottoms, self.params.axis, self.spec)
        return [bottoms[0]]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        params = self.params
        shape = covered(bottoms[0], params.axis, params.num_axes, self.spec) if self.learnt else bottoms[1]
        fillers = [params.filler] * self.learnt + [params.bias_filler] * params.bias
        return [BlobSpec(shape, filler, *self.multipliers(index)) for index, filler in enumerate(fillers)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        x, axis = tensors[0], self.params.axis
        scale = lined_up(self.blobs[0] if self.learnt else tensors[1], x, axis)
        if not self.params.bias:
            return [x * scale]
        return [torch.addcmul(lined_up(self.blobs[-1], x, axis), x, scale)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, axis, rank = self.spec.name, self.params.axis, graph.rank(bottoms[0])
        blobs = [self.array(index) for index in range(len(self.blobs))]
        blobs = [blob.reshape((*blob.shape, *[1] * trailing_ones(rank, axis, blob.ndim))) for blob in blobs]
        if self.learnt:
            scale = graph.constant(blobs[0], f"{name}_scale")
        else:
            scale = lined_up_onnx(graph, bottoms[1], bottoms[0], axis, name)
        scaled = graph.fresh(f"{name}_scaled") if self.params.bias else tops[0]
        graph.node("Mul", [bottoms[0], scale], [scaled])
        if self.params.bias:
            graph.node("Add", [scaled, graph.constant(blobs[-1], f"{name}_bias")], tops)
