"""Caffe's six update rules: from gradients and history to what is subtracted from the weights.

All work in place on lists of tensors of one learning rate, with PyTorch's fused list operations. Unlike PyTorch's
optimisers, the learning rate is inside SGD's history; epsilon is outside Adam's square root and not bias-corrected.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class RuleSettings:
    """The fields of the solver that rules read; `delta` is the small number in denominators."""

    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8


Rule = Callable[["Tensors", "Sequence[Tensors]", float, RuleSettings, int], "Tensors"]
"""(gradients, histories, rate, settings, iteration) -> updates; may reuse the memory of all of them."""


@dataclass(frozen=True)
class UpdateRule:
    """A rule and how many history tensors it keeps for each weight."""

    histories: int
    compute: Rule


def _sgd(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h = momentum h + rate g; the update is h."""
    import torch

    torch._foreach_mul_(h[0], settings.momentum)
    torch._foreach_add_(h[0], g, alpha=rate)
    return h[0]


def _nesterov(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h as in SGD; the update is (1 + momentum) h_new - momentum h_old."""
    import torch

    update = list(torch._foreach_mul(h[0], -settings.momentum))
    torch._foreach_mul_(h[0], settings.momentum)
    torch._foreach_add_(h[0], g, alpha=rate)
    torch._foreach_add_(update, h[0], alpha=1.0 + settings.momentum)
    return update


def _adagrad(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h = h + g^2; the update is rate g / (sqrt(h) + delta)."""
    import torch

    torch._foreach_addcmul_(h[0], g, g)
    return _scaled(g, h[0], rate, settings.delta)


def _rmsprop(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h = decay h + (1 - decay) g^2; the update is rate g / (sqrt(h) + delta)."""
    import torch

    torch._foreach_mul_(h[0], settings.rms_decay)
    torch._foreach_addcmul_(h[0], g, g, value=1.0 - settings.rms_decay)
    return _scaled(g, h[0], rate, settings.delta)


def _adadelta(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h0 averages g^2, h1 the squared steps g sqrt((h1 + delta) / (h0 + delta)); the update is rate times the step."""
    import torch

    torch._foreach_mul_(h[0], settings.momentum)
    torch._foreach_addcmul_(h[0], g, g, value=1.0 - settings.momentum)
    ratio = list(torch._foreach_add(h[1], settings.delta))
    torch._foreach_div_(ratio, torch._foreach_add(h[0], settings.delta))
    torch._foreach_sqrt_(ratio)
    torch._foreach_mul_(g, ratio)
    torch._foreach_mul_(h[1], settings.momentum)
    torch._foreach_addcmul_(h[1], g, g, value=1.0 - settings.momentum)
    torch._foreach_mul_(g, rate)
    return g


def _adam(g: "Tensors", h: "Sequence[Tensors]", rate: float, settings: RuleSettings, iteration: int) -> "Tensors":
    """h0 averages g, h1 g^2; the update is rate sqrt(1 - b2^t) / (1 - b1^t) h0 / (sqrt(h1) + delta)."""
    import torch

    b1, b2, t = settings.momentum, settings.momentum2, iteration + 1
    torch._foreach_mul_(h[0], b1)
    torch._foreach_add_(h[0], g, alpha=1.0 - b1)
    torch._foreach_mul_(h[1], b2)
    torch._foreach_addcmul_(h[1], g, g, value=1.0 - b2)
    return _scaled(torch._foreach_mul(h[0], 1.0), h[1], rate * math.sqrt(1.0 - b2**t) / (1.0 - b1**t), settings.delta)


def _scaled(g: "Sequence[torch.Tensor]", squares: "Tensors", rate: float, delta: float) -> "Tensors":
    """rate * g / (sqrt(squares) + delta), in the memory of g."""
    import torch

    divisor = list(torch._foreach_sqrt(squares))
    torch._foreach_add_(divisor, delta)
    update = list(g)
    torch._foreach_div_(update, divisor)
    torch._foreach_mul_(update, rate)
    return update


RULES: dict[str, UpdateRule] = {
    "SGD": UpdateRule(1, _sgd),
    "Nesterov": UpdateRule(1, _nesterov),
    "AdaGrad": UpdateRule(1, _adagrad),
    "RMSProp": UpdateRule(1, _rmsprop),
    "AdaDelta": UpdateRule(2, _adadelta),
    "Adam": UpdateRule(2, _adam),
}
"""`type` of the solver -> its rule."""
