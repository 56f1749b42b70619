"""Pooling, maximum, average or stochastic, in two or three spatial dimensions, in the three dialects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, int64, knows, register
from caffe_models.nd import per_axis, pooled, read_axes, values

if TYPE_CHECKING:
    import torch

_LOWEST = float(np.finfo(np.float32).min)  # what a maximum over nothing is in Caffe: -FLT_MAX


@dataclass(frozen=True)
class PoolingParams:
    """Caffe's PoolingParameter; sizes are as written: empty, one for all axes, or one each."""

    maximum: bool
    stochastic: bool
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    whole: bool
    include_pad: bool
    ceil: bool

    @staticmethod
    def read(spec: LayerSpec) -> "PoolingParams":
        """From `pooling_param`; Intel's 3-D fields (`kernel_size_3d` ...) take the place of the plain ones."""
        message = spec.param("pooling_param")
        mkl = spec.engine.upper().startswith("MKL") and knows(message, "avg_include_pad")  # the CAFFE engine ignores it
        pool = str(message.get("pool"))
        params = PoolingParams(
            maximum=pool == "MAX",
            stochastic=pool == "STOCHASTIC",
            kernel=values(message, "kernel_size_3d") or read_axes(message, "kernel_size", spec, "kernel"),
            stride=values(message, "stride_3d") or read_axes(message, "stride", spec),
            pad=values(message, "pad_3d") or read_axes(message, "pad", spec),
            whole=bool(message.get("global_pooling")),
            include_pad=not mkl or bool(message.get("avg_include_pad")),
            ceil=str(message.get("round_mode")) != "FLOOR" if knows(message, "round_mode") else True,
        )
        if params.whole and params.kernel:
            raise spec.error("global_pooling takes its kernel from the input; remove kernel_size", message.line)
        if params.whole and (any(params.pad) or any(one != 1 for one in params.stride)):
            raise spec.error("global_pooling needs pad 0 and stride 1", message.line)
        if params.stochastic and any(params.pad):
            raise spec.error("pool STOCHASTIC takes no pad", message.line)
        if not params.whole and (not params.kernel or any(one < 1 for one in params.kernel + params.stride)):
            raise spec.error("kernel_size and stride must be given and be 1 or more", message.line)
        return params


