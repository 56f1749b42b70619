"""What the pictures are made of: cuts through a scan at one scale, frames and contours in them, a sheet to put them on.

Cuts are seen as radiologists see them: the patient's right at the left, the back at the bottom, the head at the top.
Only the pixels that are shown are ever computed, so the cost does not grow with the scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from runtime.grid import Grid

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

LUNG_WINDOW_HU = (-1350.0, 150.0)
PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Array axes (through, down the picture, across it) of each plane."""

TEXT_COLOUR = "#e8e8e8"
DPI = 100
LINE_PX = 17
"""Height of a line of text."""


@dataclass(frozen=True)
class View:
    """A flat cut through a grid: `pixels` (height, width), each `mm_per_pixel` wide and high, around `centre`.

    Attributes:
        plane: a key of `PLANES`.
        centre: voxel (z, y, x), with fractions; the middle of the picture.
    """

    grid: Grid
    plane: str
    centre: tuple[float, float, float]
    pixels: tuple[int, int]
    mm_per_pixel: float

    def _positions(self) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """The nearest slice, and the voxel positions of rows and columns."""
        through, down, across = PLANES[self.plane]
        index = int(np.clip(np.floor(self.centre[through] + 0.5), 0, self.grid.shape[through] - 1))
        along: list[NDArray[np.float64]] = []
        for axis, count in ((down, self.pixels[0]), (across, self.pixels[1])):
            offset_mm = (np.arange(count) - (count - 1) / 2) * self.mm_per_pixel
            if axis == 0:
                offset_mm = -offset_mm  # the head is up, z runs to the head
            along.append(np.asarray(self.centre[axis] + offset_mm / self.grid.spacing_mm[2 - axis], dtype=np.float64))
        return index, along[0], along[1]

    @property
    def place(self) -> tuple[int, int]:
        """Array axis that the view cuts across, and the index of the slice that it shows."""
        return PLANES[self.plane][0], self._positions()[0]

    def sample(self, array: NDArray[Any], *, linear: bool) -> NDArray[Any]:
        """`array` (z, y, x) on this view, (height, width); see `sample_slice`."""
        axis, index = self.place
        return self.sample_slice(np.take(array, index, axis=axis), linear=linear)

    def sample_slice(self, flat: NDArray[Any], *, linear: bool) -> NDArray[Any]:
        """The slice that is shown, on this view, (height, width); its lowest sensible value (air, False) outside it.

        Linear gives float32 of an int16 array; otherwise values of the nearest voxels, type kept.
        """
        _, rows, columns = self._positions()
        height, width = flat.shape
        inside = np.outer((rows > -0.5) & (rows < height - 0.5), (columns > -0.5) & (columns < width - 0.5))
        if not linear:
            r = np.clip(np.floor(rows + 0.5), 0, height - 1).astype(int)
            c = np.clip(np.floor(columns + 0.5), 0, width - 1).astype(int)
            return np.asarray(np.where(inside, flat[np.ix_(r, c)], flat.dtype.type(0)))
        r0, r1, rf = _taps(rows, height)
        c0, c1, cf = _taps(columns, width)
        lines = flat[r0] * (1 - rf)[:, None] + flat[r1] * rf[:, None]
        values = lines[:, c0] * (1 - cf) + lines[:, c1] * cf
        return np.asarray(np.where(inside, values, np.float32(LUNG_WINDOW_HU[0])), dtype=np.float32)

    def grey(self, hu: NDArray[np.int16]) -> Pixels:
        """The scan through the lung window, (height, width, 3)."""
        low, high = LUNG_WINDOW_HU
        values = np.clip((self.sample(hu, linear=True) - low) * (255.0 / (high - low)), 0, 255)
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)

    def pixel_of(self, voxel: Sequence[float]) -> tuple[float, float]:
        """(row, column) in the picture of a voxel position (z, y, x)."""
        found = []
        for axis, count in zip(PLANES[self.plane][1:], self.pixels, strict=True):
            offset_mm = (voxel[axis] - self.centre[axis]) * self.grid.spacing_mm[2 - axis]
            found.append((count - 1) / 2 + (-offset_mm if axis == 0 else offset_mm) / self.mm_per_pixel)
        return found[0], found[1]


