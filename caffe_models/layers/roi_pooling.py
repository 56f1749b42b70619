"""ROIPooling of Fast R-CNN: each box max-pooled to a fixed number of bins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError
from caffe_models.layer import FLOAT, INT64, Layer, LayerSpec, OnnxGraph, Shape, int64, register

if TYPE_CHECKING:
    import torch


_MOST_CELLS = 1024
"""Boxes from this many cells a side on are rounded in whole numbers in exported nets."""


@cache
def float32_differs(bins: int, up: bool) -> npt.NDArray[np.float32]:
    """By how many cells Fast R-CNN's float32 begins (`up`: ends) of bins lie off those in whole numbers; a row for each
    number of cells a box has, a column for each bin. Nearly all are 0."""
    cells = np.arange(_MOST_CELLS + 1)[:, None]
    numbers = np.arange(bins) + up
    size = cells.astype(np.float32) / np.float32(bins)
    edge = numbers.astype(np.float32) * size
    whole = -(-numbers * cells // bins) if up else numbers * cells // bins
    differs = (np.ceil(edge) if up else np.floor(edge)) - whole
    differs[-1] = 0
    return np.asarray(differs, np.float32)


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
    note = "bins are rounded in float32, as by Fast R-CNN, in intel files in whole numbers"

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
        """Every bin as a box of its own, pooled to 1 x 1: with several bins the engines' MaxRoiPool disagree about the
        rounding (ONNX Runtime as Fast R-CNN, OpenVINO as Intel Caffe), with one there is nothing to round."""
        name, rank, channels = self.spec.name, graph.rank(bottoms[1]), graph.shape(bottoms[0])[1]
        high, wide = self.params.bins

        def step(op: str, inputs: list[str], part: str, **attributes: int) -> str:
            value = graph.fresh(f"{name}_{part}")
            graph.node(op, inputs, [value], **attributes)
            return value

        def number(value: float, part: str) -> str:
            return graph.constant(np.array(value, np.float32), f"{name}_{part}")

        def span(low: str, last: str, bins: int, axis: int) -> tuple[str, str, str]:
            """Begin, last cell and emptiness of each bin, in the plane; (R, bins)."""
            one, zero = number(1, "one"), number(0, "zero")
            cells = step("Max", [step("Add", [step("Sub", [last, low], "extent"), one], "cells"), one], "cells")
            edges = np.arange(bins + 1, dtype=np.float32)[None]
            begin, end = (graph.constant(part, f"{name}_bins") for part in (edges[:, :-1], edges[:, 1:]))
            begin, end = (
                self._edges_onnx(step, graph, cells, begin, bins),
                self._edges_onnx(step, graph, cells, end, bins, up=True),
            )
            size = step("Cast", [step("Shape", [bottoms[0]], "size", start=axis, end=axis + 1)], "size", to=FLOAT)
            begin, end = (
                step("Min", [step("Max", [step("Add", [edge, low], "edge"), zero], "inside"), size], "clipped")
                for edge in (begin, end)
            )
            empty = step("LessOrEqual", [end, begin], "empty")
            return begin, step("Sub", [end, one], "last"), empty

        boxes = step("Flatten", [bottoms[1]], "boxes", axis=1) if rank > 2 else bottoms[1]
        parts = [graph.fresh(f"{name}_{part}") for part in ("batch", "x1", "y1", "x2", "y2")]
        graph.node("Split", [boxes], parts, axis=1, num_outputs=5)
        corners = []
        for part in parts[1:]:
            scaled = step("Mul", [part, number(self.params.scale, "scale")], "scaled")
            size = step("Floor", [step("Add", [step("Abs", [scaled], "size"), number(0.5, "half")], "more")], "whole")
            corners.append(step("Mul", [step("Sign", [scaled], "sign"), size], "corner"))
        x1, y1, x2, y2 = corners
        left, right, narrow = span(x1, x2, wide, 3)
        top, bottom, flat = span(y1, y2, high, 2)
        grid = graph.constant(int64(graph.shape(bottoms[1])[0], high, wide), f"{name}_grid")
        column, row = graph.constant(int64(2), f"{name}_column"), graph.constant(int64(1), f"{name}_row")
        shape = graph.constant(int64(-1, 1), f"{name}_each")

        def spread(value: str, axis: str) -> str:
            """One value for each bin of each box, as a column."""
            return step(
                "Reshape", [step("Expand", [step("Unsqueeze", [value, axis], "apart"), grid], "grid"), shape], "each"
            )

        batch = spread(parts[0], column)
        each = [spread(left, row), spread(top, column), spread(right, row), spread(bottom, column)]
        every = step("Concat", [batch, *each], "bins", axis=1)
        pooled = graph.fresh(f"{name}_pooled")
        graph.node("MaxRoiPool", [bottoms[0], every], [pooled], pooled_shape=[1, 1], spatial_scale=1.0)
        places = graph.constant(int64(graph.shape(bottoms[1])[0], high, wide, channels), f"{name}_places")
        ordered = graph.fresh(f"{name}_ordered")
        graph.node("Transpose", [step("Reshape", [pooled, places], "apart")], [ordered], perm=[0, 3, 1, 2])
        gone = step(
            "Or", [step("Unsqueeze", [narrow, row], "narrow"), step("Unsqueeze", [flat, column], "flat")], "gone"
        )
        graph.node("Where", [step("Unsqueeze", [gone, row], "empty"), number(0, "zero"), ordered], tops)

    def _edges_onnx(
        self, step: Callable[..., str], graph: OnnxGraph, cells: str, numbers: str, bins: int, up: bool = False
    ) -> str:
        """As `edges`, in whole numbers, which every engine divides alike; where float32 rounds to another cell, a table
        by the number of cells says so (OpenVINO multiplies by a reciprocal where it is told to divide)."""
        name = self.spec.name
        whole = step("Cast", [step("Mul", [numbers, cells], "product")], "whole", to=INT64)
        if up:
            whole = step("Add", [whole, graph.constant(int64(bins - 1), f"{name}_up")], "up")
        edge = step("Div", [whole, graph.constant(int64(bins), f"{name}_count")], "bin")
        edge = step("Cast", [edge], "edge", to=FLOAT)
        if self.spec.dialect == "intel":
            return edge
        row = step("Min", [cells, graph.constant(np.array(_MOST_CELLS, np.float32), f"{name}_most")], "row")
        row = step("Squeeze", [step("Cast", [row], "row", to=INT64), graph.constant(int64(1), f"{name}_side")], "row")
        table = graph.constant(float32_differs(bins, up), f"{name}_differs")
        return step("Add", [edge, step("Gather", [table, row], "differs", axis=0)], "edge")
