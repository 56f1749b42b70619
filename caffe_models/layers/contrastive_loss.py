"""ContrastiveLoss: alike pairs close together, others a margin apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, Loss, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ContrastiveLossParams:
    """Caffe's ContrastiveLossParameter."""

    margin: float
    legacy: bool


@register("ContrastiveLoss")
class ContrastiveLoss(Loss):
    """Sum of y d**2 + (1 - y) max(margin - d, 0)**2 over pairs, over twice their number; d is the Euclidean distance of
    two vectors, y is 1 for pairs that are alike (Hadsell, Chopra, LeCun 2006). With legacy_version the second term is
    max(margin - d**2, 0). Bottoms: vectors, vectors, y. The gradient divides by d + 1e-4, as Caffe's does."""

    bottoms_allowed = (3, 3)
    spatial_axes = (0, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("contrastive_loss_param")
        self.params = ContrastiveLossParams(float(message.get("margin")), bool(message.get("legacy_version")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        first, second, alike = bottoms
        if not 2 <= len(first) <= 4 or any(extent != 1 for extent in first[2:]) or first[:2] != second[:2]:
            raise self.spec.error(f"bottoms of shapes {first} and {second}; both must be (pairs, values)")
        if math.prod(second) != math.prod(first) or math.prod(alike) != first[0]:
            raise self.spec.error(f"bottoms of shapes {first}, {second} and {alike}; one number per pair is needed")
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        difference = tensors[0].float().flatten(1) - tensors[1].float().flatten(1)
        alike = tensors[2].detach().reshape(-1).to(difference.dtype).trunc() != 0
        square = difference.square().sum(1)
        if self.params.legacy:
            apart = (self.params.margin - square).clamp(min=0)
        else:
            distance = square.detach().sqrt()
            short = (self.params.margin - distance).clamp(min=0)
            # square.grad is 2 * difference, so this has Caffe's gradient -2 short / (distance + 1e-4) * difference
            slope = -short / (distance + 1e-4) * square
            apart = short.square() + slope - slope.detach()
        return [square.where(alike, apart).sum() / (2 * difference.shape[0])]
