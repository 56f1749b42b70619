"""Whether a grid can be that of a chest CT."""

import numpy as np

from runtime.errors import ScanError
from runtime.grid import Grid

SPACING_MM = (0.1, 20.0)
"""Allowed distance of neighbouring voxels: below, the unit was not the millimetre; above, it is no volume."""

ORTHONORMAL_TOLERANCE = 1e-3
"""Allowed difference of DᵀD from the identity: headers round to three digits or more."""

FARTHEST_MM = 1e5
"""Allowed distance of the first voxel from the world's origin along each axis."""

THICK_MM = 5.0
"""Slices farther apart are told to the user: small nodules fall between them."""


def check_grid(grid: Grid, source: str) -> tuple[str, ...]:
    """Refuse what cannot be the grid of a scan.

    Returns:
        Notes on what is allowed but should be known.

    Raises:
        ScanError: spacing not finite, not positive or absurd; direction not orthonormal; origin not finite.
    """
    spacing, origin = _text(grid.spacing_mm), _text(grid.origin_mm)
    low, high = SPACING_MM
    if not all(low <= s <= high for s in grid.spacing_mm):
        raise ScanError(
            f"{source}: spacing is ({spacing}) mm (x, y, z); allowed is {low:g} to {high:g} mm; correct the header"
        )
    if not all(abs(o) <= FARTHEST_MM for o in grid.origin_mm):
        raise ScanError(f"{source}: origin is ({origin}) mm; allowed are finite numbers up to {FARTHEST_MM:g} mm")
    cosines = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)
    error = float(np.abs(cosines.T @ cosines - np.eye(3)).max()) if np.isfinite(cosines).all() else float("inf")
    if not error <= ORTHONORMAL_TOLERANCE:
        raise ScanError(
            f"{source}: direction is ({_text(grid.direction)}), whose axes are not of length 1 and at right angles; "
            f"allowed is an orthonormal matrix; resample the scan to such axes or correct the header"
        )
    if max(grid.spacing_mm) > THICK_MM:
        return (f"slices {max(grid.spacing_mm):g} mm apart: nodules below that size may lie between them",)
    return ()


def _text(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{n:.6g}" for n in numbers)
