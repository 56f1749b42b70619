"""Where the lungs are.

`find_lungs` follows the rules of the second-placed team of Tianchi 2017 in spirit (see `lung_rules`), at about 2 mm
and in millimetres throughout. Departures, each for accuracy or speed:

- One pass over the scan makes block means of about 2 mm; everything after works on those, and what is kept is not a
  bitmap but the signed distance to the lungs' surface there. Any finer grid gets its mask by linear interpolation of
  the distance, which puts the surface between voxels instead of on a staircase.
- The trachea and the main bronchi are followed and taken out (`airway`), so that lungs usually come apart at the
  carina without erosion; lungs that touch each other elsewhere are still split by erosion (`lung_sides`).
- The mask before dilation is closed with a ball per lung, which takes in nodules at the pleura and vessels at the hilum
  and suits the experts' contours; the team's convex hull per slice only widens the dilated mask, and no further than
  20 mm from the lungs, since a hull under the dome of the diaphragm is liver, stomach and bowel.
- Holes are filled in 3-D and, where small, per slice: a large hole of a slice is the dome of the diaphragm.
- Pieces of a lung cut off by consolidation are collected around the lungs found.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.coarse import Coarse, block_mean, coarse_blocks, coarsen
from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.lung_rules import UNEQUAL
from runtime.lung_search import DENSE_HU, THIN_HU, search_lungs
from runtime.lung_sides import Sides
from runtime.morphology import (
    Bools,
    Box,
    Floats,
    Spacing,
    box_of,
    close,
    depth,
    fill_holes,
    hull_slices,
    reach,
    signed_distance,
    touch,
)
from runtime.resample import Taps, linear_taps, resample
from runtime.threads import in_threads

if TYPE_CHECKING:
    from runtime.volume import Volume

DILATION_MM = 10.0
CLOSING_MM = 15.0
HOLE_MM2 = 700.0  # in a slice; a larger one may be the dome of the diaphragm
HULL_LIMIT = 2.0
HULL_REACH_MM = 20.0  # the hull may reach so far from the lung, over the liver and the stomach no further
SURFACE_HU = -350  # where the experts' contours run: a little outside the half-way value of lung and soft tissue


@dataclass(frozen=True)
class LungMask:
    """The lungs of one scan.

    The surface is held as signed distances on a coarse grid over the lungs' box; `mask` and `dilated` are made of
    them on the volume's grid when first asked for, `taps` leads to any finer grid with the same axes.

    Attributes:
        grid: the volume's grid.
        factors: voxels of `grid` in one coarse voxel along (z, y, x).
        corner: the coarse index (z, y, x) of the first voxel of the distance arrays.
        surface_mm: float32 coarse (z, y, x), signed distance to the surface of the lungs, positive inside.
        reach_mm: the same for the dilated lungs.
        fallbacks: one short sentence for each rule that had to be relaxed; empty for an ordinary scan.
        volume_ml: of both lungs before dilation, airways excluded.
        left_ml, right_ml: of each; 0 where only the other was found.
    """

    grid: Grid
    factors: tuple[int, int, int]
    corner: tuple[int, int, int]
    surface_mm: Floats = field(repr=False)
    reach_mm: Floats = field(repr=False)
    fallbacks: tuple[str, ...]
    volume_ml: float
    left_ml: float
    right_ml: float

    @cached_property
    def mask(self) -> Bools:
        """bool (z, y, x) on the volume's grid: the lungs before dilation."""
        return self._on_grid(self.surface_mm)

    @cached_property
    def dilated(self) -> Bools:
        """bool (z, y, x) on the volume's grid: the lungs' hulls dilated by 10 mm, where nodules are looked for."""
        return self._on_grid(self.reach_mm)

    def box_voxel(self) -> tuple[int, int, int, int, int, int]:
        """Half-open box (z1, y1, x1, z2, y2, x2) of the dilated lungs on the volume's grid, to a coarse voxel."""
        inner = box_of(self.reach_mm > 0, (1, 1, 1))
        low = [(s.start + c) * f for s, c, f in zip(inner, self.corner, self.factors, strict=True)]
        high = [
            min(n, (s.stop + c) * f)
            for s, c, f, n in zip(inner, self.corner, self.factors, self.grid.shape, strict=True)
        ]
        return low[0], low[1], low[2], high[0], high[1], high[2]

    def taps(
        self, start: tuple[float, float, float], step: tuple[float, float, float], shape: tuple[int, int, int]
    ) -> tuple[Taps, Taps, Taps]:
        """For `resample` of the distances: to the grid start + step * index of volume voxels (z, y, x)."""
        z, y, x = (
            linear_taps(n, (a - (f - 1) / 2) / f - c, s / f, m)
            for n, a, s, m, f, c in zip(
                self.surface_mm.shape, start, step, shape, self.factors, self.corner, strict=True
            )
        )
        return z, y, x

    def mask_extent(self) -> list[tuple[float, float]]:
        """First and last voxel of the mask along z, y, x of the volume's grid, to a coarse voxel."""
        inside = self.surface_mm > 0
        if not inside.any():
            return [(0.0, n - 1.0) for n in self.grid.shape]
        return [
            (float((part.start + c) * f), float(min(n, (part.stop + c) * f) - 1))
            for part, c, f, n in zip(box_of(inside), self.corner, self.factors, self.grid.shape, strict=True)
        ]

    def cut(self, which: str, axis: int, index: int) -> Bools:
        """One slice of "mask" or "dilated" across an array axis, without making the rest."""
        z, y, x = (slice(index, index + 1) if a == axis else slice(0, n) for a, n in enumerate(self.grid.shape))
        distance = {"mask": self.surface_mm, "dilated": self.reach_mm}[which]
        return np.asarray(np.take(self._part(distance, (z, y, x)), 0, axis), np.bool_)

    def _on_grid(self, distance: Floats) -> Bools:
        z, y, x = (slice(0, n) for n in self.grid.shape)
        return self._part(distance, (z, y, x))

    def _part(self, distance: Floats, part: Box) -> Bools:
        """Where `distance` is positive, in a part of the volume's grid."""
        whole = np.zeros([p.stop - p.start for p in part], np.bool_)
        box = self.box_voxel()
        start = [max(p.start, low) for p, low in zip(part, box[:3], strict=True)]
        stop = [min(p.stop, high) for p, high in zip(part, box[3:], strict=True)]
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        if min(shape) > 0:
            inner = whole[tuple(slice(a - p.start, b - p.start) for a, b, p in zip(start, stop, part, strict=True))]
            taps = self.taps((start[0], start[1], start[2]), (1, 1, 1), (shape[0], shape[1], shape[2]))
            resample(distance, taps, inner, lambda flat, _: flat > 0)
        return whole


