"""What Reshape and Flatten share: a run of axes is replaced by other extents."""

import math

from caffe_models.layer import LayerSpec, OnnxGraph, Shape, int64


def reshaped(shape: Shape, dims: tuple[int, ...], start: int, stop: int, spec: LayerSpec) -> Shape:
    """`shape` with its axes [start, stop) replaced by `dims`: 0 copies the extent at the same place, -1 is the rest.

    Raises:
        PrototxtError: a 0 beyond the axes of the bottom, or the counts differ.
    """
    extents = list(dims)
    for index, extent in enumerate(dims):
        if extent == 0:
            if start + index >= len(shape):
                raise spec.error(f"shape {dims}: the 0 at index {index} copies an axis that {shape} does not have")
            extents[index] = shape[start + index]
    result = [*shape[:start], *extents, *shape[stop:]]
    if -1 in extents:
        known = math.prod(extent for extent in result if extent != -1)
        result[start + extents.index(-1)] = math.prod(shape) // known if known else 0
    if math.prod(result) != math.prod(shape):
        raise spec.error(f"cannot make shape {dims} of a bottom of shape {shape}: the counts differ")
    return tuple(result)


def reshape_onnx(
    graph: OnnxGraph, bottom: str, top: str, dims: tuple[int, ...], start: int, stop: int, name: str
) -> None:
    """The same as ONNX. Its 0 copies from the same place, as Caffe's; only axes that move are read at run time."""
    rank = graph.rank(bottom)
    head = [0] * start + list(dims)
    if len(head) == stop:
        head += [0] * (rank - stop)
        stop = rank
    shape = graph.constant(int64(*head), f"{name}_shape")
    if stop < rank:
        tail, whole = graph.fresh(f"{name}_tail"), graph.fresh(f"{name}_whole")
        graph.node("Shape", [bottom], [tail], start=stop)
        graph.node("Concat", [shape, tail], [whole], axis=0)
        shape = whole
    graph.node("Reshape", [bottom, shape], [top])
