"""SoftmaxWithLoss."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, Loss, Shape, canonical_axis, register
from caffe_models.normalization import LossParams, check_labels

if TYPE_CHECKING:
    import torch


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(Loss):
    """-log(softmax(x)[label]) summed over all places, over a normaliser; a second top receives the softmax.

    Bottoms: scores, and class numbers (as floats), one for each place outside `softmax_param.axis`. Labels equal to
    `ignore_label` do not count. Default normalisation: VALID.
    """

    bottoms_allowed = (2, 2)
    tops_allowed = (1, 2)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = LossParams.read(spec, default="VALID")
        self.axis = int(spec.param("softmax_param").get("axis"))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        scores, labels = bottoms
        axis = canonical_axis(self.axis, len(scores), self.spec)
        places = math.prod(scores) // scores[axis]
        if math.prod(labels) != places:
            raise self.spec.error(f"labels of shape {labels} for scores {scores}: {places} labels are needed")
        return [(), scores][: len(self.spec.tops)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        scores = tensors[0].float()
        axis = self.axis % scores.ndim
        logarithms = scores.log_softmax(axis)
        outer = math.prod(scores.shape[:axis])
        rows = logarithms.movedim(axis, -1).reshape(-1, scores.shape[axis])
        labels, counted = check_labels(tensors[1], scores.shape[axis], self.params.ignore_label, self.spec)
        picked = rows.gather(1, labels[:, None])[:, 0]
        # Caffe takes the logarithm of max(p, FLT_MIN), so that a hopeless place costs 87.3, with the usual gradient
        loss = -(picked + (picked.detach().clamp(min=-87.33654475) - picked.detach())).where(counted, 0.0).sum()
        divisor = self.params.divisor(outer=outer, full=rows.shape[0], valid=counted.sum())
        return [loss / divisor, logarithms.exp()][: len(self.spec.tops)]
