"""LSTM: long short-term memory over sequences."""

from typing import TYPE_CHECKING

from caffe_models.layer import OnnxGraph, register
from caffe_models.recurrent import Recurrent

if TYPE_CHECKING:
    import torch


@register("LSTM")
class LSTM(Recurrent):
    """Gates i, f, o, g, in that order, of W_x x + b + W_h (cont h) [+ W_s static]: c = cont s(f) c + s(i) tanh(g),
    h = s(o) tanh(c), with s the sigmoid. Blobs: W_x (4 H, inputs), b (4 H), with a static input W_s, W_h (4 H, H)."""

    states = 2
    gates = 4

    def step(
        self, gates: "torch.Tensor", cont: "torch.Tensor", states: "list[torch.Tensor]"
    ) -> "tuple[torch.Tensor, list[torch.Tensor]]":
        i, f, o, g = gates.chunk(4, 1)
        cell = cont * f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return hidden, [hidden, cell]

    def step_onnx(
        self, graph: OnnxGraph, gates: str, cont: str, states: list[str], blobs: list[str]
    ) -> tuple[str, list[str]]:
        def add(op: str, *inputs: str) -> str:
            value = graph.fresh(f"{self.spec.name}_{op.lower()}")
            graph.node(op, inputs, [value])
            return value

        i, f, o, g = (graph.fresh(f"{self.spec.name}_{gate}") for gate in "ifog")
        graph.node("Split", [gates], [i, f, o, g], axis=1, num_outputs=4)
        kept = add("Mul", add("Mul", cont, add("Sigmoid", f)), states[1])
        cell = add("Add", kept, add("Mul", add("Sigmoid", i), add("Tanh", g)))
        hidden = add("Mul", add("Sigmoid", o), add("Tanh", cell))
        return hidden, [hidden, cell]
