"""Writes scans with two lungs that are found in a moment; used by the tests of preparing."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scan_files import write_scan

from runtime.grid import Grid

SPACING_MM = 4.0
SHAPE = (50, 50, 70)
ORIGIN_MM = (-140.0, -100.0, -300.0)
LUNGS_MM = ((-58.0, 0.0, -202.0), (58.0, 0.0, -202.0))
"""World (x, y, z) of the middle of either lung; semi-axes are 42, 50 and 75 mm."""
GRID = Grid(SHAPE, (SPACING_MM,) * 3, ORIGIN_MM)


def chest(seed: int = 0) -> NDArray[np.int16]:
    """HU (z, y, x) on GRID: a body in air, two ellipsoids of lung with noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE) * SPACING_MM + np.array(ORIGIN_MM[::-1])[:, None, None, None]
    hu = np.where((x / 130) ** 2 + (y / 90) ** 2 < 1, 40.0, -1000.0)
    for middle in LUNGS_MM:
        inside = ((x - middle[0]) / 42) ** 2 + ((y - middle[1]) / 50) ** 2 + ((z - middle[2]) / 75) ** 2 < 1
        hu[inside] = -850
    return np.asarray(hu + rng.normal(0, 15, SHAPE), dtype=np.int16)


def write_chest(path: Path, seed: int = 0) -> Path:
    """Write it as `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_scan(path, chest(seed), GRID)