def find_lungs(volume: "Volume", threads: int = 2) -> LungMask:
    """Find the lungs of a scan.

    Args:
        volume: a chest CT in canonical orientation; more of the body and a scan cropped to the lungs do as well.
        threads: to compute with.

    Raises:
        ScanError: no lungs were found; the message names what was tried.
    """
    coarse = coarsen(volume.hu, volume.grid, threads)
    found = search_lungs(coarse, threads)
    if found is None:
        raise ScanError(
            f"{volume.source}: no lungs found: no air of {UNEQUAL.min_ml / 1000:.2f} to {UNEQUAL.max_ml / 1000:.1f} "
            f"litres inside the body, also not with slices cut from the top, at {DENSE_HU} and {THIN_HU} HU, and at "
            f"the scan's edges; is it a chest CT in Hounsfield units?"
        )
    return _finish(volume.grid, coarse, found, threads)


def lungs_from_mask(mask: Bools, grid: Grid, threads: int = 2) -> LungMask:
    """The `LungMask` of lungs that are known, say from a phantom or an expert: dilated by 10 mm, nothing else.

    Args:
        mask: bool (z, y, x) on `grid`; right and left are told by its middle.
        grid: the volume's grid.
        threads: to compute with.
    """
    factors, spacing = coarse_blocks(grid)
    percent = block_mean(mask.astype(np.int16) * np.int16(100), factors, 0, 100)
    coarse = Coarse(percent, factors, spacing)
    lungs = percent >= 50
    if not lungs.any():
        raise ScanError("the lung mask is empty")
    middle = (lungs.shape[2] + 1) // 2
    box = box_of(lungs, reach(DILATION_MM + max(spacing), spacing))
    left = float(lungs[:, :, middle:].sum())
    return _mask(grid, coarse, box, lungs[box], lungs[box], (float(lungs.sum()) - left, left), (), threads)


def _finish(grid: Grid, coarse: Coarse, sides: Sides, threads: int) -> LungMask:
    """Closed, filled, dilated."""
    spacing = coarse.spacing
    box = box_of(sides.right | sides.left, reach(DILATION_MM + max(spacing), spacing))

    def one(lung: Bools) -> tuple[Bools, Bools]:
        whole = _whole(lung[box], coarse.hu[box], sides.airway[box], spacing)
        return whole, hull_slices(whole, HULL_LIMIT)

    (right, right_hull), (left, left_hull) = in_threads(one, sides.lungs, threads)
    hull = right_hull | left_hull
    amounts = (float(right.sum()), float((left & ~right).sum()))
    return _mask(grid, coarse, box, right | left, hull, amounts, sides.notes, threads)


def _mask(
    grid: Grid,
    coarse: Coarse,
    box: Box,
    mask: Bools,
    hull: Bools,
    amounts: tuple[float, float],
    fallbacks: tuple[str, ...],
    threads: int,
) -> LungMask:
    surface = signed_distance(mask, coarse.spacing, threads)
    near_hull = hull & (surface > -HULL_REACH_MM)
    ml = float(np.prod(coarse.spacing)) / 1000
    return LungMask(
        grid=grid,
        factors=coarse.factors,
        corner=(box[0].start, box[1].start, box[2].start),
        surface_mm=surface,
        reach_mm=DILATION_MM + 0.5 * min(coarse.spacing) - depth(~near_hull, coarse.spacing, threads),
        fallbacks=fallbacks,
        volume_ml=sum(amounts) * ml,
        left_ml=amounts[1] * ml,
        right_ml=amounts[0] * ml,
    )


def _whole(air: Bools, hu: NDArray[np.int16], airway: Bools, spacing: Spacing) -> Bools:
    """One lung without gaps: its surface brought to the pleura, closed, filled, airways out."""
    out = np.zeros(air.shape, np.bool_)
    if not air.any():
        return out
    box = box_of(air, (2, 2, 2))  # room for touch, so that only the scan's own faces are faces to close
    grown = air[box] | (touch(air[box]) & (hu[box] < SURFACE_HU) & ~airway[box])
    closed = close(grown, CLOSING_MM, spacing)
    out[box] = fill_holes(closed, HOLE_MM2 / (spacing[1] * spacing[2])) & ~airway[box]
    return out
