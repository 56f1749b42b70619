"""A net cut in two at its first pooling, so that its largest blobs never stand in memory whole.

The layers before the first pooling hold most of a window's memory (24 channels at full resolution, twice) and see only
a few voxels around each of theirs. So they run slab by slab along z, with that many voxels more at each inner face, and
only their pooled output is kept, an eighth of the size; the rest of the net then runs on that at once. Nothing is
approximated: a slab's kept part sees all that it would see in the whole. In int8 the pooled output is handed over in
the quantised steps themselves, one byte each.

Peak memory falls to about 40 % of one piece. With five slabs the overlap adds a twentieth to the first layers; int8,
320x224x304 voxels, three interleaved runs on two cores with AVX2: 14.4, 13.1, 14.4 s in one piece, 15.4, 13.8, 13.9 s
in two.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
from numpy.typing import DTypeLike
from openvino import opset13 as ops

from runtime.network_input import WINDOW_MULTIPLE

SLAB_SHARE = 9
"""A slab is a ninth of its window, some 32 slices of whole lungs: thinner ones overlap more, thicker ones leave out
less of the emptiness around the lungs (see `emptiness`). What it needs stays below what the rest of the net needs."""
LEAST_SLAB_VOXELS = 3 << 18

_LOCAL = {"Add", "BatchNormInference", "Convert", "FakeQuantize", "Multiply", "Relu", "Subtract"}
_SHAPES = {"Broadcast", "Concat", "Constant", "Gather", "Reshape", "ShapeOf"}
_LEVELS = 256


@dataclass(frozen=True)
class TwoStages:
    """The two nets, and how to cut their input.

    Attributes:
        stem: data (1, 1, D, H, W) float32 -> stem (1, D / stride, H / stride, W / stride, channels) of `dtype`.
        rest: stem and coord -> head.
        stride: of the pooling.
        halo: voxels to each side that an output of the stem sees, rounded up to a multiple of the stride.
        channels: of the stem's output.
        dtype: uint8 (quantised steps) or float32.
    """

    stem: Any
    rest: Any
    stride: int
    halo: int
    channels: int
    dtype: DTypeLike


@dataclass(frozen=True)
class Slab:
    """Slices of `data` that are given (start, stop) and whose output is kept (core_start, core_stop)."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def split_at_first_pooling(model: Any) -> TwoStages | None:
    """Cut a detector in two; None where its first layers are not of the kind that can run in slabs.

    That kind: convolutions of odd kernel, stride 1 and "same" padding, and what works voxel by voxel, from `data` to
    one max pooling whose kernel is its stride. Changes `model`, which must not be used any more if this succeeds.
    """
    nodes = model.get_ordered_ops()
    pool = next((node for node in nodes if node.get_type_name() == "MaxPool"), None)
    inputs = {node.get_friendly_name(): node for node in model.get_parameters()}
    if pool is None or set(inputs) != {"data", "coord"}:
        return None
    stride = _pool_stride(pool)
    before = _ancestors(pool)
    reach = _reach(before)
    if stride is None or reach is None or _used_elsewhere(before, pool):
        return None
    shape = pool.output(0).get_partial_shape()
    if shape[1].is_dynamic:
        return None
    channels = shape[1].get_length()
    quantised = pool.input_value(0).get_node()
    steps = _step_size(quantised)
    kind = openvino.Type.f32 if steps is None else openvino.Type.u8

    handed = ops.parameter(openvino.PartialShape([1, -1, -1, -1, channels]), kind, name="stem")
    handed.output(0).set_names({"stem"})
    begin = ops.transpose(handed, ops.constant(np.array([0, 4, 1, 2, 3])))
    if steps is not None:
        begin = ops.multiply(ops.convert(begin, openvino.Type.f32), ops.constant(np.float32(steps)))
    for user in pool.output(0).get_target_inputs():
        user.replace_source_output(begin.output(0))
    rest = openvino.Model(model.get_results(), [handed, inputs["coord"]], "rest")

    if steps is not None:
        levels = [ops.constant(np.float32(value)) for value in (0, _LEVELS - 1)]
        bounds = [quantised.input_value(k) for k in range(3)]
        pool.input(0).replace_source_output(ops.fake_quantize(*bounds, *levels, _LEVELS).output(0))
    # The other way round (convert, then transpose) OpenVINO 2026.4 fails to compile.
    end = ops.transpose(pool.output(0), ops.constant(np.array([0, 2, 3, 4, 1])))
    if steps is not None:
        end = ops.convert(end, openvino.Type.u8)
    end.output(0).set_names({"stem"})
    stem = openvino.Model([ops.result(end)], [inputs["data"]], "stem")
    halo = -(-reach // stride) * stride
    return TwoStages(stem, rest, stride, halo, channels, np.float32 if steps is None else np.uint8)


def slabs(depth: int, plane: int, stride: int, halo: int) -> Iterator[Slab]:
    """Slabs of one thickness (one set of buffers) over `depth` slices of `plane` voxels; their cores meet.

    Args:
        depth: slices, a multiple of `stride`.
        plane: voxels of a slice.
        stride: starts and cores are multiples of it.
        halo: least slices between a core and an inner face of its slab, a multiple of `stride`.
    """
    wanted = max(LEAST_SLAB_VOXELS, -(-depth * plane // SLAB_SHARE))
    count = max(1, min(-(-depth * plane // wanted), depth // (2 * halo + stride)))
    thick = min(depth, -(-(depth + (count - 1) * 2 * halo) // (count * stride)) * stride)
    units = (depth - thick) // stride
    starts = [stride * (units * k // max(1, count - 1)) for k in range(count)]
    bounds = [0, *((a + thick + b) // 2 // stride * stride for a, b in itertools.pairwise(starts)), depth]
    for start, first, last in zip(starts, bounds, bounds[1:], strict=False):
        yield Slab(start, start + thick, first, last)


def _pool_stride(pool: Any) -> int | None:
    settings = pool.get_attributes()
    kernel = {*settings["kernel"], *settings["strides"]}
    size = int(kernel.pop())
    plain = not kernel and not any(settings["pads_begin"]) and set(settings["dilations"]) <= {1}
    # Caffe's rounding up comes as padding at the end; extents that the kernel divides never reach it.
    unused = max(settings["pads_end"]) < size and WINDOW_MULTIPLE % size == 0
    return size if plain and unused and settings["rounding_type"] == "floor" else None


def _ancestors(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = [node.input_value(k).get_node() for k in range(node.get_input_size())]
    while waiting:
        one = waiting.pop()
        if one.get_name() not in found:
            found[one.get_name()] = one
            waiting += [one.input_value(k).get_node() for k in range(one.get_input_size())]
    return found


def _reach(before: dict[str, Any]) -> int | None:
    """Voxels to each side that the layers see; None if one of them is of another kind or `coord` is among them."""
    reach = 0
    for node in before.values():
        kind = node.get_type_name()
        if kind == "Parameter":
            if node.get_friendly_name() != "data":
                return None
        elif kind == "Convolution":
            kernel = list(node.input_value(1).get_partial_shape().to_shape())[2:]
            settings = node.get_attributes()
            pads = [*settings["pads_begin"], *settings["pads_end"]]
            same = len(set(kernel)) == 1 and kernel[0] % 2 == 1 and set(pads) == {kernel[0] // 2}
            if not same or set(settings["strides"]) != {1} or set(settings["dilations"]) != {1}:
                return None
            reach += kernel[0] // 2
        elif kind not in _LOCAL | _SHAPES:
            return None
    return reach


def _used_elsewhere(before: dict[str, Any], pool: Any) -> bool:
    """Whether anything beyond the pooling needs what lies before it (constants apart)."""
    for node in before.values():
        if node.get_type_name() == "Constant":
            continue
        for output in node.outputs():
            for user in output.get_target_inputs():
                other = user.get_node()
                inside = other.get_name() in before or other.get_name() == pool.get_name()
                if not inside and other.get_type_name() != "ShapeOf":
                    return True
    return False


def _step_size(node: Any) -> float | None:
    """The value of one quantised step, where `node` quantises to 0, step, ... 255 step; else None."""
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != _LEVELS:
        return None
    bounds = []
    for k in range(1, 5):
        value = node.input_value(k).get_node()
        if value.get_type_name() != "Constant" or np.size(value.get_data()) != 1:
            return None
        bounds.append(float(value.get_data().reshape(-1)[0]))
    low, high, out_low, out_high = bounds
    return out_high / (_LEVELS - 1) if low == out_low == 0 and high == out_high > 0 else None
