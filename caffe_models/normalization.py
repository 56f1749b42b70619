"""`loss_param`: which values count in a loss, and by what their sum is divided."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caffe_models.errors import NetError
from caffe_models.layer import LayerSpec, Shape

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LossParams:
    """Caffe's LossParameter. `normalization` is FULL, VALID, BATCH_SIZE or NONE (PRE_FIXED is refused)."""

    normalization: str
    ignore_label: int | None

    @staticmethod
    def read(spec: LayerSpec, default: str) -> "LossParams":
        """From `loss_param`: `normalization` wins over the older `normalize` (true: VALID, false: BATCH_SIZE)."""
        message = spec.param("loss_param")
        normalization = default
        if message.has("normalization"):
            normalization = str(message.get("normalization"))
        elif message.has("normalize"):
            normalization = "VALID" if message.get("normalize") else "BATCH_SIZE"
        if normalization not in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
            raise spec.error(f"normalization {normalization}; allowed: FULL, VALID, BATCH_SIZE, NONE", message.line)
        return LossParams(normalization, int(message.get("ignore_label")) if message.has("ignore_label") else None)

    def divisor(self, outer: int, full: int, valid: "torch.Tensor | None") -> Any:
        """What the sum is divided by, at least 1.

        Args:
            outer: the batch size (for SoftmaxWithLoss all extents before the axis).
            full: number of values (or of labels).
            valid: how many of them are not ignored; None: all.
        """
        if self.normalization == "VALID" and valid is not None:
            return valid.clamp(min=1)
        return max(1, {"FULL": full, "VALID": full, "BATCH_SIZE": outer, "NONE": 1}[self.normalization])

    @staticmethod
    def check_equal_count(prediction: Shape, target: Shape, spec: LayerSpec) -> None:
        """Raises PrototxtError unless both bottoms have the same number of values."""
        if math.prod(prediction) != math.prod(target):
            raise spec.error(f"bottoms of shapes {prediction} and {target}; they must have the same number of values")


def check_labels(
    labels: "torch.Tensor", classes: int, ignore_label: int | None, spec: LayerSpec
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Class numbers as a flat int64 tensor (ignored ones as 0), and a mask of those that count.

    Raises:
        NetError: a label that counts is not a class number; Caffe would read memory that is not its own.
    """
    import torch

    numbers = labels.detach().reshape(-1).to(torch.int64)
    counted = torch.ones_like(numbers, dtype=torch.bool) if ignore_label is None else numbers != ignore_label
    numbers = numbers.where(counted, 0)
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= classes):
        wrong = int(numbers.max()) if int(numbers.max()) >= classes else int(numbers.min())
        raise NetError(
            f'{spec.source}:{spec.line}: layer "{spec.name}": label {wrong} in blob "{spec.bottoms[1]}"; '
            f"allowed: 0 to {classes - 1}, or ignore_label {ignore_label}"
        )
    return numbers, counted


def logarithm(probabilities: "torch.Tensor") -> "torch.Tensor":
    """log(max(p, 1e-20)), with the gradient 1 / max(p, 1e-20), as Caffe's losses on probabilities have it."""
    limited = probabilities + (probabilities.detach().clamp(min=1e-20) - probabilities.detach())
    return limited.log()
