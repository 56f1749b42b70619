"""What an evaluation finds out beyond the official figures: certainty, classes of nodules, a second submission.

Everything here is computed from `FrocResult`, which holds the official rules, and from one set of bootstrap draws.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bench.bootstrap import Times, draw_scans, interval, redrawn, redrawn_share, with_mean
from runtime.froc import Floats, FrocResult, NoduleHit, curve

CURVE_RATES: Floats = 2.0 ** np.linspace(-3.0, 3.0, 97)
"""Where the band of a curve is computed: 16 points from each of the seven official rates to the next."""

OPERATING_RATES = (1.0, 2.0, 4.0)
"""False positives per scan at which classes of nodules are compared; the last one decides what is called a miss."""

SIZES_MM = (-math.inf, 6.0, 8.0, 10.0, 20.0, math.inf)
"""Classes of diameters. 6 and 8 mm are the limits of the Fleischner Society's guidelines for follow-up."""

SUM_FROM_MM = 6.0
UNKNOWN = "not stated"


@dataclass(frozen=True, eq=False)
class Certain:
    """One submission's evaluation and how certain it is.

    Attributes:
        name: of the submission, for headings.
        at_rates: (3, 8), see `bench.bootstrap.bootstrap`.
        band: (3, 97), the same points of the sensitivity at `CURVE_RATES`.
    """

    name: str
    result: FrocResult
    at_rates: Floats
    band: Floats


@dataclass(frozen=True, eq=False)
class Group:
    """A class of nodules.

    Attributes:
        label: such as "6 to 8" or "part-solid".
        nodules: how many there are; found: by any mark.
        sensitivity: at `OPERATING_RATES`, with the whole set's thresholds; NaN without nodules.
        interval: (3, 3), its points over the draws of scans, the thresholds held.
        fps_per_scan, curve: this class's hits against the false positives of the whole set.
        overlaps: it is a sum of other groups.
    """

    label: str
    nodules: int
    found: int
    sensitivity: tuple[float, ...]
    interval: Floats
    fps_per_scan: Floats
    curve: Floats
    overlaps: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """Another submission over the same scans.

    Attributes:
        other: its evaluation.
        difference: (8,), the first one's sensitivity at each rate and CPM, less the other's.
        interval: (3, 8), its points over draws that are the same for both.
        found: nodules found at the last of `OPERATING_RATES`, each by its own threshold, by "both", "first only",
            "other only" and "neither".
    """

    other: Certain
    difference: Floats
    interval: Floats
    found: dict[str, int]


@dataclass(frozen=True, eq=False)
class Figures:
    """All figures of an evaluation.

    Attributes:
        thresholds: at `OPERATING_RATES`, see `threshold_at`.
        by_diameter, by_texture, by_place: the last two are empty where the annotations tell no type.
        comparison: None without a second submission.
    """

    main: Certain
    thresholds: tuple[float, ...]
    by_diameter: tuple[Group, ...]
    by_texture: tuple[Group, ...]
    by_place: tuple[Group, ...]
    comparison: Comparison | None
    draws: int
    seed: int


