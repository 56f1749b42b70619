"""From the air inside the body to two lungs: airways out, right and left apart, pieces collected.

Arrays are coarse (about 2 mm), (z, y, x), x to the patient's left. Every departure from two ordinary lungs is told in
`Sides.notes`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.airway import find_trachea, grow_airway
from runtime.lung_rules import SPLIT_RATIO, is_gas, split_two
from runtime.morphology import Bools, Spacing, box_of, components, depth, dilate

WALL_MM = 2.5  # of the airway, taken out with its lumen
PIECE_ML, PIECE_NEAR_MM, PIECE_TOLD_ML = 10.0, 15.0, 100.0
LARGE_PIECE_ML, LARGE_PIECE_NEAR_MM = 100.0, 50.0
PARTNER_ML = 60.0  # the least that counts as a second lung
APART_MM = 50.0  # of the lungs' centroids along x
STRADDLE = 0.2  # share on the far side of the axis above which a piece may be both lungs
LITTLE_STRADDLE, UNEQUAL_RATIO = 0.05, 15.0  # the same, where no second lung shows as a piece of its own
ONE_LUNG = "only one lung found"


@dataclass(frozen=True)
class Sides:
    """The lungs' air, coarse.

    Attributes:
        right, left: bool; one of them is empty where one lung was found.
        airway: trachea and main bronchi with their wall; empty where no trachea was found.
        notes: fallbacks taken.
    """

    right: Bools
    left: Bools
    airway: Bools
    notes: tuple[str, ...]

    @property
    def lungs(self) -> tuple[Bools, Bools]:
        """(right, left)."""
        return self.right, self.left

    @property
    def both(self) -> bool:
        """Whether there are two."""
        return bool(self.right.any() and self.left.any())


def part_lungs(
    hu: NDArray[np.int16], inside: Bools, chosen: Bools, axis_x: float, spacing: Spacing, threads: int = 1
) -> Sides:
    """Part the chosen air into right and left lung.

    Args:
        hu: coarse volume.
        inside: all air inside the body.
        chosen: the pieces that passed for lungs.
        axis_x: the body's middle, voxels.
        spacing: mm along z, y, x.
        threads: for distance transforms.
    """
    ml = float(np.prod(spacing)) / 1000
    notes: list[str] = []
    box = box_of(chosen)
    trachea = find_trachea(inside, spacing, axis_x, (box[0].start, box[0].stop))
    airway = np.zeros(inside.shape, bool)
    if trachea is not None:
        airway = dilate(grow_airway(hu, inside, trachea, spacing, threads), WALL_MM, spacing)
    labels, counts = components(inside & ~airway)
    counts[0] = 0
    own = np.bincount(labels[chosen], minlength=len(counts))
    own[0] = 0
    main = int(own.argmax())
    others = [
        int(i)
        for i in np.argsort(-counts, kind="stable")
        if i != main and counts[i] * ml >= PIECE_ML and not is_gas(hu, labels == i)
    ]
    first = labels == main
    pair, used = _pair(first, labels, counts, others, axis_x, spacing, threads, notes)
    right, left = _with_pieces(pair, labels, [i for i in others if i != used], spacing, threads, notes)
    return Sides(right, left, airway, tuple(notes))


def _pair(
    first: Bools,
    labels: NDArray[np.uint32],
    counts: NDArray[np.int64],
    others: list[int],
    axis_x: float,
    spacing: Spacing,
    threads: int,
    notes: list[str],
) -> tuple[tuple[Bools, Bools], int]:
    """((right, left), label of the second lung if it was a piece of its own else 0)."""
    ml = float(np.prod(spacing)) / 1000
    size = int(first.sum())
    x = _centre(first)[2]
    low = min(float(first[:, :, : max(0, round(axis_x))].sum()), float(first[:, :, round(axis_x) :].sum()))
    if low > STRADDLE * size and abs(x - axis_x) * spacing[2] < APART_MM:
        halves = split_two(first, spacing, threads)
        if halves is not None:
            return halves, 0
    box = box_of(first)
    for label in others:
        if counts[label] * ml < PARTNER_ML:
            break
        second = labels == label
        z2, _y, x2 = _centre(second)
        if abs(x2 - x) * spacing[2] < APART_MM or not box[0].start <= z2 < box[0].stop:
            continue
        if counts[label] * SPLIT_RATIO < size:
            small, big = counts[label] * ml, size * ml
            notes.append(f"very unequal lungs: {big:.0f} ml and {small:.0f} ml")
        return ((first, second) if x < x2 else (second, first)), label
    if low > LITTLE_STRADDLE * size:
        halves = split_two(first, spacing, threads, UNEQUAL_RATIO)
        if halves is not None:
            big, small = sorted((float(half.sum()) * ml for half in halves), reverse=True)
            notes.append(f"very unequal lungs: {big:.0f} ml and {small:.0f} ml")
            return halves, 0
    empty = np.zeros(first.shape, bool)
    notes.append(f"{ONE_LUNG}, on the {'right' if x < axis_x else 'left'}")
    return ((first, empty) if x < axis_x else (empty, first)), 0


def _centre(mask: Bools) -> tuple[float, float, float]:
    centre = []
    for axis in range(3):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.int64)
        centre.append(float((profile * np.arange(len(profile))).sum() / max(1, int(profile.sum()))))
    return centre[0], centre[1], centre[2]


def _with_pieces(
    pair: tuple[Bools, Bools],
    labels: NDArray[np.uint32],
    others: list[int],
    spacing: Spacing,
    threads: int,
    notes: list[str],
) -> tuple[Bools, Bools]:
    """The pair with the pieces of lung beside it: small ones near by and at its height, large ones further off too."""
    if not others:
        return pair
    voxel_ml = float(np.prod(spacing)) / 1000
    right, left = pair[0].copy(), pair[1].copy()
    total = 0.0
    pieces = [labels == label for label in others]
    while pieces:
        both = box_of(right | left)
        far = [_distance_to(lung, spacing, threads) for lung in (right, left)]
        rest = []
        for piece in pieces:
            ml = float(piece.sum()) * voxel_ml
            near = LARGE_PIECE_NEAR_MM if ml >= LARGE_PIECE_ML else PIECE_NEAR_MM
            to_right, to_left = (float(f[piece].min()) for f in far)
            level = both[0].start <= _centre(piece)[0] < both[0].stop
            if min(to_right, to_left) > near or not (level or ml >= LARGE_PIECE_ML):
                rest.append(piece)
                continue
            (right if to_right <= to_left else left)[piece] = True
            total += ml
        if len(rest) == len(pieces):
            break
        pieces = rest
    if total >= PIECE_TOLD_ML:
        notes.append(f"a lung in pieces: {total:.0f} ml beside the largest pieces were added")
    return right, left


def _distance_to(lung: Bools, spacing: Spacing, threads: int) -> NDArray[np.float32]:
    return depth(~lung, spacing, threads) if lung.any() else np.full(lung.shape, np.inf, np.float32)
