"""What Scale and Bias share: a small blob laid over some axes of a large one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, OnnxGraph, Shape, canonical_axis, int64

if TYPE_CHECKING:
    import torch


def covered(shape: Shape, axis: int, num_axes: int, spec: LayerSpec) -> Shape:
    """Shape of a learnt blob over `num_axes` axes from `axis` on (num_axes -1: to the end, 0: one number).

    Raises:
        PrototxtError: the axes do not exist.
    """
    start = canonical_axis(axis, len(shape), spec)
    stop = len(shape) if num_axes == -1 else start + num_axes
    if num_axes < -1 or stop > len(shape):
        raise spec.error(f"axis {axis} with num_axes {num_axes} leaves a bottom of {len(shape)} axes")
    return shape[start:stop]


def check_fits(bottoms: Sequence[Shape], axis: int, spec: LayerSpec) -> None:
    """Raises PrototxtError unless the second bottom's extents equal those of the first from `axis` on."""
    shape, small = bottoms
    start = canonical_axis(axis, len(shape), spec) if small else 0
    if shape[start : start + len(small)] != small:
        raise spec.error(f"second bottom of shape {small} does not fit {shape} from axis {start} on")


def trailing_ones(rank: int, axis: int, small_rank: int) -> int:
    """How many axes of extent 1 the small blob needs at its end so that the usual broadcasting lines it up."""
    start = axis % rank if small_rank else rank
    return rank - start - small_rank


def lined_up(small: "torch.Tensor", large: "torch.Tensor", axis: int) -> "torch.Tensor":
    """A view of `small` that broadcasts over `large` from `axis` on, in its type: nothing is raised to float32."""
    ones = trailing_ones(large.ndim, axis, small.ndim)
    return small.reshape((*small.shape, *[1] * ones)).to(large.dtype)


def lined_up_onnx(graph: OnnxGraph, small: str, large: str, axis: int, name: str) -> str:
    """The same for two bottoms of an ONNX graph."""
    rank, small_rank = graph.rank(large), graph.rank(small)
    ones = trailing_ones(rank, axis, small_rank)
    if not ones:
        return small
    result = graph.fresh(f"{name}_lined_up")
    axes = graph.constant(int64(*range(small_rank, small_rank + ones)), f"{name}_axes")
    graph.node("Unsqueeze", [small, axes], [result])
    return result
