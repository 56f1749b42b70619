"""Which pieces of air are lungs: the rules, on a coarse grid of about 2 mm.

The rules are those of the second-placed team of Tianchi 2017, which follow the DSB2017 winner's: pieces that reach
the volume's edges are outside air, a lung has 0.68 to 8.2 litres, and its large slices come near the body's axis. Ours
differ where it pays: smoothing is the block mean of the coarse grid; outside air is told by the volume's four vertical
edges alone, because padding counts as air (the mid-edges would reject emphysematous lungs in a scan cropped to them);
the axis is the body's, not the image's; gas in the bowel is told from lung by its density; and thin or small pieces
are dropped in 3-D, by volume, since dropping elongated components slice by slice loses the recesses of the lung.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.morphology import Bools, Spacing, box_of, components, depth, dilate, touch

AIR_HU = -600
MIN_LUNG_ML, MAX_LUNG_ML = 680.0, 8200.0
SMALL_LUNG_ML, HUGE_LUNG_ML = 150.0, 12000.0
LUNG_HU, THICK_ML = -940, 60.0  # what counts as lung in outside air, and how much of it is left when thinned
GAS_HU = -970  # half of a piece below it: gas, not lung; even severe emphysema keeps more tissue at 2 mm
SKIN_MM = 5.0  # over which air turns into skin in the coarse grid
LARGEST_SHARE = 0.85  # of the scan: something must be left for the body
SPLIT_RATIO = 4.8
SPLIT_STEPS_MM = tuple(range(1, 23))


@dataclass(frozen=True)
class Limits:
    """What a piece of air must keep to be taken for lungs."""

    min_ml: float = MIN_LUNG_ML
    max_ml: float = MAX_LUNG_ML
    area_mm2: float = 6000.0
    distance_mm: float = 62.0
    edges: bool = False  # whether a piece that reaches the volume's vertical edges may be lung


STRICT = Limits()
HUGE = Limits(max_ml=HUGE_LUNG_ML)
UNEQUAL = Limits(min_ml=SMALL_LUNG_ML, max_ml=HUGE_LUNG_ML, area_mm2=1500.0, distance_mm=92.0)
CROPPED = replace(UNEQUAL, edges=True)


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of air of a coarse volume.

    Attributes:
        labels: (z, y, x), 0 = not air.
        volume_ml: by label.
        outside: labels of air that is not in the body.
        axis: (y, x) of the body's axis, voxels.
    """

    labels: NDArray[np.uint32]
    volume_ml: NDArray[np.float64]
    outside: frozenset[int]
    axis: tuple[float, float]

    def largest(self, at_least_ml: float, edges: bool = False) -> list[int]:
        """Labels of the pieces inside the body (with `edges`: of all), largest first."""
        order = np.argsort(-self.volume_ml, kind="stable")
        outside = frozenset() if edges else self.outside
        return [int(i) for i in order if i and int(i) not in outside and self.volume_ml[i] >= at_least_ml]


def find_pieces(hu: NDArray[np.int16], air_hu: int, spacing: Spacing) -> Pieces:
    """Label the air, below `air_hu`, and tell outside air: what reaches one of the volume's four vertical edges."""
    labels, counts = components(hu < air_hu)
    return _measured(labels, counts, frozenset(int(i) for i in _at_edges(labels) if i), spacing)


def find_pieces_apart(hu: NDArray[np.int16], air_hu: int, spacing: Spacing) -> Pieces:
    """As `find_pieces`, for lungs that hang together with the air round the body, which is taken away first.

    They do where the field of view cuts the chest wall to nothing (the padding beyond a round field may be as thin as
    air, too), or through the mouth. Outside air is what is as thin as air alone and reaches the volume's vertical
    edges; the skin's width round it goes with it.
    """
    thin, sizes = components(hu < GAS_HU)
    large = np.flatnonzero(sizes * (float(np.prod(spacing)) / 1000) > THICK_ML)
    open_air = np.isin(thin, np.intersect1d(_at_edges(thin), large[large > 0]))
    if open_air.any():
        open_air = dilate(open_air, SKIN_MM, spacing)
    labels, counts = components((hu < air_hu) & ~open_air)
    return _measured(labels, counts, frozenset(int(i) for i in _at_edges(labels) if i), spacing)