def _taps(position: NDArray[np.float64], count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Lower and upper neighbour, clamped to the array, and the weight of the upper one."""
    clipped = np.clip(position, 0, count - 1)
    lower = np.minimum(clipped.astype(int), max(count - 2, 0))
    return lower, np.minimum(lower + 1, count - 1), (clipped - lower).astype(np.float32)


def draw_box(picture: Pixels, centre: tuple[float, float], side: float, colour: Colour) -> None:
    """A square frame of `side` pixels around (row, column), and ticks from it towards the four edges, in place."""
    height, width = picture.shape[:2]
    row, column = (round(v) for v in centre)
    half = max(round(side / 2), 2)

    def span(start: int, stop: int, limit: int) -> slice:
        return slice(min(max(start, 0), limit), min(max(stop, 0), limit))

    rows, columns = span(row - half, row + half + 1, height), span(column - half, column + half + 1, width)
    for r in (row - half, row + half):
        if 0 <= r < height:
            picture[r, columns] = colour
    for c in (column - half, column + half):
        if 0 <= c < width:
            picture[rows, c] = colour
    tick = max(half // 2, 6)
    if 0 <= column < width:
        for start in (row - half - tick, row + half + 1):
            picture[span(start, start + tick, height), column] = colour
    if 0 <= row < height:
        for start in (column - half - tick, column + half + 1):
            picture[row, span(start, start + tick, width)] = colour


def draw_circle(picture: Pixels, centre: tuple[float, float], diameter: float, colour: Colour) -> None:
    """A circle of `diameter` pixels around (row, column), one pixel wide, in place; at least 6 pixels wide."""
    radius = max(diameter / 2, 3.0)
    low = [max(int(c - radius) - 1, 0) for c in centre]
    high = [max(int(c + radius) + 3, 0) for c in centre]
    part = picture[low[0] : high[0], low[1] : high[1]]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    apart = np.hypot(rows + low[0] - centre[0], columns + low[1] - centre[1])
    part[np.abs(apart - radius) < 0.6] = colour


def draw_contour(picture: Pixels, mask: NDArray[np.bool_], colour: Colour) -> None:
    """The mask's inner border, one pixel wide, in place; the picture's own edge is no border."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask & ~inner] = colour


@dataclass
class Sheet:
    """A dark page that panels and text are put on, then written as PNG."""

    height: int
    width: int
    texts: list[tuple[int, int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.canvas: Pixels = np.full((self.height, self.width, 3), 24, dtype=np.uint8)

    def put(self, picture: Pixels, top: int, left: int) -> None:
        """Place a panel; it must fit."""
        self.canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture

    def label(self, top: int, left: int, width: int, line: str) -> None:
        """A caption over the upper edge of a panel, on a darkened strip so that it can be read on any picture."""
        strip = self.canvas[top : top + LINE_PX, left : left + width]
        strip[:] = strip // 3
        self.text(top + 2, left + 4, line)

    def text(self, top: int, left: int, line: str, colour: str = TEXT_COLOUR) -> None:
        """A line of text whose upper left corner is there."""
        self.texts.append((top, left, line, colour))

    def save(self, path: Path) -> None:
        """Write the PNG, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_bytes(self.png())

    def png(self) -> bytes:
        """The sheet as PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)  # no pyplot: nothing global, usable from threads
        figure.figimage(self.canvas, 0, 0, origin="upper")
        for top, left, line, colour in self.texts:
            # a seriesuid may hold "$": never read text as mathematics
            figure.text(
                left / self.width, 1 - top / self.height, line, color=colour, fontsize=9, va="top", parse_math=False
            )
        target = BytesIO()
        figure.savefig(target, dpi=DPI, format="png")
        return target.getvalue()


def whole_slice(grid: Grid, plane: str, centre: Sequence[float], pixels: tuple[int, int]) -> View:
    """A view that takes in the whole scan, its middle in the middle; `centre` (z, y, x) only chooses the slice."""
    middle = [(n - 1) / 2 for n in grid.shape]
    middle[PLANES[plane][0]] = centre[PLANES[plane][0]]
    _, down, across = PLANES[plane]
    scale = max(grid.extent_mm[down] / pixels[0], grid.extent_mm[across] / pixels[1])
    return View(grid, plane, (middle[0], middle[1], middle[2]), pixels, scale)
