"""Caffe's learning rate policies: the rate of an iteration, and what "multistep" and "plateau" remember."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

NO_LOSS = 1e38
"""`minimum_loss` before any loss was seen, as Caffe writes it."""


@dataclass(frozen=True)
class LrPolicy:
    """How the rate falls, in Caffe's words. Iterations count from 0.

    fixed: base_lr. step: base_lr * gamma ** floor(iter / stepsize). exp: base_lr * gamma ** iter.
    inv: base_lr * (1 + gamma * iter) ** -power. poly: base_lr * (1 - iter / max_iter) ** power.
    sigmoid: base_lr / (1 + exp(-gamma * (iter - stepsize))). multistep: base_lr * gamma ** (stepvalues reached).
    plateau: as multistep, but step k is taken when the loss has had no new minimum for plateau_winsize[k] iterations.
    """

    name: str
    base_lr: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalue: tuple[int, ...] = ()
    plateau_winsize: tuple[int, ...] = ()
    max_iter: int = 0


@dataclass(frozen=True)
class LrState:
    """What a snapshot keeps of the policy.

    Attributes:
        current_step: steps taken.
        minimum_loss: least loss seen ("plateau").
        iter_last_event: iteration of the last new minimum or step ("plateau").
    """

    current_step: int = 0
    minimum_loss: float = NO_LOSS
    iter_last_event: int = 0


def advance(policy: LrPolicy, state: LrState, iteration: int, loss: float) -> LrState:
    """The state for `iteration`; call it once for each one, with its (averaged) total loss.

    One step is taken at most, as in Caffe; "step" keeps its count too, for the snapshot alone.
    """
    if policy.name == "step":
        return replace(state, current_step=iteration // policy.stepsize)
    if policy.name == "multistep":
        values = policy.stepvalue
        due = state.current_step < len(values) and iteration >= values[state.current_step]
        return replace(state, current_step=state.current_step + due)
    if policy.name == "plateau":
        if loss < state.minimum_loss:
            state = replace(state, minimum_loss=loss, iter_last_event=iteration)
        windows = policy.plateau_winsize
        step = state.current_step
        if step < len(windows) and iteration >= state.iter_last_event + windows[step]:
            state = replace(state, current_step=step + 1, iter_last_event=iteration)
    return state


def rate(policy: LrPolicy, state: LrState, iteration: int) -> float:
    """The learning rate of `iteration`, before the blobs' own lr_mult."""
    return policy.base_lr * POLICIES[policy.name](policy, state, iteration)


def _power(base: float, exponent: float) -> float:
    """base ** exponent, infinite where Python would raise (gamma above 1, many iterations), as in Caffe."""
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def _step(policy: LrPolicy, state: LrState, iteration: int) -> float:
    return _power(policy.gamma, iteration // policy.stepsize)


def _by_count(policy: LrPolicy, state: LrState, iteration: int) -> float:
    return _power(policy.gamma, state.current_step)


def _poly(policy: LrPolicy, state: LrState, iteration: int) -> float:
    return _power(max(0.0, 1.0 - iteration / policy.max_iter), policy.power)  # 0 after the end; Caffe has NaN there


def _sigmoid(policy: LrPolicy, state: LrState, iteration: int) -> float:
    exponent = -policy.gamma * (iteration - policy.stepsize)
    return 1.0 / (1.0 + math.exp(min(exponent, 700.0)))  # beyond it exp overflows, and the rate is 0 anyway


POLICIES: dict[str, Callable[[LrPolicy, LrState, int], float]] = {
    "fixed": lambda policy, state, iteration: 1.0,
    "step": _step,
    "exp": lambda policy, state, iteration: _power(policy.gamma, iteration),
    "inv": lambda policy, state, iteration: _power(1.0 + policy.gamma * iteration, -policy.power),
    "multistep": _by_count,
    "poly": _poly,
    "sigmoid": _sigmoid,
    "plateau": _by_count,
}
"""Name in the prototxt -> factor on base_lr."""
