"""The volume the network sees: the lungs' box at 1 mm, as bytes, with everything but the lungs made plain.

Hounsfield units from -1200 to 600 become 0 to 255; what lies outside the dilated lungs becomes 170 (the value of
water), and so does bone in the rim by which the lungs were dilated (Tianchi 2017's second-placed team, after the
DSB2017 winner).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.lung_mask import LungMask
from runtime.morphology import Bools
from runtime.resample import linear_taps, slices
from runtime.threads import chunks, in_threads

if TYPE_CHECKING:
    from runtime.volume import Volume

VOXEL_MM = 1.0
WINDOW_HU = (-1200.0, 600.0)
OUTSIDE = 170  # 0 HU
BONE = 210  # 282 HU; brighter than this in the rim is rib


@dataclass(frozen=True)
class WorkingVolume:
    """What is searched for nodules.

    Attributes:
        voxels: uint8 (z, y, x), 1 mm isotropic, window [-1200, 600] HU as 0..255, 170 outside the dilated lungs.
        lung: bool (z, y, x), the dilated lungs; only there can a nodule be found.
        grid: where the voxels lie; its axes are those of the volume they come from.
    """

    voxels: NDArray[np.uint8]
    lung: Bools
    grid: Grid


def window(hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    """HU as bytes: [-1200, 600] to 0..255, rounded to nearest, clipped; changes its argument in place."""
    low, high = WINDOW_HU
    scale = 255.0 / (high - low)
    hu *= np.float32(scale)
    hu += np.float32(0.5 - low * scale)
    np.clip(hu, 0.0, 255.5, out=hu)
    return hu.astype(np.uint8)


def blank(voxels: NDArray[np.uint8], lung: Bools, dilated: Bools) -> None:
    """In place: 170 outside the dilated lungs and where the rim (dilated and not lung) is brighter than 210."""
    rim_bone = voxels > BONE
    rim_bone &= ~lung
    np.copyto(voxels, np.uint8(OUTSIDE), where=rim_bone | ~dilated)


def working_grid(
    grid: Grid, box: tuple[int, int, int, int, int, int], margin_mm: float
) -> tuple[Grid, tuple[int, ...]]:
    """The 1 mm grid over a box of a volume, and the volume's voxel (z, y, x) at which it starts.

    It starts exactly on a voxel of the volume, so that a scan of 1 mm voxels is not interpolated at all, and ends
    within 1 mm of the box grown by the margin; it stays inside the volume but for less than half a millimetre.
    """
    start, shape = [], []
    for axis in range(3):
        spacing = grid.spacing_mm[2 - axis]
        more = int(np.ceil(margin_mm / spacing))
        first = max(0, box[axis] - more)
        last = min(grid.shape[axis], box[axis + 3] + more) - 1
        start.append(first)
        shape.append(max(1, round((last - first) * spacing / VOXEL_MM) + 1))
    x, y, z = (float(v) for v in grid.to_world(start))
    work = replace(
        grid,
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=(VOXEL_MM, VOXEL_MM, VOXEL_MM),
        origin_mm=(x, y, z),
    )
    return work, tuple(start)


def make_working_volume(volume: "Volume", lungs: LungMask, margin_mm: float = 2.0, threads: int = 2) -> WorkingVolume:
    """Resample the box of the dilated lungs to 1 mm, window it and blank what is not lung.

    Interpolation is linear; where the scan's voxels are smaller than 0.75 mm the triangle is widened so that thin
    noisy voxels are averaged instead of picked (see `resample`).

    Args:
        volume: the scan, on the grid the lungs were found on.
        lungs: from `find_lungs`.
        margin_mm: added around the box of the dilated lungs.
        threads: slices resampled at the same time.

    Raises:
        ScanError: the lungs belong to another scan's grid.
    """
    if lungs.grid.shape != volume.grid.shape or lungs.grid.spacing_mm != volume.grid.spacing_mm:
        raise ScanError(
            f"{volume.source}: the lung mask is on a grid of {lungs.grid.shape} voxels, the scan on "
            f"{volume.grid.shape}: find the lungs of this very scan first"
        )
    work, start = working_grid(volume.grid, lungs.box_voxel(), margin_mm)
    step = [VOXEL_MM / s for s in reversed(volume.grid.spacing_mm)]
    taps = [linear_taps(n, a, s, m) for n, a, s, m in zip(volume.grid.shape, start, step, work.shape, strict=True)]
    scan = (taps[0], taps[1], taps[2])
    coarse = lungs.taps((float(start[0]), float(start[1]), float(start[2])), (step[0], step[1], step[2]), work.shape)
    voxels, dilated = np.empty(work.shape, np.uint8), np.empty(work.shape, np.bool_)

    def some(part: range) -> None:
        makers = (slices(volume.hu, scan, part), slices(lungs.surface_mm, coarse, part))
        reach = slices(lungs.reach_mm, coarse, part)
        for k, flat, surface, far in zip(part, *makers, reach, strict=True):
            voxels[k] = window(flat)
            np.greater(far, 0, out=dilated[k])
            blank(voxels[k], surface > 0, dilated[k])

    # each slice is finished while it is in the cache
    in_threads(some, chunks(work.shape[0], threads), threads)
    return WorkingVolume(voxels, dilated, work)
