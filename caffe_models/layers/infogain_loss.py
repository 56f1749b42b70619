"""InfogainLoss: a cross entropy in which a matrix says what each answer is worth for each label."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.layer import LayerSpec, Loss, Shape, canonical_axis, register
from caffe_models.normalization import LossParams, check_labels, logarithm

if TYPE_CHECKING:
    import torch

_FLOOR = math.log(1e-20)


@register("InfogainLoss")
class InfogainLoss(Loss):
    """-sum over l of H[label, l] log(p[l]), summed over all places, over a normaliser; p counts as 1e-20 at least.

    Bottoms: scores, class numbers and the matrix H (classes x classes). BVLC Caffe takes the softmax of the scores
    itself, along `infogain_loss_param.axis`, hands it out as a second top, and knows `loss_param` (default VALID). In
    Extended Caffe, which is older, the first bottom is a probability already, one label belongs to each example, and
    the sum is divided by the batch size.
    """

    bottoms_allowed = (2, 3)
    tops_allowed = (1, 2)
    dialects = ("bvlc", "extended")
    note = "bvlc: softmax inside; extended: bottoms are probabilities. H as third bottom only"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("infogain_loss_param")
        if spec.dialect == "intel":
            raise spec.error("Intel Caffe's formula is not known here; say --dialect bvlc (softmax inside) or extended")
        if len(spec.bottoms) < 3:
            raise spec.error("the matrix must be the third bottom, e.g. of a DummyData or Input layer", message.line)
        if spec.dialect == "extended" and len(spec.tops) > 1:
            raise spec.error("has 2 tops, which only BVLC Caffe knows; say --dialect bvlc if it was written for that")
        if spec.dialect == "bvlc" and spec.param("loss_param").has("normalize"):
            raise spec.error("normalize is not allowed here; write normalization: VALID or BATCH_SIZE")
        self.params = LossParams.read(spec, default="VALID")
        self.axis = int(message.get("axis")) if spec.dialect == "bvlc" else 1

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        scores, labels, matrix = bottoms
        axis = canonical_axis(self.axis, len(scores), self.spec)
        old = self.spec.dialect == "extended"
        classes = math.prod(scores[1:]) if old else scores[axis]
        places = math.prod(scores) // classes
        if math.prod(labels) != places:
            raise self.spec.error(f"labels of shape {labels} for {scores}: {places} labels are needed")
        if math.prod(matrix) != classes**2 or (len(matrix) > 1 and matrix[-1] != classes):
            raise self.spec.error(f"matrix of shape {matrix}; {classes} classes need {classes} x {classes}")
        return [(), scores][: len(self.spec.tops)]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        scores = tensors[0].float()
        if self.spec.dialect == "extended":
            rows, logarithms = self._of_probabilities(scores)
        else:
            logarithms = scores.log_softmax(self.axis)
            rows = logarithms.movedim(self.axis, -1).flatten(0, -2)
            rows = rows + (rows.detach().clamp(min=_FLOOR) - rows.detach())  # Caffe's gradient does not see the limit
        classes = rows.shape[1]
        ignored = self.params.ignore_label if self.spec.dialect == "bvlc" else None
        labels, counted = check_labels(tensors[1], classes, ignored, self.spec)
        worth = tensors[2].detach().float().reshape(classes, classes)[labels]
        loss = -(worth * rows).sum(1).where(counted, 0.0).sum()
        if self.spec.dialect == "extended":
            return [loss / rows.shape[0]]
        outer = math.prod(scores.shape[: self.axis % scores.ndim])
        divisor = self.params.divisor(outer=outer, full=rows.shape[0], valid=counted.sum())
        return [loss / divisor, logarithms.exp()][: len(self.spec.tops)]

    def _of_probabilities(self, given: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        rows = given.flatten(1)
        least, most = float(rows.detach().min()), float(rows.detach().max())
        if least < 0 or most > 1.0001:
            spec = self.spec
            raise NetError(
                f'{spec.source}:{spec.line}: layer "{spec.name}": bottom "{spec.bottoms[0]}" holds {least:g} to '
                f"{most:g}, not probabilities; put a Softmax before it, or say --dialect bvlc, which has it inside"
            )
        return logarithm(rows), rows
