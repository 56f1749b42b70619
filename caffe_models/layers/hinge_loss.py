"""HingeLoss, one against the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, Loss, Shape, register
from caffe_models.normalization import check_labels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class HingeLossParams:
    """L1 sums the margins, L2 their squares."""

    norm: str


@register("HingeLoss")
class HingeLoss(Loss):
    """Sum of max(0, 1 - s x), or of its square, over the batch size; s is 1 for the label's class, else -1."""

    bottoms_allowed = (2, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = HingeLossParams(str(spec.param("hinge_loss_param").get("norm")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if math.prod(bottoms[1]) != bottoms[0][0]:
            raise self.spec.error(f"labels of shape {bottoms[1]} for scores {bottoms[0]}: one per example is needed")
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        scores = tensors[0].float().flatten(1)
        labels, _ = check_labels(tensors[1], scores.shape[1], None, self.spec)
        sign = torch.full_like(scores, -1.0).scatter(1, labels[:, None], 1.0)
        margin = (1 - sign * scores).clamp(min=0)
        return [(margin if self.params.norm == "L1" else margin.square()).sum() / scores.shape[0]]
