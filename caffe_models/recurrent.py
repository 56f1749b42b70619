"""What LSTM and RNN share: bottoms, blobs and the unrolling over time.

Follows BVLC Caffe's RecurrentLayer. Bottoms: x (T, N, ...), cont (T, N) which is 0 where a sequence begins, optionally
a static input (N, ...), and with `expose_hidden` the states before the first step (1, N, num_output); tops: the outputs
(T, N, num_output), and with `expose_hidden` the states after the last step. The exported graph is unrolled, as Caffe's
own is, for the T of the prototxt.

One thing is not as in Caffe: without `expose_hidden` it carries the state from one pass to the next, here every pass
begins with zeros. The two are the same where `cont` begins with 0, and a warning is given where it does not.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffe_models.errors import warn
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, int64

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RecurrentParams:
    """Caffe's RecurrentParameter."""

    num_output: int
    expose_hidden: bool
    weight_filler: FillerSpec
    bias_filler: FillerSpec


class Recurrent(Layer):
    """A subclass computes one step, in PyTorch and in ONNX."""

    bottoms_allowed = (2, None)
    tops_allowed = (1, None)
    states: ClassVar[int]
    """Number of states handed from step to step; the first is the hidden one, which `cont` multiplies."""
    gates: ClassVar[int]
    """Multiples of num_output that x is transformed to."""
    note = "the number of steps is fixed; every pass begins with zero states unless expose_hidden"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("recurrent_param")
        self.params = RecurrentParams(
            num_output=int(message.get("num_output")),
            expose_hidden=bool(message.get("expose_hidden")),
            weight_filler=FillerSpec.read(message, "weight_filler"),
            bias_filler=FillerSpec.read(message, "bias_filler"),
        )
        if self.params.num_output < 1:
            raise spec.error("num_output is missing; give 1 or more", message.line)
        shown = self.states if self.params.expose_hidden else 0
        if len(spec.bottoms) not in (2 + shown, 3 + shown):
            raise spec.error(
                f"has {len(spec.bottoms)} bottoms; allowed: {2 + shown}, or {3 + shown} with a static input"
            )
        if len(spec.tops) != 1 + shown:
            raise spec.error(f"has {len(spec.tops)} tops; allowed: {1 + shown}")
        self.static = len(spec.bottoms) == 3 + shown

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        x, cont = bottoms[:2]
        if len(x) < 2 or cont != x[:2]:
            raise self.spec.error(f"bottoms of shapes {x} and {cont}; allowed: (T, N, ...) and (T, N)")
        if self.static and (not bottoms[2] or bottoms[2][0] != x[1]):
            raise self.spec.error(f"static input of shape {bottoms[2]}; allowed: ({x[1]}, ...)")
        state = (1, x[1], self.params.num_output)
        for given in bottoms[2 + self.static :]:
            if given != state:
                raise self.spec.error(f"state of shape {given}; allowed: {state}")
        return [(*x[:2], self.params.num_output), *[state] * (len(self.spec.tops) - 1)]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        rows = self.gates * self.params.num_output
        shapes: list[Shape] = [(rows, math.prod(bottoms[0][2:])), (rows,)]
        if self.static:
            shapes.append((rows, math.prod(bottoms[2][1:])))
        shapes.append((rows, self.params.num_output))
        shapes.extend(self.output_blobs())
        fillers = [self.params.weight_filler if len(shape) == 2 else self.params.bias_filler for shape in shapes]
        return [BlobSpec(s, f, *self.multipliers(i)) for i, (s, f) in enumerate(zip(shapes, fillers, strict=True))]

    def output_blobs(self) -> list[Shape]:
        """Blobs behind that of the hidden state."""
        return []

    @property
    def hidden_index(self) -> int:
        """Index of the blob that the hidden state is multiplied by."""
        return 3 if self.static else 2

    @property
    def product(self) -> str:
        """The ONNX operator of states times a matrix. A single unit's is a plain product, and must be: OpenVINO 2026.4
        refuses to compile a chain of 1 x 1 matrices."""
        return "Mul" if self.params.num_output == 1 else "MatMul"

    @abstractmethod
    def step(
        self, gates: "torch.Tensor", cont: "torch.Tensor", states: "list[torch.Tensor]"
    ) -> "tuple[torch.Tensor, list[torch.Tensor]]":
        """Output and new states, each (N, num_output); `gates` is all that was added up for this step."""

    @abstractmethod
    def step_onnx(
        self, graph: OnnxGraph, gates: str, cont: str, states: list[str], blobs: list[str]
    ) -> tuple[str, list[str]]:
        """The same as ONNX nodes; `blobs` are those of `output_blobs`, matrices transposed."""

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch
        from torch.nn import functional as F

        x, cont = tensors[0], tensors[1].detach()
        given = [tensor[0] for tensor in tensors[2 + self.static :]]
        states = given or [x.new_zeros(x.shape[1], self.params.num_output)] * self.states
        if not given and not self._warned and bool(cont[0].any()):
            self._warned = True
            warn(
                str(self.spec.error("a sequence goes on at the first step (cont is not 0); its state begins at 0 here"))
            )
        inputs = F.linear(x.flatten(2) if x.ndim > 2 else x[..., None], self.blobs[0], self.blobs[1])
        if self.static:
            inputs = inputs + F.linear(tensors[2].flatten(1), self.blobs[2])
        outputs = []
        for time in range(x.shape[0]):
            keep = cont[time][:, None]
            gates = inputs[time] + F.linear(states[0] * keep, self.blobs[self.hidden_index])
            output, states = self.step(gates, keep, states)
            outputs.append(output)
        return [torch.stack(outputs), *(state[None] for state in states)][: len(self.spec.tops)]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name, (steps, streams, *_) = self.spec.name, graph.shape(bottoms[0])

        def add(op: str, inputs: list[str], part: str, **attributes: int) -> str:
            value = graph.fresh(f"{name}_{part}")
            graph.node(op, inputs, [value], **attributes)
            return value

        def blob(index: int) -> str:
            array = self.array(index)
            return graph.constant(array.T.copy() if array.ndim == 2 else array, f"{name}_blob{index}")

        def at(value: str, time: int, part: str) -> str:
            return add("Gather", [value, graph.constant(np.array(time, np.int64), f"{name}_t{time}")], part, axis=0)

        rows = graph.constant(int64(steps, streams, self.array(0).shape[1]), f"{name}_rows")
        inputs = add("MatMul", [add("Reshape", [bottoms[0], rows], "x"), blob(0)], "product")
        inputs = add("Add", [inputs, blob(1)], "inputs")
        if self.static:
            flat = add("Flatten", [bottoms[2]], "static", axis=1)
            inputs = add("Add", [inputs, add("MatMul", [flat, blob(2)], "static_product")], "with_static")
        hidden = blob(self.hidden_index)
        behind = [blob(index) for index in range(self.hidden_index + 1, len(self.blobs))]
        given = [at(state, 0, "state") for state in bottoms[2 + self.static :]]
        zero = np.zeros((streams, self.params.num_output), np.float32)
        states = given or [graph.constant(zero, f"{name}_zero")] * self.states
        last, first_axis = graph.constant(int64(1), f"{name}_last"), graph.constant(int64(0), f"{name}_first")
        outputs = []
        for time in range(steps):
            keep = add("Unsqueeze", [at(bottoms[1], time, "cont"), last], "keep")
            kept = add("Mul", [states[0], keep], "kept")
            gates = add("Add", [at(inputs, time, "input"), add(self.product, [kept, hidden], "recurrent")], "gates")
            output, states = self.step_onnx(graph, gates, keep, states, behind)
            outputs.append(add("Unsqueeze", [output, first_axis], "output"))
        graph.node("Concat", outputs, [tops[0]], axis=0)
        for top, state in zip(tops[1:], states, strict=False):
            graph.node("Unsqueeze", [state, first_axis], [top])
