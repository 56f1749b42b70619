"""Dropout."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.errors import warn
from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DropoutParams:
    """Probability that a value is dropped."""

    dropout_ratio: float


@register("Dropout")
class Dropout(Layer):
    """TRAIN: each value is 0 with probability p, else x / (1 - p). TEST: the bottom itself."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = DropoutParams(float(spec.param("dropout_param").get("dropout_ratio")))
        ratio = self.params.dropout_ratio
        # Caffe accepts a ratio of 1, which is harmless in TEST and divides by zero in TRAIN
        if not 0 <= ratio <= 1 or (ratio == 1 and spec.phase == "TRAIN"):
            raise spec.error(f"dropout_ratio {ratio:g}; allowed: 0 to less than 1", spec.param("dropout_param").line)
        if ratio == 1:
            text = "dropout_ratio 1 drops everything in training; allowed: 0 to less than 1"
            warn(str(spec.error(text, spec.param("dropout_param").line)))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        if self.spec.phase == "TEST" or self.params.dropout_ratio == 0:
            return [tensors[0]]
        if self.share is not None:
            return [tensors[0] * self.share.own(self._mask(tensors[0], self.share.processes))]
        return [F.dropout(tensors[0], self.params.dropout_ratio, training=True)]

    def _mask(self, rows: "torch.Tensor", processes: int) -> "torch.Tensor":
        """Factors for the whole batch, as PyTorch's dropout draws them for it, so that every process has the same."""
        import torch

        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(rows.ndim, torch.contiguous_format)
        layout = last if rows.is_contiguous(memory_format=last) else torch.contiguous_format
        whole = torch.empty((processes * len(rows), *rows.shape[1:]), dtype=rows.dtype, memory_format=layout)
        kept = 1.0 - self.params.dropout_ratio
        return whole.bernoulli_(kept).div_(kept)

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        graph.node("Identity", bottoms, tops)
