"""BatchReindex: examples of a batch chosen, repeated or put in another order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.layer import INT64, Layer, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@register("BatchReindex")
class BatchReindex(Layer):
    """Top example `n` is bottom example `index[n]`. Bottoms: a blob, and the indices (one axis, whole numbers)."""

    bottoms_allowed = (2, 2)
    fresh_tops = True

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if len(bottoms[1]) != 1 or not bottoms[0]:
            raise self.spec.error(f"bottoms of shapes {bottoms[0]} and {bottoms[1]}; the indices must have one axis")
        return [(*bottoms[1], *bottoms[0][1:])]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        indices, count = tensors[1].detach().to(torch.int64), tensors[0].shape[0]
        wrong = indices[(indices < 0) | (indices >= count)]
        if wrong.numel():
            spec = self.spec
            where = f'{spec.source}:{spec.line}: layer "{spec.name}"'
            raise NetError(f'{where}: index {int(wrong[0])} in blob "{spec.bottoms[1]}"; allowed: 0 to {count - 1}')
        return [tensors[0][indices]]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        indices = graph.fresh(f"{self.spec.name}_indices")
        graph.node("Cast", [bottoms[1]], [indices], to=INT64)
        graph.node("Gather", [bottoms[0], indices], tops, axis=0)
