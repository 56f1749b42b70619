"""Crops of a scan's lungs, as the network would be fed them: what engines are compared and quantised on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.cover import Window
from runtime.tiling import crop
from runtime.working_volume import WorkingVolume

LEAST_LUNG = 0.3
"""Part of a crop that lies in the dilated lungs, where the scan has such a place."""
_TRIES = 50


@dataclass(frozen=True)
class LungCrop:
    """One crop.

    Attributes:
        voxels: uint8 (z, y, x), a cube; 170 beyond the working volume.
        start_zyx: its first voxel in the working volume.
        extent_zyx: shape of the working volume.
    """

    voxels: NDArray[np.uint8]
    start_zyx: tuple[int, int, int]
    extent_zyx: tuple[int, int, int]


def lung_crops(working: WorkingVolume, edge: int, count: int, seed: int = 0) -> list[LungCrop]:
    """`count` cubes of `edge` voxels at random places of a working volume, each with enough lung in it.

    Starts are multiples of 4, as those of windows are: output cells then lie where they would in the whole volume.
    """
    draw = np.random.default_rng(seed)
    shape = working.voxels.shape
    extent = (shape[0], shape[1], shape[2])
    found = []
    for _ in range(count):
        best: tuple[float, tuple[int, int, int]] | None = None
        for _ in range(_TRIES):
            z, y, x = (4 * int(draw.integers(0, max(0, n - edge) // 4 + 1)) for n in extent)
            share = float(working.lung[z : z + edge, y : y + edge, x : x + edge].sum()) / edge**3
            if best is None or share > best[0]:
                best = share, (z, y, x)
            if share >= LEAST_LUNG:
                break
        assert best is not None  # _TRIES is positive
        window = Window(best[1], (edge, edge, edge), (0, 0, 0), (edge, edge, edge))
        found.append(LungCrop(crop(working.voxels, window), best[1], extent))
    return found
