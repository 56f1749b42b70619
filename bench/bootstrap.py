"""How certain an evaluation is: what other draws of scans would have given (Efron's bootstrap, as LUNA16 uses it).

Scans are drawn, not nodules or marks: those of one scan stand or fall together. Two submissions are compared over the
same draws, so that what all scans have in common cancels out of their difference.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.froc import RATES, Floats, FrocResult

Times = NDArray[np.int64]
"""(draws, scans): how often each scan is in each draw."""


def draw_scans(scans: int, n: int = 1000, seed: int = 0) -> Times:
    """`n` draws with replacement, each of as many scans as there are; `seed` is of NumPy's default generator."""
    return np.random.default_rng(seed).multinomial(scans, np.full(scans, 1.0 / scans), size=n)


def redrawn(result: FrocResult, times: Times, rates: Sequence[float] | Floats = RATES) -> Floats:
    """(draws, rates): the sensitivity of each draw at each rate; NaN in draws without a nodule."""
    number = {scan.seriesuid: index for index, scan in enumerate(result.scans)}
    found = [
        (nodule.probability, number[nodule.seriesuid]) for nodule in result.nodules if nodule.probability is not None
    ]
    probability = np.concatenate([[p for p, _ in found], result.false_positive_probability])
    scan = np.concatenate([[s for _, s in found], result.false_positive_scan]).astype(np.intp)
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.diff(probability[order], append=-math.inf))
    scan, is_hit = scan[order], order < len(found)
    totals = times @ np.asarray([s.nodules for s in result.scans])
    values = np.full((len(times), len(rates)), math.nan)
    for own, total, row in zip(times, totals, values, strict=True):
        if not total:
            continue
        weight = own[scan]
        true = np.cumsum(np.where(is_hit, weight, 0))[ends]
        false = np.cumsum(weight)[ends] - true
        fps = np.concatenate([[0.0], false / len(own)])
        row[:] = np.interp(rates, fps, np.concatenate([[0.0], true / total]))
    return values


def redrawn_share(part: NDArray[np.bool_], of: NDArray[np.bool_], scan: NDArray[np.intp], times: Times) -> Floats:
    """(draws,): the share of `part` in `of`, both (nodules,), of nodules in the scans `scan`; NaN in draws without."""
    counts = [np.bincount(scan[which], minlength=times.shape[1]) for which in (part & of, of)]
    some, every = times @ counts[0], times @ counts[1]
    return np.asarray(np.divide(some, every, out=np.full(len(times), math.nan), where=every > 0), dtype=np.float64)


def with_mean(values: Floats) -> Floats:
    """Sensitivities at `RATES`, (draws, 7), and their mean, the CPM, as an eighth column."""
    return np.column_stack([values, values.mean(axis=1)])


def interval(values: Floats) -> Floats:
    """(3, columns): the 2.5 %, 50 % and 97.5 % points of each column without its NaN; NaN if there is nothing else."""
    points = [
        np.percentile(known, (2.5, 50.0, 97.5)) if len(known) else np.full(3, math.nan)
        for known in (column[~np.isnan(column)] for column in values.T)
    ]
    return np.asarray(points, dtype=np.float64).reshape(-1, 3).T


def bootstrap(result: FrocResult, n: int = 1000, seed: int = 0) -> Floats:
    """The sensitivities of `n` sets of scans, each drawn with replacement and as large as the evaluated one.

    Args:
        n: draws.
        seed: of NumPy's default generator.

    Returns:
        (3, 8): the 2.5 %, 50 % and 97.5 % points of the sensitivity at each of `RATES` and, last, of the CPM.
        NaN if there is no nodule; draws without a nodule do not count.
    """
    return interval(with_mean(redrawn(result, draw_scans(len(result.scans), n, seed))))
