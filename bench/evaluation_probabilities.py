"""What a probability is worth: what is found with it as the threshold, and how often a mark of it is a nodule.

Doubles, and marks on excluded findings, count neither way, as in the official figures.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.evaluation_figures import SUM_FROM_MM
from runtime.froc import FrocResult

PROBABILITIES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class AtProbability:
    """One of `PROBABILITIES`.

    Attributes:
        probability: p.
        fps_per_scan, sensitivity, sensitivity_large: of marks of p and more; the last of nodules of 6 mm and more. NaN
            without nodules.
        marks: from p to below the next.
        on_nodules: how many of those marks are on a nodule.
    """

    probability: float
    fps_per_scan: float
    sensitivity: float
    sensitivity_large: float
    marks: int
    on_nodules: int

    @property
    def share(self) -> float:
        """Of its marks those on a nodule: calibrated probabilities are as large as this. NaN without marks."""
        return self.on_nodules / self.marks if self.marks else math.nan


def by_probability(result: FrocResult) -> tuple[AtProbability, ...]:
    """A row for each of `PROBABILITIES`; none where the marks' values are not probabilities."""
    best = np.array([-math.inf if n.probability is None else n.probability for n in result.nodules])
    hits, false = best[best > -math.inf], result.false_positive_probability
    every = np.concatenate([hits, false])
    if len(every) == 0 or every.min() < 0 or every.max() > 1:
        return ()
    large = np.array([n.diameter_mm >= SUM_FROM_MM for n in result.nodules], dtype=bool)
    edges = (*PROBABILITIES, math.inf)
    rows = []
    for low, high in pairwise(edges):
        on_nodules = int(((hits >= low) & (hits < high)).sum())
        rows.append(
            AtProbability(
                low,
                float((false >= low).sum()) / len(result.scans),
                float((best >= low).mean()) if len(best) else math.nan,
                float((best[large] >= low).mean()) if large.any() else math.nan,
                on_nodules + int(((false >= low) & (false < high)).sum()),
                on_nodules,
            )
        )
    return tuple(rows)
