"""RNN: the plain recurrent network."""

from typing import TYPE_CHECKING

from caffe_models.layer import OnnxGraph, Shape, register
from caffe_models.recurrent import Recurrent

if TYPE_CHECKING:
    import torch


@register("RNN")
class RNN(Recurrent):
    """h = tanh(W_x x + b_h + W_h (cont h) [+ W_s static]), output tanh(W_o h + b_o). Blobs: W_x (H, inputs), b_h (H),
    with a static input W_s, W_h (H, H), W_o (H, H), b_o (H)."""

    states = 1
    gates = 1

    def output_blobs(self) -> list[Shape]:
        size = self.params.num_output
        return [(size, size), (size,)]

    def step(
        self, gates: "torch.Tensor", cont: "torch.Tensor", states: "list[torch.Tensor]"
    ) -> "tuple[torch.Tensor, list[torch.Tensor]]":
        from torch.nn import functional as F

        hidden = gates.tanh()
        weight, bias = self.blobs[self.hidden_index + 1 :]
        return F.linear(hidden, weight, bias).tanh(), [hidden]

    def step_onnx(
        self, graph: OnnxGraph, gates: str, cont: str, states: list[str], blobs: list[str]
    ) -> tuple[str, list[str]]:
        hidden, product, sum_, output = (
            graph.fresh(f"{self.spec.name}_{p}") for p in ("hidden", "product", "sum", "out")
        )
        graph.node("Tanh", [gates], [hidden])
        graph.node(self.product, [hidden, blobs[0]], [product])
        graph.node("Add", [product, blobs[1]], [sum_])
        graph.node("Tanh", [sum_], [output])
        return output, [hidden]
