"""Batch normalisation of few channels in the channels-last layout, with rows laid side by side until they are wide.

PyTorch's CPU kernels go along the channels of one voxel at a time. Where these are no multiple of a vector register
that is slow: the sums over 524,288 voxels of 24 channels take 7 ms, of 32 channels, a third more numbers, 1.3 ms. But
four voxels of 24 channels are also one of 96; so we sum 96 and then add up the four parts of each channel.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LANES = 32
"""Numbers of a register: 32 of bfloat16, twice what it holds of float32."""
LEAST = 1 << 18
"""Numbers in a blob; for smaller ones the calls would cost more than they save."""


def rows_to_fold(x: "Tensor") -> int:
    """How many voxels to lay side by side for batch normalisation of `x` (n, channels, ...); 1: better none."""
    import torch

    if x.ndim not in (4, 5) or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return 1
    if x.numel() < LEAST:
        return 1
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    channels = x.shape[1]
    count = LANES // math.gcd(channels, LANES)
    fits = x.is_contiguous(memory_format=layout) and x.numel() // channels % count == 0
    return count if fits and channels < LANES * 4 else 1


def batch_norm(
    x: "Tensor", gamma: "Tensor | None", beta: "Tensor | None", eps: float, fold: int
) -> "tuple[Tensor, Tensor, Tensor]":
    """`x` normalised by its own statistics, its mean and its unbiased variance (channels,), as `torch.batch_norm` has
    them but for rounding.

    Args:
        x: (n, channels, ...) in a channels-last layout, float32 or bfloat16; gamma, beta: (channels,) float32 or None.
        fold: `rows_to_fold(x)`.
    """
    y, mean, var = _function().apply(x, gamma, beta, eps, fold)
    return y, mean, var


@cache
def _function() -> Any:
    """The autograd function; made when it is asked for, since whoever only detects has no torch."""
    import torch

    class Folded(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, x: "Tensor", gamma: "Tensor | None", beta: "Tensor | None", eps: float, fold: int
        ) -> "tuple[Tensor, Tensor, Tensor]":
            rows = _side_by_side(x, fold)
            count = x.numel() // x.shape[1]
            # they say in which type the sums are given back; momentum 0 leaves them as they are
            like = torch.zeros(rows.shape[1])
            mean, var = torch.batch_norm_update_stats(rows, like, like.clone(), 0.0)
            mean, var = mean.view(fold, -1), var.view(fold, -1)
            var = var.mean(0) + mean.var(0, unbiased=False)
            mean = mean.mean(0)
            scale = (var + eps).rsqrt()
            weight = scale if gamma is None else scale * gamma
            shift = -mean * weight if beta is None else beta - mean * weight
            ctx.save_for_backward(x, gamma, mean, scale)
            ctx.fold, ctx.has_beta = fold, beta is not None
            unbiased = var * (count / max(count - 1, 1))
            ctx.mark_non_differentiable(mean, unbiased)
            y = torch.empty_like(x)  # a blob of its own, not a view of one, so that what follows may write into it
            _scaled(rows, weight, shift, _side_by_side(y, fold))
            return y, mean, unbiased

        @staticmethod
        def backward(ctx: Any, gradient: "Tensor", *_: Any) -> "tuple[Tensor | None, ...]":
            x, gamma, mean, scale = ctx.saved_tensors
            fold = ctx.fold
            layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
            rows = _side_by_side(x, fold)
            given = _side_by_side(gradient.to(x.dtype).contiguous(memory_format=layout), fold)
            wide = [one.repeat(fold) for one in (mean, scale)]
            ones = torch.ones_like(wide[0])
            _, by_gamma, by_beta = torch.ops.aten.native_batch_norm_backward(
                given, rows, ones, wide[0], ones, *wide, True, 0.0, [False, True, True]
            )
            by_gamma, by_beta = (one.view(fold, -1).sum(0) for one in (by_gamma, by_beta))
            by_x = None
            if ctx.needs_input_grad[0]:
                # gamma scale (given - mean of given - normalised x times mean of (given times normalised x))
                count = x.numel() // x.shape[1]
                first = scale if gamma is None else scale * gamma
                second = -first * scale * by_gamma / count
                by_x, part = torch.empty_like(x), torch.empty_like(rows)
                to = _side_by_side(by_x, fold)
                # each without its mean, so that little is lost where it is rounded to the type of the rows
                _scaled(given, first, -first * by_beta / count, to)
                _scaled(rows, second, -second * mean, part)
                to += part
            return by_x, None if gamma is None else by_gamma, by_beta if ctx.has_beta else None, None, None

    return Folded


def _side_by_side(x: "Tensor", fold: int) -> "Tensor":
    """(n, channels, ...) as rows of `fold` voxels, the same memory."""
    return x.movedim(1, -1).view(-1, fold * x.shape[1])


def _scaled(rows: "Tensor", weight: "Tensor", shift: "Tensor", to: "Tensor") -> None:
    """rows * weight + shift, a column each, into `to`: in one pass, weight and shift in float32."""
    import torch

    fold = rows.shape[1] // len(weight)
    nothing = torch.zeros(rows.shape[1])
    unused = torch.empty(0)
    torch.native_batch_norm(
        rows,
        weight.repeat(fold),
        shift.repeat(fold),
        nothing,
        torch.ones_like(nothing),
        False,
        0.0,
        0.0,
        out=(to, unused, unused.clone()),
    )
