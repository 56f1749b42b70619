"""World positions of annotations into voxels of a prepared scan; what cannot be used as it stands is named.

Nothing is dropped without a `Problem` that says what was wrong and what was done.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.grid import Grid
from train.prepared_scan import IGNORE, TARGET, Annotation

POINT_MM = 10.0
"""LUNA16 gives excluded findings without a size a diameter of -1: a neighbourhood of this diameter is ignored."""
LARGEST_MM = 100.0
"""No nodule is larger (above 30 mm it is called a mass); it is a slip of the pen, or not in mm."""
SAME_RADII = 0.5
"""Two nodules cannot have their centres within half the smaller one's radius: that is one nodule, entered twice.
LUNA16's 1186 have no two centres within even a whole radius."""

InLung = Callable[[NDArray[np.intp]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Problem:
    """Something wrong with an annotation.

    Attributes:
        kind: what, the same words for all of a kind, such as "outside the lung mask".
        seriesuid: the annotation's series.
        annotation: the annotation.
        done: what was done: "left out" or "ignored" (a place that is neither asked for nor counted as background).
        detail: more, such as which other row it repeats; may be empty.
    """

    kind: str
    seriesuid: str
    annotation: Annotation
    done: str
    detail: str = ""

    def __str__(self) -> str:
        a = self.annotation
        where = f"{a.source}: " if a.source else ""
        more = f" ({self.detail})" if self.detail else ""
        return (
            f"{where}{self.seriesuid}: ({a.x_mm:.1f}, {a.y_mm:.1f}, {a.z_mm:.1f}) mm, diameter {a.diameter_mm:g} mm: "
            f"{self.kind}{more}; {self.done}"
        )


def place(
    seriesuid: str,
    grid: Grid,
    in_lung: InLung,
    targets: Iterable[Annotation],
    ignored: Iterable[Annotation],
    scan_grid: Grid | None = None,
) -> tuple[NDArray[np.float32], tuple[Problem, ...]]:
    """Annotations as rows of `PreparedScan.nodules`, targets first.

    A target that the lung mask cuts away is turned into an ignored place: the network cannot see it, so it may
    neither be asked for it nor be blamed for it. So is one without a usable diameter.

    Args:
        seriesuid: for the problems.
        grid: of the working volume.
        in_lung: (n, 3) voxels within that grid -> whether they belong to the lung mask.
        targets, ignored: what to find, and what counts neither way.
        scan_grid: of the whole scan, to tell "outside the scan" from "outside the lungs".
    """
    problems: list[Problem] = []
    rows: list[tuple[float, ...]] = []
    for kind, annotations in ((TARGET, targets), (IGNORE, ignored)):
        kept = _without_repeats(seriesuid, list(annotations), kind, problems)
        for annotation in kept:
            row = _row(seriesuid, grid, in_lung, annotation, kind, scan_grid, problems)
            if row is not None:
                rows.append(row)
    # a target that became an ignored place goes behind the targets: a crop has room for few rows
    rows.sort(key=lambda row: -row[4])
    return np.asarray(rows, dtype=np.float32).reshape(-1, 5), tuple(problems)


def _row(
    seriesuid: str,
    grid: Grid,
    in_lung: InLung,
    annotation: Annotation,
    kind: float,
    scan_grid: Grid | None,
    problems: list[Problem],
) -> tuple[float, ...] | None:
    def complain(what: str, done: str, detail: str = "") -> None:
        problems.append(Problem(what if kind == TARGET else f"excluded, {what}", seriesuid, annotation, done, detail))

    xyz = (annotation.x_mm, annotation.y_mm, annotation.z_mm)
    place_of = grid.to_voxel(xyz)
    if not _inside(place_of, grid):
        out = scan_grid is not None and not _inside(scan_grid.to_voxel(xyz), scan_grid)
        complain("outside the scan" if out else "outside the lungs' box", "left out")
        return None
    diameter, use = annotation.diameter_mm, kind
    if diameter <= 0:
        if kind == TARGET:
            complain("diameter not above 0", "ignored", f"within {POINT_MM:g} mm")
        diameter, use = POINT_MM, IGNORE
    elif diameter > LARGEST_MM:
        complain(f"diameter above {LARGEST_MM:g} mm", "ignored", f"within {LARGEST_MM:g} mm")
        diameter, use = LARGEST_MM, IGNORE
    if use == TARGET and not in_lung(np.round(place_of).astype(np.intp)[None])[0]:
        complain("outside the lung mask", "ignored")
        use = IGNORE
    z, y, x = (float(v) for v in place_of)
    return z, y, x, diameter, use


def _inside(zyx: NDArray[np.float64], grid: Grid) -> bool:
    index = np.round(zyx)
    return bool(np.all(index >= 0) and np.all(index < np.asarray(grid.shape)))


def _without_repeats(
    seriesuid: str, annotations: Sequence[Annotation], kind: float, problems: list[Problem]
) -> list[Annotation]:
    """The annotations without those that enter one place a second time.

    Excluded findings are marks of several readers who often mean one place: of them only equal rows are left out.
    """
    what = "" if kind == TARGET else "excluded, "
    kept: list[Annotation] = []
    seen: dict[Annotation, Annotation] = {}
    for one in annotations:
        if one in seen:
            detail = f"as {seen[one].source}" if seen[one].source else ""
            problems.append(Problem(f"{what}repeats a row", seriesuid, one, "left out", detail))
            continue
        seen[one] = one
        near = next((other for other in kept if _same(one, other)), None) if kind == TARGET else None
        if near is None:
            kept.append(one)
            continue
        distance = _distance_mm(one, near)
        detail = f"{distance:.1f} mm from the {near.diameter_mm:g} mm of {near.source or 'an earlier row'}"
        problems.append(Problem("nearly repeats a row", seriesuid, one, "left out", detail))
    return kept


def _same(a: Annotation, b: Annotation) -> bool:
    smaller = min(a.diameter_mm, b.diameter_mm) / 2
    return smaller > 0 and _distance_mm(a, b) < SAME_RADII * smaller


def _distance_mm(a: Annotation, b: Annotation) -> float:
    return float(np.linalg.norm((a.x_mm - b.x_mm, a.y_mm - b.y_mm, a.z_mm - b.z_mm)))
