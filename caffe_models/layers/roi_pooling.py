"""ROIPooling of Fast R-CNN: each box max-pooled to a fixed number of bins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ROIPoolingParams:
    """Bins (rows, columns), and what a box's coordinates are multiplied by."""

    bins: tuple[int, int]
    scale: float


@register("ROIPooling")
class ROIPooling(Layer):
    """Bottoms: planes (N, C, H, W), and boxes (R, 5) of batch index, x1, y1, x2, y2; top (R, C, pooled_h, pooled_w).

    Coordinates are scaled and rounded, halves away from 0; a box spans end - start + 1 cells, at least 1. Bin i of P
    over n cells is [floor(i n / P), ceil((i + 1) n / P)), clipped to the plane; an empty one gives 0 (Girshick, 2015).
    Fast R-CNN computes i (n / P) in float32, Intel Caffe in whole numbers: of 7 bins over 57 cells the last ends at 58
    or at 57; such extents are rare.
    """

    bottoms_allowed = (2, 2)
    fresh_tops = True
    dialects = ("intel", "extended")
    spatial_axes = (2, 2)
    note = (
        "bins are rounded in float32 (intel: whole numbers, exact in PyTorch and OpenVINO); ONNX Runtime computes in "
        "float32 and OpenVINO in whole numbers, which differs by one cell for few extents, e.g. 7 bins over 57 cells"
    )

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("roi_pooling_param")
        bins = (int(message.get("pooled_h")), int(message.get("pooled_w")))
        if min(bins) < 1:
            raise spec.error(f"pooled_h, pooled_w {bins}; both must be given and be 1 or more", message.line)
        self.params = ROIPoolingParams(bins, float(message.get("spatial_scale")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        planes, boxes = bottoms
        if len(planes) != 4 or len(boxes) < 2 or boxes[1] != 5 or any(extent != 1 for extent in boxes[2:]):
            raise self.spec.error(f"bottoms of shapes {planes} and {boxes}; allowed: (N, C, H, W) and (R, 5)")
        return [(boxes[0], planes[1], *self.params.bins)]

    def edges(self, cells: "torch.Tensor", bins: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """Begin and end of each bin, shape (R, bins), for boxes of so many cells."""
        import torch

        numbers = torch.arange(bins, device=cells.device)
        if self.spec.dialect == "intel":
            return (numbers * cells[:, None]) // bins, -((-(numbers + 1) * cells[:, None]) // bins)
        size = cells[:, None].float() / float(bins)
        return (numbers.float() * size).floor().long(), ((numbers + 1).float() * size).ceil().long()

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        planes, boxes = tensors[0], tensors[1].detach().float().reshape(-1, 5)
        batch = boxes[:, 0].long()
        if len(batch) and (int(batch.min()) < 0 or int(batch.max()) >= planes.shape[0]):
            spec = self.spec
            raise NetError(
                f'{spec.source}:{spec.line}: layer "{spec.name}": boxes for batch indices {int(batch.min())} to '
                f"{int(batch.max())}; allowed: 0 to {planes.shape[0] - 1}"
            )
        scaled = boxes[:, 1:] * self.params.scale
        corners = (scaled.sign() * (scaled.abs() + 0.5).floor()).long()  # C's round: halves away from 0
        value = planes[batch]  # R, C, H, W
        empty = torch.zeros(len(batch), 1, 1, 1, dtype=torch.bool, device=planes.device)
        for axis, (low, high) in ((2, (corners[:, 1], corners[:, 3])), (3, (corners[:, 0], corners[:, 2]))):
            extent, bins = planes.shape[axis], self.params.bins[axis - 2]
            begin, end = (
                (edge + low[:, None]).clamp(0, extent) for edge in self.edges((high - low + 1).clamp(min=1), bins)
            )
            places = torch.arange(extent, device=planes.device)
            parts = []
            for one in range(bins):
                outside = (places < begin[:, one, None]) | (places >= end[:, one, None])  # R, extent
                column = outside[:, None, :, None] if axis == 2 else outside[:, None, None, :]
                parts.append(value.masked_fill(column, -torch.inf).max(axis, keepdim=True).values)
            value = torch.cat(parts, axis)
            gone = (end <= begin)[:, None, :, None] if axis == 2 else (end <= begin)[:, None, None, :]
            empty = empty | gone
        return [value.masked_fill(empty, 0.0)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        boxes = bottoms[1]
        if graph.rank(boxes) > 2:
            boxes = graph.fresh(f"{self.spec.name}_boxes")
            graph.node("Flatten", [bottoms[1]], [boxes], axis=1)
        pooled = {"pooled_shape": list(self.params.bins), "spatial_scale": self.params.scale}
        graph.node("MaxRoiPool", [bottoms[0], boxes], tops, **pooled)