def compute(
    result: FrocResult,
    name: str,
    other: FrocResult | None = None,
    other_name: str = "",
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Figures:
    """The figures of a submission, and of another one if it is given, which must be of the same scans and nodules."""
    times = draw_scans(len(result.scans), draws, seed)
    values = redrawn(result, times, CURVE_RATES)
    main = _certain(name, result, values)
    thresholds = tuple(threshold_at(result, rate) for rate in OPERATING_RATES)
    nodules = result.nodules
    sizes = [size_label(low, high) for low, high in pairwise(SIZES_MM)]
    size_of = np.searchsorted(SIZES_MM[1:-1], [n.diameter_mm for n in nodules], side="right")
    members = [(label, size_of == k, False) for k, label in enumerate(sizes)]
    large = np.asarray([n.diameter_mm >= SUM_FROM_MM for n in nodules], dtype=bool)
    members.append((size_label(SUM_FROM_MM, math.inf), large, True))
    words = [type_words(n) for n in nodules]
    return Figures(
        main,
        thresholds,
        _groups(members, result, thresholds, times),
        _groups(_by_word([w[0] for w in words]), result, thresholds, times),
        _groups(_by_word([w[1] for w in words]), result, thresholds, times),
        None if other is None else _compare(main, values, other, other_name, times),
        draws,
        seed,
    )


def threshold_at(result: FrocResult, fps_per_scan: float) -> float:
    """The least probability of a mark that counts, if there are to be at most that many false positives a scan.

    It is the probability of a hit or false positive; infinity if even the most probable marks are too many.
    """
    false = np.sort(result.false_positive_probability)[::-1]
    allowed = math.floor(fps_per_scan * len(result.scans))
    beyond = false[allowed] if allowed < len(false) else -math.inf
    hits = [n.probability for n in result.nodules if n.probability is not None]
    every = np.concatenate([np.asarray(hits, dtype=np.float64), false])
    kept = every[every > beyond]
    return float(kept.min()) if len(kept) else math.inf


def is_found(nodule: NoduleHit, threshold: float) -> bool:
    """Whether a mark of at least this probability hit the nodule."""
    return nodule.probability is not None and nodule.probability >= threshold


def type_words(nodule: NoduleHit) -> tuple[str, str]:
    """Texture and place of a nodule from its type, such as "solid;juxtapleural"; "" for what is not told."""
    parts = [part.strip() for part in re.split("[;,]", nodule.type)]
    return parts[0], parts[1] if len(parts) > 1 else ""


def _certain(name: str, result: FrocResult, values: Floats) -> Certain:
    return Certain(name, result, interval(with_mean(values[:, ::16])), interval(values))


def size_label(low: float, high: float) -> str:
    """The name of a class of diameters from `low` to below `high` mm."""
    if low < 0:
        return f"under {high:.0f}"
    return f"{low:.0f} and more" if high == math.inf else f"{low:.0f} to {high:.0f}"


def _by_word(words: list[str]) -> list[tuple[str, NDArray[np.bool_], bool]]:
    """A group for each word, the commonest first, and what has none last; nothing if none has one."""
    counts = Counter(word for word in words if word)
    labels = sorted(counts, key=lambda word: (-counts[word], word))
    all_of = np.asarray(words, dtype=object)
    found = [(label, np.asarray(all_of == label, dtype=bool), False) for label in labels]
    if found and "" in words:
        found.append((UNKNOWN, np.asarray(all_of == "", dtype=bool), False))
    return found


def _groups(
    members: list[tuple[str, NDArray[np.bool_], bool]],
    result: FrocResult,
    thresholds: tuple[float, ...],
    times: Times,
) -> tuple[Group, ...]:
    number = {scan.seriesuid: index for index, scan in enumerate(result.scans)}
    scan = np.asarray([number[n.seriesuid] for n in result.nodules], dtype=np.intp)
    best = np.asarray([-math.inf if n.probability is None else n.probability for n in result.nodules])
    groups = []
    for label, own, overlaps in members:
        count = int(own.sum())
        hits = best[own & (best > -math.inf)]
        shares = np.column_stack([redrawn_share(best >= t, own, scan, times) for t in thresholds])
        fps, sensitivity, _ = curve(hits, result.false_positive_probability, count, len(result.scans))
        found = tuple(float((best[own] >= t).mean()) if count else math.nan for t in thresholds)
        groups.append(Group(label, count, len(hits), found, interval(shares), fps, sensitivity, overlaps))
    return tuple(groups)


def _compare(main: Certain, values: Floats, other: FrocResult, name: str, times: Times) -> Comparison:
    other_values = redrawn(other, times, CURVE_RATES)
    first = np.asarray([*main.result.sensitivities, main.result.cpm])
    second = np.asarray([*other.sensitivities, other.cpm])
    apart = with_mean(values[:, ::16]) - with_mean(other_values[:, ::16])
    limits = [threshold_at(result, OPERATING_RATES[-1]) for result in (main.result, other)]
    names = {(True, True): "both", (True, False): "first only", (False, True): "other only", (False, False): "neither"}
    pairs = Counter(
        (is_found(a, limits[0]), is_found(b, limits[1]))
        for a, b in zip(main.result.nodules, other.nodules, strict=True)
    )
    found = {label: pairs[key] for key, label in names.items()}
    return Comparison(_certain(name, other, other_values), first - second, interval(apart), found)
