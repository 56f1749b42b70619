"""MultinomialLogisticLoss: the cross entropy of probabilities."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Loss, Shape, register
from caffe_models.normalization import check_labels, logarithm

if TYPE_CHECKING:
    import torch


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Loss):
    """-log(p[label]) summed over the batch, over the batch size. Bottoms: probabilities, as a Softmax makes them, and
    one class number per example. Probabilities count as 1e-20 at least, in the gradient -1 / p too."""

    bottoms_allowed = (2, 2)
    refused_in_3d = frozenset({"bvlc", "intel", "extended"})

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if math.prod(bottoms[1]) != bottoms[0][0]:
            raise self.spec.error(f"labels of shape {bottoms[1]} for {bottoms[0]}: one per example is needed")
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        rows = tensors[0].float().flatten(1)
        labels, _ = check_labels(tensors[1], rows.shape[1], None, self.spec)
        return [-logarithm(rows.gather(1, labels[:, None])).sum() / rows.shape[0]]