def _at_edges(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """What reaches one of the volume's four vertical edges."""
    return np.unique(np.concatenate([labels[:, y, x] for y in (0, -1) for x in (0, -1)]))


def _measured(
    labels: NDArray[np.uint32], counts: NDArray[np.int64], outside: frozenset[int], spacing: Spacing
) -> Pieces:
    is_outside = np.zeros(len(counts), bool)
    is_outside[list(outside)] = True
    body = ~is_outside[labels]
    ys, xs = (body.sum(axis=axes, dtype=np.int64) for axes in ((0, 2), (0, 1)))
    total = max(1, int(ys.sum()))
    axis = (float((ys * np.arange(len(ys))).sum() / total), float((xs * np.arange(len(xs))).sum() / total))
    volume_ml = np.asarray(counts * (float(np.prod(spacing)) / 1000), np.float64)
    return Pieces(labels, volume_ml, outside, axis)


def is_gas(hu: NDArray[np.int16], piece: Bools) -> bool:
    """Whether a piece is gas in the bowel or the stomach rather than lung: by its density.

    The outermost voxels hold a part of the wall, so of a small piece the denser half counts less.
    """
    values = hu[piece]
    if not values.size:
        return False
    share = 50 if values.size > 40000 else 30
    return bool(np.percentile(values, share) < GAS_HU)


def lung_outside(hu: NDArray[np.int16], pieces: Pieces, spacing: Spacing) -> bool:
    """Whether the outside air holds something as dense and as thick as lung: lungs open to it through the mouth.

    Skin, clothes and the table are as dense as lung at 2 mm, but thin.
    """
    is_outside = np.zeros(len(pieces.volume_ml), bool)
    is_outside[list(pieces.outside)] = True
    inner = is_outside[pieces.labels] & (hu > LUNG_HU)
    for _ in range(max(1, round(4.0 / min(spacing)))):
        inner = ~touch(~inner)
    return bool(inner.sum() * float(np.prod(spacing)) / 1000 > THICK_ML)


def axis_distance_mm(piece: Bools, axis: tuple[float, float], spacing: Spacing, area_mm2: float) -> float:
    """Mean distance from the axis to the piece's nearest voxel, over its slices larger than `area_mm2`.

    0 where no slice is that large: the rule then says nothing.
    """
    pixel = spacing[1] * spacing[2]
    large = piece[piece.sum(axis=(1, 2)) * pixel > area_mm2]
    if not len(large):
        return 0.0
    y = (np.arange(piece.shape[1])[:, None] - axis[0]) * spacing[1]
    x = (np.arange(piece.shape[2])[None, :] - axis[1]) * spacing[2]
    distance = np.hypot(y, x).astype(np.float32)
    return float(np.mean([distance[one].min() for one in large]))


def choose_lungs(hu: NDArray[np.int16], pieces: Pieces, spacing: Spacing, limits: Limits) -> list[int]:
    """Labels of the pieces that pass for lungs, largest first."""
    chosen = []
    for label in pieces.largest(limits.min_ml, limits.edges):
        if pieces.volume_ml[label] > limits.max_ml:
            continue
        piece = pieces.labels == label
        if piece.mean() > LARGEST_SHARE:
            continue
        if is_gas(hu, piece):
            continue
        if axis_distance_mm(piece, pieces.axis, spacing, limits.area_mm2) > limits.distance_mm:
            continue
        chosen.append(label)
    return chosen


def split_two(
    lungs: Bools, spacing: Spacing, threads: int = 1, ratio: float = SPLIT_RATIO
) -> tuple[Bools, Bools] | None:
    """Two lungs that touch each other, parted: eroded until they fall apart, then each voxel to the nearer one.

    Returns (right, left) as seen from their x (x runs to the patient's left), or None where nothing falls apart
    within 22 mm into two parts of which the larger is at most `ratio` times the smaller.
    """
    box = box_of(lungs, (1, 1, 1))
    inner = depth(lungs[box], spacing, threads)
    for step in SPLIT_STEPS_MM:
        labels, counts = components(inner > step)
        counts[0] = 0
        if len(counts) < 3:
            continue
        a, b = (int(i) for i in np.argsort(-counts, kind="stable")[:2])
        if counts[b] * ratio < counts[a]:
            continue
        halves = [labels == a, labels == b]
        xs = [float(np.nonzero(h.any(axis=(0, 1)))[0].mean()) for h in halves]
        if abs(xs[0] - xs[1]) * spacing[2] < 50.0:
            continue
        right_core, left_core = halves if xs[0] < xs[1] else halves[::-1]
        nearer_right = depth(~right_core, spacing, threads) <= depth(~left_core, spacing, threads)
        right, left = np.zeros(lungs.shape, np.bool_), np.zeros(lungs.shape, np.bool_)
        right[box] = lungs[box] & nearer_right
        left[box] = lungs[box] & ~nearer_right
        return right, left
    return None
