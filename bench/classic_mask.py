"""The lung mask as everybody computed it in 2017: at full resolution, slice by slice, in plain NumPy and SciPy.

The rules are those of Tianchi 2017's second-placed team and of the DSB2017 winner before it (thresholds and connected
components, the largest pieces near the axis, erosion until there are two, convex hulls per slice, ten dilations).
Written as the description reads, neither tuned nor slowed down: it is the yardstick that `bench.naive` holds our own
against. One departure: two pieces are kept where two pass, or a scan whose lungs do not touch would lose one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from runtime.errors import ScanError

Bools = NDArray[np.bool_]
Spacing = tuple[float, float, float]
"""mm along z, y, x."""

PIECE_MM2, ECCENTRICITY = 30.0, 0.99
CORNER = 10  # voxels: a corner patch of one value means padding round a circular field of view
CUT_STEP_MM = 20.0
SPLIT_EROSIONS, SPLIT_RATIO = 22, 4.8
HULL_LIMIT = 2.0
DILATIONS = 10
SIX = ndimage.generate_binary_structure(3, 1)
EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Rules:
    """One attempt: the air's threshold, and what a piece of air must keep to be lung."""

    air_hu: float = -600.0
    min_ml: float = 680.0
    max_ml: float = 8200.0
    area_mm2: float = 6000.0
    distance_mm: float = 62.0


ATTEMPTS = (
    Rules(),
    Rules(min_ml=150.0, area_mm2=1500.0, distance_mm=92.0),  # unequal lungs, or parted ones
    Rules(air_hu=-150.0, area_mm2=1500.0, distance_mm=92.0),  # a lung cut to pieces
)


@dataclass(frozen=True)
class ClassicMask:
    """bool (z, y, x) on the scan's own voxels: the lungs with their holes filled, and what is searched."""

    lungs: Bools
    dilated: Bools


def classic_mask(hu: NDArray[np.int16], spacing: Spacing) -> ClassicMask:
    """The lungs of a scan whose x runs to the patient's left, y to the back, z to the head.

    Args:
        hu: (z, y, x).
        spacing: mm along z, y, x.

    Raises:
        ScanError: no attempt found lungs.
    """
    right, left = find_two(hu, spacing)
    sides = [fill_slices(side) for side in (right, left)]
    hulls = [hull_slices(side, HULL_LIMIT) for side in sides]
    dilated = ndimage.binary_dilation(hulls[0] | hulls[1], SIX, iterations=DILATIONS)
    return ClassicMask(sides[0] | sides[1], dilated)


def find_two(hu: NDArray[np.int16], spacing: Spacing) -> tuple[Bools, Bools]:
    """Two lungs by the first attempt that finds two, else the one of the first that finds any (and nothing).

    Raises:
        ScanError: none found.
    """
    one: Bools | None = None
    for rules in ATTEMPTS:
        found = next(_cuts(binarise(hu, spacing, rules.air_hu), spacing, rules), None)
        if found is None:
            continue
        two = split(found, spacing)
        if two is not None:
            return two
        one = found if one is None else one
    if one is None:
        raise ScanError("the classic rules find no lungs in this scan")
    return one, np.zeros_like(one)


def binarise(hu: NDArray[np.int16], spacing: Spacing, air_hu: float) -> Bools:
    """Air, slice by slice: blurred (sigma 1, cut off at 2), below the threshold, without small and drawn-out pieces."""
    air = np.zeros(hu.shape, bool)
    view = _field_of_view(hu)
    pixel = spacing[1] * spacing[2]
    for k, one in enumerate(hu):
        low = (ndimage.gaussian_filter(one.astype(np.float32), 1.0, truncate=2.0) < air_hu) & view
        labels, _ = ndimage.label(low, EIGHT)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[box] == number
            if piece.sum() * pixel > PIECE_MM2 and eccentricity(piece) < ECCENTRICITY:
                air[k][box] |= piece
    return air


def eccentricity(piece: Bools) -> float:
    """Of the ellipse with the second moments of a 2-D piece: 0 for a disc, 1 for a line."""
    points = np.argwhere(piece).astype(np.float64)
    moments = np.cov(points.T, bias=True) + np.eye(2) / 12  # a pixel has an extent of its own
    small, large = np.linalg.eigvalsh(moments)
    return float(np.sqrt(max(0.0, 1 - small / large)))


