"""EuclideanLoss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Loss, Shape, register
from caffe_models.normalization import LossParams

if TYPE_CHECKING:
    import torch


@register("EuclideanLoss")
class EuclideanLoss(Loss):
    """Half the sum of squared differences, over the batch size; both bottoms receive gradients."""

    bottoms_allowed = (2, 2)
    refused_in_3d = frozenset({"bvlc", "intel", "extended"})

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        LossParams.check_equal_count(bottoms[0], bottoms[1], self.spec)
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        prediction = tensors[0].float()
        difference = prediction - tensors[1].float().reshape(prediction.shape)
        return [difference.square().sum() / (2 * prediction.shape[0])]
