"""PReLU: a leaky ReLU with a learnt slope per channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.elementwise import Elementwise
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PReLUParams:
    """Whether one slope serves all channels, and how slopes start (default 0.25)."""

    channel_shared: bool
    filler: FillerSpec


@register("PReLU")
class PReLU(Elementwise):
    """max(x, 0) + slope * min(x, 0); blob: slope (C), or a single number without axes if shared."""

    refused_in_3d = frozenset({"bvlc"})

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("prelu_param")
        filler = FillerSpec.read(message, "filler", FillerSpec(value=0.25))
        self.params = PReLUParams(bool(message.get("channel_shared")), filler)

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        if len(bottoms[0]) < 2:
            raise self.spec.error(f"bottom has shape {bottoms[0]}; allowed: at least batch and channels")
        shape = () if self.params.channel_shared else (bottoms[0][1],)
        return [BlobSpec(shape, self.params.filler, *self.multipliers(0))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        return [F.prelu(tensors[0], self.blobs[0].reshape(-1).to(tensors[0].dtype))]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        slope = self.array(0).reshape(-1, *[1] * (graph.rank(bottoms[0]) - 2))
        graph.node("PRelu", [bottoms[0], graph.constant(slope, f"{self.spec.name}_slope")], tops)
