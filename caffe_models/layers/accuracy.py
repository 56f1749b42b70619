"""Accuracy of classification."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import FLOAT, INT64, Layer, LayerSpec, OnnxGraph, Shape, canonical_axis, int64, register
from caffe_models.normalization import check_labels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AccuracyParams:
    """Caffe's AccuracyParameter."""

    top_k: int
    axis: int
    ignore_label: int | None


@register("Accuracy")
class Accuracy(Layer):
    """The share of places whose label is among the top_k scores along `axis`; equal scores count against the label.

    Bottoms: scores, and class numbers (as floats), one for each place outside `axis`. No gradients. A second top holds
    the share for each class, 0 for a class without places.
    """

    bottoms_allowed = (2, 2)
    tops_allowed = (1, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("accuracy_param")
        ignored = int(message.get("ignore_label")) if message.has("ignore_label") else None
        self.params = AccuracyParams(int(message.get("top_k")), int(message.get("axis")), ignored)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        scores, labels = bottoms
        axis = canonical_axis(self.params.axis, len(scores), self.spec)
        places = math.prod(scores) // scores[axis]
        if math.prod(labels) != places:
            raise self.spec.error(f"labels of shape {labels} for scores {scores}: {places} labels are needed")
        if not 1 <= self.params.top_k <= scores[axis]:
            raise self.spec.error(f"top_k {self.params.top_k}; allowed: 1 to {scores[axis]}, the number of classes")
        return [(), (scores[axis],)][: len(self.spec.tops)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        scores = tensors[0].detach().movedim(self.params.axis, -1)
        rows = scores.reshape(-1, scores.shape[-1])
        labels, counted = check_labels(tensors[1], rows.shape[1], self.params.ignore_label, self.spec)
        rivals = (rows >= rows.gather(1, labels[:, None])).sum(1)
        hits = (rivals <= self.params.top_k) & counted
        overall = hits.sum().float() / counted.sum().clamp(min=1)
        if len(self.spec.tops) == 1:
            return [overall]
        classes = rows.shape[1]
        places, right = (labels[chosen].bincount(minlength=classes) for chosen in (counted, hits))
        return [overall, right.float() / places.clamp(min=1)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name = self.spec.name
        axis = self.params.axis % graph.rank(bottoms[0])

        def step(op: str, inputs: list[str], part: str, **attributes: int) -> str:
            value = graph.fresh(f"{name}_{part}")
            graph.node(op, inputs, [value], **attributes)
            return value

        one, zero = graph.constant(int64(1), f"{name}_one"), graph.constant(int64(0), f"{name}_zero")
        before = step("Shape", [bottoms[0]], "before", start=0, end=axis)
        behind = step("Shape", [bottoms[0]], "behind", start=axis + 1)
        shape = step("Concat", [before, one, behind], "shape", axis=0)
        labels = step("Cast", [step("Reshape", [bottoms[1], shape], "column")], "labels", to=INT64)
        ignored = -(2**31) if self.params.ignore_label is None else self.params.ignore_label
        ignore = step("Equal", [labels, graph.constant(int64(ignored), f"{name}_ignore_label")], "ignored")
        counted = step("Cast", [step("Not", [ignore], "not_ignored")], "counted", to=FLOAT)
        safe = step("Where", [ignore, zero, labels], "safe")
        own = step("GatherElements", [bottoms[0], safe], "own", axis=axis)
        better = step("Cast", [step("GreaterOrEqual", [bottoms[0], own], "better")], "rivals_each", to=FLOAT)
        axes = graph.constant(int64(axis), f"{name}_axis")
        rivals = step("ReduceSum", [better, axes], "rivals", keepdims=1)
        limit = graph.constant(np.array(self.params.top_k, np.float32), f"{name}_top_k")
        right = step("Cast", [step("LessOrEqual", [rivals, limit], "right")], "right_each", to=FLOAT)
        hits = step("Mul", [right, counted], "hits")
        total = step("ReduceSum", [hits], "hits_total", keepdims=0)
        places = step("ReduceSum", [counted], "places", keepdims=0)
        least = graph.constant(np.array(1, np.float32), f"{name}_least")
        graph.node("Div", [total, step("Max", [places, least], "divisor")], tops[:1])
        if len(tops) == 1:
            return
        scalar = graph.constant(np.array(0, np.int64), f"{name}_nought")
        count = step("Squeeze", [step("Shape", [bottoms[0]], "classes", start=axis, end=axis + 1)], "count")
        numbers = step("Range", [scalar, count, graph.constant(np.array(1, np.int64), f"{name}_step")], "numbers")
        column = graph.constant(int64(-1, 1), f"{name}_flat")
        own = step(
            "Cast", [step("Equal", [step("Reshape", [safe, column], "flat"), numbers], "own_class")], "of", to=FLOAT
        )
        shares = []
        for values, part in ((hits, "hits"), (counted, "places")):
            flat = step("Reshape", [values, column], f"{part}_flat")
            shares.append(step("ReduceSum", [step("Mul", [own, flat], part), zero], f"{part}_of_class", keepdims=0))
        graph.node("Div", [shares[0], step("Max", [shares[1], least], "divisor")], tops[1:])
