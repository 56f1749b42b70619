"""How certain an evaluation is: what other draws of scans would have given (Efron's bootstrap, as LUNA16 uses it)."""

import math

import numpy as np

from runtime.froc import RATES, Floats, FrocResult


def bootstrap(result: FrocResult, n: int = 1000, seed: int = 0) -> Floats:
    """The sensitivities of `n` sets of scans, each drawn with replacement and as large as the evaluated one.

    Args:
        n: draws.
        seed: of NumPy's default generator.

    Returns:
        (3, 8): the 2.5 %, 50 % and 97.5 % points of the sensitivity at each of `RATES` and, last, of the CPM.
        NaN if there is no nodule; draws without a nodule do not count.
    """
    number = {scan.seriesuid: index for index, scan in enumerate(result.scans)}
    found = [
        (nodule.probability, number[nodule.seriesuid]) for nodule in result.nodules if nodule.probability is not None
    ]
    probability = np.concatenate([[p for p, _ in found], result.false_positive_probability])
    scan = np.concatenate([[s for _, s in found], result.false_positive_scan]).astype(np.intp)
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.diff(probability[order], append=-math.inf))
    scan, is_hit = scan[order], order < len(found)
    in_scan = np.asarray([s.nodules for s in result.scans])
    random = np.random.default_rng(seed)
    share = np.full(len(in_scan), 1.0 / len(in_scan))
    drawn = []
    for _ in range(n):
        times = random.multinomial(len(in_scan), share)
        total = int(times @ in_scan)
        if not total:
            continue
        weight = times[scan]
        true = np.cumsum(np.where(is_hit, weight, 0))[ends]
        false = np.cumsum(weight)[ends] - true
        fps = np.concatenate([[0.0], false / len(in_scan)])
        drawn.append(np.interp(RATES, fps, np.concatenate([[0.0], true / total])))
    if not drawn:
        return np.full((3, len(RATES) + 1), math.nan)
    values = np.asarray(drawn)
    values = np.column_stack([values, values.mean(axis=1)])
    return np.asarray(np.percentile(values, (2.5, 50.0, 97.5), axis=0))
