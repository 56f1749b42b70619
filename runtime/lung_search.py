"""How hard to look for lungs: the rules first, then the fallbacks, in the order of trust.

Every fallback that led to the lungs is told in a short sentence in `Sides.notes`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.coarse import Coarse
from runtime.lung_rules import (
    AIR_HU,
    CROPPED,
    HUGE,
    STRICT,
    UNEQUAL,
    Limits,
    choose_lungs,
    find_pieces,
    find_pieces_apart,
    lung_outside,
)
from runtime.lung_sides import ONE_LUNG, Sides, part_lungs

CUT_STEP_MM = 20.0
OPEN = "lungs open to the outside: the air round the body taken away first"
MORE = 1.1  # times the lungs that another attempt found
DENSE_HU, THIN_HU = -150, -800  # air thresholds of the fallbacks


def search_lungs(coarse: Coarse, threads: int = 1) -> Sides | None:
    """The lungs' air on the whole coarse grid, or None where every attempt failed."""
    found = next(_search(coarse, _attempts(coarse), threads), None)
    if found is None or not found.notes:
        return found
    # Below the slices in which the field of view cuts them lungs are whole, or one of them is: a cut would stop there.
    attempt = _Attempt(OPEN, AIR_HU, coarse.hu.shape[0], HUGE, apart=True)
    apart = next(_search(coarse, iter([attempt]), threads), None)
    if apart is not None and apart.both and _voxels(apart) > MORE * _voxels(found):
        return apart
    return found if found.both else _second_lung(coarse, found, threads)


def _voxels(found: Sides) -> int:
    return int(np.count_nonzero(found.right) + np.count_nonzero(found.left))


@dataclass(frozen=True)
class _Attempt:
    """One way to look for lungs: what is told if it succeeds, the air's threshold, coarse slices kept, the rules, and
    whether outside air is taken away before."""

    told: str
    air_hu: int
    slices: int
    limits: Limits
    apart: bool = False


def _attempts(coarse: Coarse) -> Iterator[_Attempt]:
    """In the order of trust."""
    n = coarse.hu.shape[0]
    yield _Attempt("", AIR_HU, n, STRICT)
    yield _Attempt(f"very large lungs: up to {HUGE.max_ml / 1000:.0f} litres allowed", AIR_HU, n, HUGE)
    yield from _cuts(coarse)
    yield _Attempt("small or unequal lungs: rules of size and place relaxed", AIR_HU, n, UNEQUAL)
    yield _dense_attempt(coarse)
    yield _Attempt(f"lungs open to the outside: air threshold lowered to {THIN_HU} HU", THIN_HU, n, UNEQUAL)
    yield _Attempt(OPEN, AIR_HU, n, UNEQUAL, apart=True)
    yield _Attempt("lungs reach the edges of the scan: edge rule dropped", AIR_HU, n, CROPPED)


def _cuts(coarse: Coarse) -> Iterator[_Attempt]:
    n = coarse.hu.shape[0]
    step = max(1, round(CUT_STEP_MM / coarse.spacing[0]))
    for slices in range(n - step, max(n // 4, step), -step):
        cut = (n - slices) * coarse.spacing[0]
        yield _Attempt(f"the scan starts at the head: {cut:.0f} mm cut from the top", AIR_HU, slices, STRICT)


def _dense_attempt(coarse: Coarse) -> _Attempt:
    told = f"a dense lung or one cut to pieces: air threshold raised to {DENSE_HU} HU"
    return _Attempt(told, DENSE_HU, coarse.hu.shape[0], UNEQUAL)


def _search(coarse: Coarse, attempts: Iterator[_Attempt], threads: int) -> Iterator[Sides]:
    """The lungs of each attempt that finds some, on the whole coarse grid."""
    for attempt in attempts:
        hu = coarse.hu[: attempt.slices]
        find = find_pieces_apart if attempt.apart else find_pieces
        pieces = find(hu, attempt.air_hu, coarse.spacing)
        chosen = choose_lungs(hu, pieces, coarse.spacing, attempt.limits)
        if not chosen:
            continue
        kept = np.zeros(len(pieces.volume_ml), bool)
        kept[chosen] = True
        inside = np.ones(len(kept), bool)
        inside[[0, *pieces.outside.difference(chosen)]] = False
        sides = part_lungs(hu, inside[pieces.labels], kept[pieces.labels], pieces.axis[1], coarse.spacing, threads)
        whole = np.zeros((3, *coarse.hu.shape), np.bool_)
        whole[:, : attempt.slices] = sides.right, sides.left, sides.airway
        told = (attempt.told,) if attempt.told else ()
        yield Sides(whole[0], whole[1], whole[2], told + sides.notes)


def _second_lung(coarse: Coarse, found: Sides, threads: int) -> Sides:
    """One lung was found: the other may hang on the outside air through the mouth, or be dense all over."""
    if lung_outside(coarse.hu, find_pieces(coarse.hu, AIR_HU, coarse.spacing), coarse.spacing):
        for cut in _search(coarse, _cuts(coarse), threads):
            if cut.both:
                return cut
    dense = next(_search(coarse, iter([_dense_attempt(coarse)]), threads), None)
    if dense is None or not dense.both:
        return found
    right, left = (
        mine if mine.any() else other & ~(found.right | found.left)
        for mine, other in zip(found.lungs, dense.lungs, strict=True)
    )
    told = f"one lung found at {AIR_HU} HU, the other at {DENSE_HU} HU only"
    kept = (note for note in found.notes if not note.startswith(ONE_LUNG))
    return Sides(right, left, found.airway, (*kept, told))
