"""Whether the slices of one DICOM series stand in one regular stack, and the grid of it.

This is where libraries are silent: GDCM and ITK sort the slices, take the first distance for all of them and drop
the tilt of the gantry, so a missing slice or a tilted stack shifts everything behind it. Here each is refused.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtime.dicom_slice import SliceHeader
from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.stored_voxels import MIN_VOXELS

SAME_PLACE_MM = 0.01
"""Slices nearer to each other than this are at the same place."""

MISSING_STEPS = 1.5
"""A distance of more than so many usual ones means that slices are missing."""

UNEVEN = 0.1
"""Allowed deviation of a slice from the regular stack, in slice distances, and in mm where that is more: positions
are rounded to 0.1 mm by some scanners."""

DRIFT_PIXELS = 0.5
"""Allowed sideways shift of a slice against the first; beyond, the stack is sheared."""

TILT_DEGREES = 0.5
"""Gantry tilt that is taken for none."""

DIRECTION_TOLERANCE = 1e-3
"""Allowed difference of the direction cosines, from each other and from a right angle."""


def stack_slices(headers: Sequence[SliceHeader], source: str) -> tuple[tuple[SliceHeader, ...], Grid]:
    """Sort the slices of one series along their normal, and check that they are a regular stack.

    Returns:
        The slices in stack order, and the grid of the array (slice, row, column).

    Raises:
        ScanError: slices that differ in size or orientation, that lie at the same place, that are missing, unevenly
            spaced or shifted sideways (gantry tilt).
    """
    if len(headers) < MIN_VOXELS:
        raise ScanError(f"{source}: {len(headers)} CT slices found; allowed are at least {MIN_VOXELS}; give them all")
    _check_present(headers, source)
    for field, pick in _SAME:
        _check_same(headers, source, field, pick)
    first = headers[0]
    row, column, normal = _axes(first, source)
    places = np.array([header.position_mm for header in headers], dtype=np.float64)
    along = places @ normal
    order = np.argsort(along, kind="stable")
    slices = tuple(headers[i] for i in order)
    along, places = along[order], places[order]
    _check_same_place(slices, along, source)
    step = _check_steps(slices, along, source)
    _check_drift(slices, places, normal, source)
    _check_tilt(slices, normal, source)
    rows, columns = first.size
    spacing_x, spacing_y = first.spacing_mm or (0.0, 0.0)
    x, y, z = places[0]
    direction = np.column_stack([row, column, normal]) + 0.0
    return slices, Grid(
        (len(slices), rows, columns),
        (spacing_x, spacing_y, step),
        (float(x), float(y), float(z)),
        tuple(float(v) for v in direction.ravel()),
    )


_SAME: tuple[tuple[str, Callable[[SliceHeader], tuple[float, ...]]], ...] = (
    ("Rows x Columns", lambda header: header.size),
    ("ImageOrientationPatient", lambda header: (*(header.row_direction or ()), *(header.column_direction or ()))),
    ("PixelSpacing", lambda header: header.spacing_mm or ()),
)


def _check_present(headers: Sequence[SliceHeader], source: str) -> None:
    fields: tuple[tuple[str, Callable[[SliceHeader], Any]], ...] = (
        ("ImagePositionPatient", lambda header: header.position_mm),
        ("ImageOrientationPatient", lambda header: header.row_direction),
        ("PixelSpacing", lambda header: header.spacing_mm),
    )
    for field, pick in fields:
        without = [header for header in headers if pick(header) is None]
        if without:
            raise ScanError(
                f"{source}: {without[0].path.name} and {len(without) - 1} more of {len(headers)} files have no "
                f"{field}, without which a slice cannot be placed; export the series again"
            )


def _check_same(
    headers: Sequence[SliceHeader], source: str, field: str, pick: Callable[[SliceHeader], tuple[float, ...]]
) -> None:
    usual = pick(headers[0])
    for header in headers:
        if not np.allclose(pick(header), usual, rtol=0, atol=DIRECTION_TOLERANCE):
            raise ScanError(
                f"{source}: {field} is ({_text(usual)}) in {headers[0].path.name} but ({_text(pick(header))}) in "
                f"{header.path.name}; allowed is one for the whole series; take the other images out of the folder"
            )


def _axes(header: SliceHeader, source: str) -> tuple[Any, Any, Any]:
    """Unit vectors of the row, the column and the slice normal."""
    given = np.array([header.row_direction, header.column_direction], dtype=np.float64)
    error = float(np.abs(given @ given.T - np.eye(2)).max())
    if not error <= 2 * DIRECTION_TOLERANCE:
        raise ScanError(
            f"{source}: ImageOrientationPatient is ({_text(tuple(given.ravel()))}) in {header.path.name}; "
            f"allowed are two directions of length 1 at right angles"
        )
    row = given[0] / np.linalg.norm(given[0])
    column = given[1] - row * (row @ given[1])
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _check_same_place(slices: Sequence[SliceHeader], along: Any, source: str) -> None:
    doubled = np.flatnonzero(np.diff(along) < SAME_PLACE_MM)
    if not doubled.size:
        return
    first, second = slices[doubled[0]], slices[doubled[0] + 1]
    several = f" (and {doubled.size - 1} more such pairs: several phases or copies?)" if doubled.size > 1 else ""
    raise ScanError(
        f"{source}: duplicate slice: {first.path.name} and {second.path.name} lie at the same place, "
        f"{along[doubled[0]]:.2f} mm{several}; leave one slice for each place in the folder"
    )


def _check_steps(slices: Sequence[SliceHeader], along: Any, source: str) -> float:
    """The distance of neighbouring slices in mm."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    wide = np.flatnonzero(steps > MISSING_STEPS * usual)
    if wide.size:
        gap = int(wide[0])
        missing = sum(max(round(float(steps[i]) / usual) - 1, 1) for i in wide)
        raise ScanError(
            f"{source}: missing slice{'s'[: missing > 1]}: {missing} of {len(slices) + missing}; the first gap is "
            f"{steps[gap]:.2f} mm between {slices[gap].path.name} and {slices[gap + 1].path.name} where {usual:.2f} mm "
            f"is usual; copy the whole series again"
        )
    step = float(along[-1] - along[0]) / (len(slices) - 1)
    off = np.abs(along - (along[0] + step * np.arange(len(slices))))
    worst = int(np.argmax(off))
    if off[worst] > max(UNEVEN * step, UNEVEN):
        raise ScanError(
            f"{source}: uneven slice distances: {steps.min():.2f} to {steps.max():.2f} mm; {slices[worst].path.name} "
            f"is {off[worst]:.2f} mm off its place; allowed is one distance; resample the scan or export it again"
        )
    return step