def choose(air: Bools, spacing: Spacing, rules: Rules) -> Bools | None:
    """The two largest pieces of a lung's size that lie near the axis and do not reach the scan's edges, or None."""
    labels, count = ndimage.label(air, SIX)
    middle = air.shape[2] // 2
    edges = {int(labels[z, y, x]) for z in (0, -1) for y in (0, -1) for x in (0, middle, -1)}
    ml = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing)) / 1000
    y = (np.arange(air.shape[1])[:, None] - (air.shape[1] - 1) / 2) * spacing[1]
    x = (np.arange(air.shape[2])[None, :] - (air.shape[2] - 1) / 2) * spacing[2]
    from_axis = np.hypot(y, x)
    passed = []
    for number in range(1, count + 1):
        if number in edges or not rules.min_ml <= ml[number] <= rules.max_ml:
            continue
        piece = labels == number
        areas = piece.sum(axis=(1, 2)) * spacing[1] * spacing[2]
        nearest = [from_axis[one].min() for one, area in zip(piece, areas, strict=True) if area > rules.area_mm2]
        if nearest and np.mean(nearest) < rules.distance_mm:
            passed.append(number)
    if not passed:
        return None
    passed.sort(key=lambda number: -ml[number])
    return np.isin(labels, passed[:2])


def split(lungs: Bools, spacing: Spacing) -> tuple[Bools, Bools] | None:
    """Eroded until the two largest pieces are alike, then each voxel to the nearer one; None where that never is."""
    eroded = lungs
    for _ in range(SPLIT_EROSIONS):
        labels, count = ndimage.label(eroded, SIX)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 0
        if count >= 2:
            first, second = (int(number) for number in np.argsort(-sizes, kind="stable")[:2])
            if sizes[first] < SPLIT_RATIO * sizes[second]:
                to_first = ndimage.distance_transform_edt(labels != first, sampling=spacing)
                to_second = ndimage.distance_transform_edt(labels != second, sampling=spacing)
                return lungs & (to_first < to_second), lungs & (to_first >= to_second)
        eroded = ndimage.binary_erosion(eroded, SIX)
    return None


def fill_slices(mask: Bools) -> Bools:
    """The holes of each slice filled."""
    return np.stack([ndimage.binary_fill_holes(one) for one in mask])


def hull_slices(mask: Bools, limit: float) -> Bools:
    """Each slice's convex hull by Qhull; a slice that more than `limit` times the mask would fill stays as it is.

    By the definition: a pixel is in the hull if no edge of it has the pixel on its outer side.
    """
    out = mask.copy()
    for k in range(len(mask)):
        points = np.argwhere(mask[k])
        if len(points) < 3:
            continue
        try:
            planes = ConvexHull(points).equations
        except QhullError:  # all in one line
            continue
        low, high = points.min(axis=0), points.max(axis=0) + 1
        grid = np.indices(high - low).reshape(2, -1).T + low
        hull = (grid @ planes[:, :2].T + planes[:, 2] <= 1e-7).all(axis=1).reshape(high - low)
        if hull.sum() <= limit * len(points):
            out[k, low[0] : high[0], low[1] : high[1]] = hull
    return out


def _cuts(air: Bools, spacing: Spacing, rules: Rules) -> Iterator[Bools]:
    """What `choose` finds in the scan, then in the scan without its uppermost 20 mm, 40 mm, ... (it may start at the
    head, and lungs that are open to the mouth are outside air)."""
    step = max(1, round(CUT_STEP_MM / spacing[0]))
    for count in range(len(air), len(air) // 4, -step):
        found = choose(air[:count], spacing, rules)
        if found is not None:
            whole = np.zeros_like(air)
            whole[:count] = found
            yield whole


def _field_of_view(hu: NDArray[np.int16]) -> Bools:
    """bool (y, x): the circle in the image if its corner is padding, else all of it."""
    patch = hu[0, :CORNER, :CORNER]
    if (patch != patch[0, 0]).any():
        return np.ones(hu.shape[1:], bool)
    y, x = (np.linspace(-1, 1, n) for n in hu.shape[1:])
    return np.hypot(y[:, None], x[None, :]) < 1
