"""SPP: spatial pyramid pooling, a vector of fixed length from a plane of any size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, int64, register

if TYPE_CHECKING:
    import torch

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class SPPParams:
    """Caffe's SPPParameter."""

    height: int
    maximum: bool


@register("SPP")
class SPP(Layer):
    """For each level l the plane is cut into 2**l x 2**l bins, which are pooled and flattened; all levels behind one
    another (He et al., 2014); one level alone stays a plane of one bin. Along an axis of n values and b bins a bin has
    k = ceil(n / b) values, and the b k - n values that are missing are padding, one half (rounded up) before and the
    rest behind; AVE counts it as zeros."""

    fresh_tops = True
    spatial_axes = (2, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("spp_param")
        pool = str(message.get("pool"))
        if pool not in ("MAX", "AVE"):
            raise spec.error(f"pool {pool} is not supported; allowed: MAX, AVE", message.line)
        self.params = SPPParams(int(message.get("pyramid_height")), pool == "MAX")
        if not 1 <= self.params.height <= 16:
            raise spec.error(f"pyramid_height {self.params.height}; allowed: 1 to 16", message.line)

    @staticmethod
    def bins(size: int, count: int) -> tuple[int, int, int]:
        """(values in a bin, padding before, padding behind) along an axis."""
        kernel = -(-size // count)
        missing = kernel * count - size
        return kernel, (missing + 1) // 2, missing // 2

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = bottoms[0]
        if len(shape) != 4:
            raise self.spec.error(f"bottom has shape {shape}; allowed: 4 axes")
        for level in range(self.params.height):
            for size in shape[2:]:
                kernel, before, _ = self.bins(size, 2**level)
                if before >= kernel:
                    raise self.spec.error(
                        f"bottom of shape {shape} is too small for {2**level} bins a side: a bin of {kernel} would be "
                        f"padding only ({before}); give a pyramid_height of {level} at most"
                    )
        if self.params.height == 1:
            return [(*shape[:2], 1, 1)]
        return [(shape[0], shape[1] * sum(4**level for level in range(self.params.height)))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch
        from torch.nn import functional as F

        x, levels = tensors[0], []
        for level in range(self.params.height):
            count = 2**level
            (high, top, bottom), (wide, left, right) = (self.bins(size, count) for size in x.shape[2:])
            filled = F.pad(x, (left, right, top, bottom), value=_LOWEST if self.params.maximum else 0.0)
            pool = F.max_pool2d if self.params.maximum else F.avg_pool2d
            levels.append(pool(filled, (high, wide)).flatten(1))
        return [torch.cat(levels, 1) if len(levels) > 1 else levels[0][..., None, None]]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """The sizes of bins are computed at run time: a pooling node would fix them."""
        name, x = self.spec.name, bottoms[0]

        def step(op: str, inputs: list[str], part: str, **attributes: int) -> str:
            value = graph.fresh(f"{name}_{part}")
            graph.node(op, inputs, [value], **attributes)
            return value

        def number(value: int, part: str) -> str:
            return graph.constant(int64(value), f"{name}_{part}")

        zeros, one, two = graph.constant(int64(0, 0), f"{name}_zeros"), number(1, "one"), number(2, "two")
        fill = graph.constant(np.array(_LOWEST if self.params.maximum else 0, np.float32), f"{name}_fill")
        axes = graph.constant(int64(3, 5), f"{name}_axes")
        size = step("Shape", [x], "size", start=2)
        same = graph.constant(int64(0, 0), f"{name}_same")
        levels = []
        for level in range(self.params.height):
            count = number(2**level, f"bins{level}")
            kernel = step("Div", [step("Add", [size, number(2**level - 1, "up")], "upper"), count], "kernel")
            missing = step("Sub", [step("Mul", [kernel, count], "whole"), size], "missing")
            before = step("Div", [step("Add", [missing, one], "odd"), two], "before")
            behind = step("Sub", [missing, before], "behind")
            pads = step("Concat", [zeros, before, zeros, behind], "pads", axis=0)
            filled = step("Pad", [x, pads, fill], "filled")
            high = step("Gather", [kernel, number(0, "first")], "high", axis=0)
            wide = step("Gather", [kernel, number(1, "second")], "wide", axis=0)
            shape = step("Concat", [same, count, high, count, wide], "shape", axis=0)
            apart = step("Reshape", [filled, shape], "apart")
            pooled = step("ReduceMax" if self.params.maximum else "ReduceMean", [apart, axes], "pooled", keepdims=0)
            levels.append(step("Flatten", [pooled], "level", axis=1))
        if len(levels) == 1:
            graph.node("Unsqueeze", [levels[0], graph.constant(int64(2, 3), f"{name}_plane")], tops)
            return
        graph.node("Concat", levels, tops, axis=1)
