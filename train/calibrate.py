"""Calibration: probabilities that say how often a mark is a nodule.

Training shows the net as many hard negatives as nodules, whatever a scan holds, so that what it calls 0.9 is far more
often nothing than one time in ten. Platt's scaling (Platt, Probabilistic Outputs for Support Vector Machines, 1999)
mends that: with marks that were told right from wrong on scans that were not trained on,

    P(nodule) = sigmoid(scale * logit + shift)

is fitted by maximum likelihood. The logits of the detector are one convolution's outputs, so both numbers go into its
weights and nothing else changes: neither the order of the marks, nor their places, nor the time it takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.rpn.anchors import VALUES_PER_ANCHOR
from runtime.findings import sigmoid
from runtime.froc import FrocResult

HEAD = "head"
"""The layer whose channels anchor * 5 are the logits."""

LEAST_MARKS = 10
"""Of each kind: fewer would fit to chance."""

EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of the rows of `reliability`."""

NEAREST_TO_CERTAIN = 1e-12
"""Probabilities of a submission are rounded; one of 1 has no logit."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """logit -> scale * logit + shift, and of how many marks it is.

    Attributes:
        nodules: marks that hit, one for each nodule found; false_positives: those that hit nothing.
    """

    scale: float
    shift: float
    nodules: int
    false_positives: int

    def logits(self, logits: Floats) -> Floats:
        """Calibrated ones."""
        return self.scale * logits + self.shift


@dataclass(frozen=True)
class Reliability:
    """The marks whose probability is in [low, high); the last row has 1 as well.

    Attributes:
        marks: how many; mean: of their probabilities; share: of them that are nodules. Both NaN where there is none.
    """

    low: float
    high: float
    marks: int
    mean: float
    share: float


def logits_of(froc: FrocResult) -> tuple[Floats, Floats]:
    """Logits of an evaluation's marks: the best one of each nodule that was found, and the false positives.

    Marks on excluded findings and further marks of one nodule are left out, as in the evaluation.
    """
    found = np.asarray([one.probability for one in froc.nodules if one.probability is not None], dtype=np.float64)
    return _logits(found), _logits(froc.false_positive_probability)


def fit(nodules: Floats, false_positives: Floats) -> Calibration:
    """Maximum likelihood for the logits of marks that are nodules, and of those that are not.

    Raises:
        Rpn3dError: fewer than `LEAST_MARKS` of a kind; marks on nodules are no more certain than the others; or all of
            them are, so that any steepness would do.
    """
    from scipy.optimize import minimize

    if min(len(nodules), len(false_positives)) < LEAST_MARKS:
        raise Rpn3dError(
            f"calibration: {len(nodules)} marks on nodules and {len(false_positives)} on nothing; at least "
            f"{LEAST_MARKS} of each are needed: give more scans, or detect with a lower --threshold"
        )
    if nodules.min() > false_positives.max():
        raise Rpn3dError(
            "calibration: every mark on a nodule is more certain than every other mark, so that nothing says how "
            "certain is certain; give more scans, or detect with a lower --threshold"
        )
    if nodules.mean() <= false_positives.mean():  # the likelihood is concave: this is the sign of the best scale
        raise Rpn3dError(
            "calibration: marks on nodules are no more certain than the others; are these the scans' annotations, and "
            "in the same coordinates?"
        )
    logits = np.concatenate([nodules, false_positives])
    sign = np.concatenate([np.ones(len(nodules)), -np.ones(len(false_positives))])
    middle, spread = logits.mean(), logits.std()  # well conditioned, whatever the logits' size
    standard = (logits - middle) / spread

    def loss(pair: Floats) -> tuple[float, Floats]:
        margin = sign * (pair[0] * standard + pair[1])
        slope = -sign * sigmoid(-margin)
        return float(np.logaddexp(0.0, -margin).mean()), np.array([(slope * standard).mean(), slope.mean()])

    scale, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    scale, shift = float(scale / spread), float(shift - scale * middle / spread)
    return Calibration(scale, shift, len(nodules), len(false_positives))


def reliability(nodules: Floats, false_positives: Floats) -> list[Reliability]:
    """How often marks of like probability are nodules, from logits."""
    probability = sigmoid(np.concatenate([nodules, false_positives]))
    right = np.arange(len(probability)) < len(nodules)
    row = np.clip(np.searchsorted(EDGES, probability, side="right") - 1, 0, len(EDGES) - 2)
    rows = []
    for number, (low, high) in enumerate(pairwise(EDGES)):
        own = row == number
        count = int(own.sum())
        mean, share = (float(probability[own].mean()), float(right[own].mean())) if count else (np.nan, np.nan)
        rows.append(Reliability(low, high, count, mean, share))
    return rows


def table(calibration: Calibration, nodules: Floats, false_positives: Floats) -> list[str]:
    """What was fitted, and how often marks are nodules before and after, for a terminal."""
    lines = [
        f"logit = {calibration.scale:.4f} logit {calibration.shift:+.4f}, from {calibration.nodules} marks on nodules "
        f"and {calibration.false_positives} on nothing",
        "probability    before: marks, mean, nodules among them     after: marks, mean, nodules among them",
    ]
    before = reliability(nodules, false_positives)
    after = reliability(calibration.logits(nodules), calibration.logits(false_positives))
    for one, other in zip(before, after, strict=True):
        parts = [
            f"{row.marks:19d} {row.mean:8.3f} {row.share:10.3f}" if row.marks else f"{0:19d} {'-':>8} {'-':>10}"
            for row in (one, other)
        ]
        lines.append(f"{one.low:4.2f} to {one.high:4.2f} {parts[0]}      {parts[1]}")
    return lines


def apply(
    weights: Mapping[str, Sequence[NDArray[np.float32]]], calibration: Calibration, source: str
) -> dict[str, list[NDArray[np.float32]]]:
    """The weights of a net whose logits are calibrated; those given stay as they are.

    Args:
        weights: layer name -> blobs. source: their file, for messages.

    Raises:
        WeightsError: there is no convolution `HEAD` with a bias and five channels for each anchor.
    """
    blobs = weights.get(HEAD, ())
    channels = blobs[0].shape[0] if blobs else 0
    if len(blobs) != 2 or channels % VALUES_PER_ANCHOR or blobs[1].shape != (channels,):
        shapes = ", ".join(str(blob.shape) for blob in blobs) or "none"
        raise WeightsError(
            f'{source}: layer "{HEAD}": blobs of shapes {shapes}; allowed: the weights and the bias of a convolution '
            f"of {VALUES_PER_ANCHOR} channels for each anchor, as in the detector's nets"
        )
    kernel, bias = blobs[0].astype(np.float64), blobs[1].astype(np.float64)
    kernel[::VALUES_PER_ANCHOR] *= calibration.scale
    bias[::VALUES_PER_ANCHOR] = calibration.logits(bias[::VALUES_PER_ANCHOR])
    changed = [kernel.astype(np.float32), bias.astype(np.float32)]
    return {name: changed if name == HEAD else list(own) for name, own in weights.items()}


def _logits(probability: Floats) -> Floats:
    inner = np.clip(probability, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
    return np.asarray(np.log(inner) - np.log1p(-inner))