def _check_drift(slices: Sequence[SliceHeader], places: Any, normal: Any, source: str) -> None:
    offset = places - places[0]
    along = offset @ normal
    sideways = np.linalg.norm(offset - np.outer(along, normal), axis=1)
    worst = int(np.argmax(sideways))
    allowed = DRIFT_PIXELS * max(slices[0].spacing_mm or (1.0,))
    if sideways[worst] <= allowed:
        return
    angle = np.degrees(np.arctan2(sideways[-1], along[-1]))
    if np.abs(sideways - sideways[-1] * along / along[-1]).max() <= allowed:
        raise ScanError(
            f"{source}: gantry tilt of {angle:.1f} degrees: each slice is shifted sideways against the one before, "
            f"{sideways[-1]:.1f} mm in all; allowed is a stack at right angles; resample the scan to remove the tilt"
        )
    raise ScanError(
        f"{source}: {slices[worst].path.name} is shifted sideways by {sideways[worst]:.1f} mm against the first slice; "
        f"allowed are slices right above one another; export the series again"
    )


def _check_tilt(slices: Sequence[SliceHeader], normal: Any, source: str) -> None:
    """A tilt that the header states must be seen in the slices' orientation, else one of the two is wrong."""
    tilted = max(slices, key=lambda header: abs(header.tilt_degrees))
    inclined = np.degrees(np.arccos(min(1.0, float(np.abs(normal).max()))))
    if abs(tilted.tilt_degrees) > TILT_DEGREES and inclined < TILT_DEGREES:
        raise ScanError(
            f"{source}: gantry tilt: {tilted.path.name} states GantryDetectorTilt {tilted.tilt_degrees:g} degrees, but "
            f"its slices are placed as if there were none; allowed is 0; resample the scan to remove the tilt"
        )


def common_values(values: Sequence[str]) -> str:
    """Distinct values, most frequent first, as "5 x CT, 2 x MR"."""
    return ", ".join(f"{count} x {value or 'nothing'}" for value, count in Counter(values).most_common())


def _text(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{n:.6g}" for n in numbers)