@register("Pooling")
class Pooling(Layer):
    """Rounds sizes up. AVE divides by the window clipped to input plus padding, so zeros of the padding count.

    STOCHASTIC (2-D, on GPUs only in Caffe) draws a value of the window with a probability in proportion to it in the
    TRAIN phase, and is the mean weighted by the values themselves in TEST (Zeiler, Fergus, 2013); for values >= 0.
    """

    fresh_tops = True
    spatial_axes = (2, 3)
    note = "bvlc: 2-D only"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = PoolingParams.read(spec)

    def geometry(self, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(kernel, stride, pad), one value for each of `axes` spatial axes."""
        params, spec = self.params, self.spec
        kernel = per_axis(params.kernel, axes, 1, "kernel_size", spec)
        pad = per_axis(params.pad, axes, 0, "pad", spec)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)) and not params.whole:
            raise spec.error(f"pad {pad} must be smaller than kernel_size {kernel}")
        if not params.include_pad and any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
            raise spec.error(f"avg_include_pad: false needs a pad {pad} of at most half the kernel_size {kernel}")
        return kernel, per_axis(params.stride, axes, 1, "stride", spec), pad

    def sizes(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Spatial output sizes."""
        kernel, stride, pad = self.geometry(len(spatial))
        every = zip(spatial, kernel, stride, pad, strict=True)
        return tuple(pooled(n, k, s, p, any(pad), self.params.ceil) for n, k, s, p in every)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        shape = bottoms[0]
        axes = len(shape) - 2
        if axes not in (2, 3) or (axes == 3 and self.spec.dialect == "bvlc"):
            allowed = "4 axes in the bvlc dialect" if self.spec.dialect == "bvlc" else "4 or 5 axes"
            raise self.spec.error(f"bottom has shape {shape}; allowed: {allowed}")
        message = self.spec.param("pooling_param")
        if self.params.stochastic and axes != 2:
            raise self.spec.error(f"bottom has shape {shape}; pool STOCHASTIC needs 4 axes", message.line)
        if self.params.whole:
            return [(*shape[:2], *[1] * axes)]
        if axes == 3 and self.spec.dialect == "intel" and not message.has("kernel_size_3d"):
            raise self.spec.error("5 axes need kernel_size_3d (stride_3d, pad_3d) in the intel dialect", message.line)
        kernel, stride, pad = self.geometry(axes)
        if any(n + 2 * p < k for n, k, p in zip(shape[2:], kernel, pad, strict=True)):
            raise self.spec.error(f"kernel_size {kernel} is larger than the padded bottom {shape}")
        out = self.sizes(shape[2:])
        empty = [(o - 1) * s >= n + p for n, o, s, p in zip(shape[2:], out, stride, pad, strict=True)]
        if any(empty) and (axes == 3 or not self.params.maximum) and not self.params.stochastic:
            raise self.spec.error(
                f"the last window lies outside the bottom {shape}: kernel_size {kernel} < stride {stride}"
            )
        return [(*shape[:2], *out)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        """In the type of the bottom: autocast would pool in float32, which takes ten times as long for bfloat16."""
        import torch
        from torch.nn import functional as F

        x, maximum = tensors[0], self.params.maximum
        axes = x.ndim - 2
        if self.params.stochastic:
            return [self._stochastic(x)]
        if self.params.whole:
            adaptive = (F.adaptive_max_pool2d, F.adaptive_max_pool3d)[axes - 2]
            return [adaptive(x, 1) if maximum else x.mean(tuple(range(2, x.ndim)), keepdim=True)]
        kernel, stride, pad = self.geometry(axes)
        out, ceil = self.sizes(x.shape[2:]), self.params.ceil
        every = list(zip(x.shape[2:], out, kernel, stride, pad, strict=True))
        # torch clips whether or not there is padding, and pads by half the kernel at most
        native = all(o == pooled(n, k, s, p, True, ceil) and 2 * p <= k for n, o, k, s, p in every)
        if not native:
            beyond = [max(p, (o - 1) * s + k - n - p) if maximum else p for n, o, k, s, p in every]
            margins = [side for p, b in reversed(list(zip(pad, beyond, strict=True))) for side in (p, b)]
            x, pad = F.pad(x, margins, value=_LOWEST if maximum else 0.0), (0,) * axes
        with torch.autocast(x.device.type, enabled=False):
            if maximum:
                y = (F.max_pool2d, F.max_pool3d)[axes - 2](x, kernel, stride, pad, ceil_mode=ceil)
            else:
                y = (F.avg_pool2d, F.avg_pool3d)[axes - 2](x, kernel, stride, pad, ceil, self.params.include_pad)
        for axis, extent in enumerate(out, 2):
            y = y if y.shape[axis] == extent else y.narrow(axis, 0, extent)
        return [y]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Without ceil_mode, on which runtimes disagree: p + s - 1 of padding behind makes floor what ceil is without
        it, and at most k - 1 of it drops the windows that would start beyond the input and its left padding."""
        if self.params.stochastic:
            self._stochastic_onnx(graph, bottoms[0], tops[0])
            return
        if self.params.whole:
            graph.node("GlobalMaxPool" if self.params.maximum else "GlobalAveragePool", bottoms, tops)
            return
        axes = graph.rank(bottoms[0]) - 2
        kernel, stride, pad = self.geometry(axes)
        every = list(zip(kernel, stride, pad, strict=True))
        wide = [p + s - 1 if self.params.ceil else p for k, s, p in every]
        behind = [min(k - 1, one) for one, (k, _, _) in zip(wide, every, strict=True)] if any(pad) else wide
        x = bottoms[0]
        before = list(pad)
        if self.params.maximum and any(one >= k for one, k in zip(behind, kernel, strict=True)):
            x = self._padded(
                graph, x, before, behind, _LOWEST
            )  # windows that see nothing; runtimes refuse such padding
            before, behind = [0] * axes, [0] * axes
        if self.params.maximum:
            graph.node("MaxPool", [x], tops, kernel_shape=kernel, strides=stride, pads=(*before, *behind))
            return
        if self.params.include_pad and any(pad):
            x = self._padded(graph, x, before, before, 0.0)  # counts as input; what lies behind it must not count
            before, behind = [0] * axes, [b - p for b, p in zip(behind, pad, strict=True)]
        graph.node(
            "AveragePool", [x], tops, kernel_shape=kernel, strides=stride, pads=(*before, *behind), count_include_pad=0
        )

    def _stochastic(self, x: "torch.Tensor") -> "torch.Tensor":
        import torch
        from torch.nn import functional as F

        kernel, stride, _ = self.geometry(2) if not self.params.whole else (tuple(x.shape[2:]), (1, 1), (0, 0))
        out = (1, 1) if self.params.whole else self.sizes(x.shape[2:])
        every = zip(x.shape[2:], out, kernel, stride, strict=True)
        (high, wide) = (max(0, (o - 1) * s + k - n) for n, o, k, s in every)
        windows = F.pad(x, (0, wide, 0, high))
        for axis in (2, 3):
            windows = windows.unfold(axis, kernel[axis - 2], stride[axis - 2]).narrow(axis, 0, out[axis - 2])
        values = windows.flatten(4)
        total = values.sum(-1)
        if self.spec.phase == "TEST":
            weighted = values.square().sum(-1)
            return torch.where(total > 0, weighted / total.where(total > 0, 1.0), 0.0)
        limit = torch.rand_like(total) * total
        reached = values.detach().cumsum(-1) >= limit[..., None]
        return values.gather(-1, reached.to(torch.uint8).argmax(-1, keepdim=True)).squeeze(-1)

    def _stochastic_onnx(self, graph: OnnxGraph, x: str, top: str) -> None:
        """The averages of squares and of values over the same windows: their counts cancel."""
        name = self.spec.name
        square, above, below, positive, safe, ratio = (
            graph.fresh(f"{name}_{part}") for part in ("square", "above", "below", "positive", "safe", "ratio")
        )
        zero, one = (graph.constant(np.array(v, np.float32), f"{name}_{v}") for v in (0, 1))
        graph.node("Mul", [x, x], [square])
        for source, mean in ((square, above), (x, below)):
            if self.params.whole:
                graph.node("GlobalAveragePool", [source], [mean])
                continue
            kernel, stride, _ = self.geometry(2)
            source = self._padded(graph, source, [0, 0], [s - 1 for s in stride], 0.0)
            graph.node("AveragePool", [source], [mean], kernel_shape=kernel, strides=stride)
        graph.node("Greater", [below, zero], [positive])
        graph.node("Where", [positive, below, one], [safe])
        graph.node("Div", [above, safe], [ratio])
        graph.node("Where", [positive, ratio, zero], [top])

    def _padded(self, graph: OnnxGraph, x: str, before: list[int], behind: list[int], value: float) -> str:
        name = self.spec.name
        result = graph.fresh(f"{name}_padded")
        pads = graph.constant(int64(0, 0, *before, 0, 0, *behind), f"{name}_pads")
        graph.node("Pad", [x, pads, graph.constant(np.array(value, np.float32), f"{name}_pad_value")], [result])
        return result
