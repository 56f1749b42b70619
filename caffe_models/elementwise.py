"""The base of layers that map each value by itself, and small ONNX helpers they share."""

from collections.abc import Sequence

import numpy as np

from caffe_models.layer import Layer, OnnxGraph, Shape


class Elementwise(Layer):
    """One bottom, one top of the same shape."""

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]


def chain(graph: OnnxGraph, name: str, value: str, top: str, steps: Sequence[tuple[str, float | None]]) -> None:
    """Write `steps` one after the other, from `value` to `top`: each an operator and, for binary ones, a constant.

    Without steps it is an Identity. `name` prefixes the names made.
    """
    for index, (op, operand) in enumerate(steps, 1):
        inputs = [value]
        if operand is not None:
            inputs.append(graph.constant(np.array(operand, np.float32), f"{name}_{op.lower()}"))
        value = top if index == len(steps) else graph.fresh(f"{name}_step{index}")
        graph.node(op, inputs, [value])
    if not steps:
        graph.node("Identity", [value], [top])
