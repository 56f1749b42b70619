"""SmoothL1Loss of Fast R-CNN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, Loss, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SmoothL1LossParams:
    """The loss is quadratic for |d| < 1 / sigma**2."""

    sigma: float


@register("SmoothL1Loss")
class SmoothL1Loss(Loss):
    """Sum over all values of w_out * f(w_in * (prediction - target)), divided by the batch size.

    Bottoms: prediction, target and, both or none, w_in and w_out. f(d) = 0.5 (sigma d)**2 for |d| < 1 / sigma**2,
    else |d| - 0.5 / sigma**2 (Girshick, Fast R-CNN, 2015).

    Unlike all other losses it has no default loss_weight in Caffe: without one it is computed but teaches nothing,
    which in the TRAIN phase can only be a mistake and is refused.
    """

    bottoms_allowed = (2, 4)
    is_loss = False
    dialects = ("intel", "extended")
    refused_in_3d = frozenset({"intel"})
    note = "has no default loss_weight"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        if len(spec.bottoms) == 3:
            raise spec.error("has 3 bottoms; allowed: 2, or 4 with inside and outside weights")
        if spec.phase == "TRAIN" and not spec.loss_weights:
            raise spec.error("has no loss_weight, which Caffe takes as 0 for this type; write it, e.g. loss_weight: 1")
        self.params = SmoothL1LossParams(float(spec.param("smooth_l1_loss_param").get("sigma")))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if any(shape != bottoms[0] for shape in bottoms):
            raise self.spec.error(f"bottoms of shapes {', '.join(map(str, bottoms))}; all must be equal")
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        prediction, target = tensors[0].float(), tensors[1].float()
        difference = prediction - target
        if len(tensors) == 4:
            difference = difference * tensors[2].detach()
        limit = 1.0 / self.params.sigma**2
        size = difference.abs()
        loss = torch.where(size < limit, difference.square() * (0.5 / limit), size - 0.5 * limit)
        if len(tensors) == 4:
            loss = loss * tensors[3].detach()
        return [loss.sum() / prediction.shape[0]]
