"""SigmoidCrossEntropyLoss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import LayerSpec, Loss, Shape, register
from caffe_models.normalization import LossParams

if TYPE_CHECKING:
    import torch


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """-sum of t log(s(x)) + (1 - t) log(1 - s(x)), over a normaliser; bottoms: logits x and targets t, same count.

    Targets equal to `ignore_label` count neither in the sum nor in VALID. Default normalisation: BATCH_SIZE. Intel
    Caffe knows no ignore_label, and only NONE and BATCH_SIZE, as which it reads every other normalisation.
    """

    bottoms_allowed = (2, 2)
    refused_in_3d = frozenset({"intel"})
    note = "Intel Caffe knows no ignore_label and two normalisations, NONE and BATCH_SIZE; an intel file gets these"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = LossParams.read(spec, default="BATCH_SIZE")
        if spec.dialect == "intel":
            mode = "NONE" if self.params.normalization == "NONE" else "BATCH_SIZE"
            self.params = LossParams(mode, None)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.params.check_equal_count(bottoms[0], bottoms[1], self.spec)
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        from torch.nn import functional as F

        logits = tensors[0].float()
        target = tensors[1].detach().float().reshape(logits.shape)
        ignored = self.params.ignore_label
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        valid = None
        if ignored is not None:
            counted = target.trunc() != ignored
            loss, valid = loss.where(counted, 0.0), counted.sum()
        return [loss.sum() / self.params.divisor(outer=logits.shape[0], full=logits.numel(), valid=valid)]
