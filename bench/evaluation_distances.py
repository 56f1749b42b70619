"""How far marks are from the centres of their nodules. A mark beside one costs twice: a miss and a false positive."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.evaluation_figures import SIZES_MM, size_label
from runtime.froc import UNKNOWN_DIAMETER_MM, FrocResult, NoduleHit

BESIDE_MM = 3.0
"""A false positive up to so far beyond a missed nodule's surface was most likely meant for it."""


@dataclass(frozen=True)
class Apart:
    """A nodule and the mark that means it.

    Attributes:
        distance_mm: of the most probable hit from the centre or, if none hit, of the most probable one beside it.
        hit: which of the two.
    """

    nodule: NoduleHit
    distance_mm: float
    hit: bool


@dataclass(frozen=True)
class Distances:
    """A class of nodules.

    Attributes:
        label: of the class, "all" for the last.
        hit: nodules with a hit; median_mm, ninety_mm: how far the most probable one is from the centre in half of them,
            and in nine of ten. NaN without hits.
        beside: nodules without a hit, but with a false positive beside them.
    """

    label: str
    hit: int
    median_mm: float
    ninety_mm: float
    beside: int


def marks_apart(result: FrocResult, threshold: float) -> tuple[Apart, ...]:
    """The nodules that a mark of at least `threshold` means, in their order; those that none means are left out."""
    scan = {counts.seriesuid: k for k, counts in enumerate(result.scans)}
    found = []
    for nodule in result.nodules:
        if nodule.probability is not None and nodule.apart_mm is not None and nodule.probability >= threshold:
            found.append(Apart(nodule, nodule.apart_mm, True))
            continue
        rows = np.flatnonzero(
            (result.false_positive_scan == scan[nodule.seriesuid]) & (result.false_positive_probability >= threshold)
        )
        away = np.linalg.norm(result.false_positive_xyz_mm[rows] - (nodule.x_mm, nodule.y_mm, nodule.z_mm), axis=1)
        diameter = nodule.diameter_mm if nodule.diameter_mm >= 0 else UNKNOWN_DIAMETER_MM
        near = away <= diameter / 2.0 + BESIDE_MM
        if near.any():
            surest = np.argmax(result.false_positive_probability[rows[near]])
            found.append(Apart(nodule, float(away[near][surest]), False))
    return tuple(found)


def by_distance(result: FrocResult, threshold: float) -> tuple[Distances, ...]:
    """A row for each class of diameters that has nodules, and one for all of them; none without nodules."""
    apart = marks_apart(result, threshold)
    rows = []
    for low, high in (*pairwise(SIZES_MM), (-math.inf, math.inf)):
        if not any(low <= nodule.diameter_mm < high for nodule in result.nodules):
            continue
        own = [one for one in apart if low <= one.nodule.diameter_mm < high]
        hits = [one.distance_mm for one in own if one.hit]
        median, ninety = np.quantile(hits, (0.5, 0.9)).tolist() if hits else (math.nan, math.nan)
        label = "all" if (low, high) == (-math.inf, math.inf) else size_label(low, high)
        rows.append(Distances(label, len(hits), median, ninety, len(own) - len(hits)))
    return tuple(rows)
