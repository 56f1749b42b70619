"""Pictures to judge a result by: the findings in three planes each, and the lung mask over the whole scan."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.drawing import LINE_PX, PLANES, TEXT_COLOUR, Colour, Sheet, View, draw_box, draw_contour, whole_slice
from runtime.findings import Finding
from runtime.report_table import cells

if TYPE_CHECKING:
    from runtime.lung_mask import LungMask
    from runtime.volume import Volume

YELLOW: Colour = (255, 214, 0)
GREEN: Colour = (60, 230, 110)
ORANGE: Colour = (255, 140, 40)


def draw_findings(path: str | Path, volume: "Volume", findings: Sequence[Finding], *, count: int = 5) -> Path:
    """The first `count` findings, a row each: the whole axial slice, then a close-up in three planes.

    The frame is as wide as the finding's diameter; close-ups show at least 50 mm, with a bar of 10 mm.

    Args:
        path: the PNG to write.
        volume: the scan in canonical orientation, `hu` (z, y, x) on `grid`.
        findings: ranked; positions are taken from their millimetres.

    Returns:
        `path`. Without findings the sheet says so and shows the middle of the scan.

    Raises:
        OSError: it cannot be written.
    """
    size, gap, head = 280, 6, 2 * LINE_PX + 6
    row_height = LINE_PX + 5 + size + gap
    shown = list(findings[:count])
    sheet = Sheet(head + row_height * max(len(shown), 1), gap + 4 * (size + gap))
    sheet.text(5, gap, volume.seriesuid)
    rest = len(findings) - len(shown)
    line = f"{len(findings)} findings" + (f", the first {len(shown)} shown" if rest else "")
    sheet.text(5 + LINE_PX, gap, line if findings else "no findings above the threshold; the middle of the scan:")

    z, y, x = ((n - 1) / 2 for n in volume.grid.shape)
    for column, plane in enumerate(() if shown else PLANES):
        picture = whole_slice(volume.grid, plane, (z, y, x), (size, size)).grey(volume.hu)
        sheet.put(picture, head + LINE_PX + 5, gap + column * (size + gap))

    for row, finding in enumerate(shown):
        top = head + row * row_height
        rank, index, probability, pixel, *place, diameter = cells(finding)
        where = "  ".join(f"{name} {value}" for name, value in zip("xyz", place, strict=True))
        label = (
            f"{rank}   probability {probability}   slice {index}, pixel {pixel}   {where} mm   diameter {diameter} mm"
        )
        sheet.text(top, gap, label, _hex(YELLOW))
        z, y, x = volume.grid.to_voxel((finding.x_mm, finding.y_mm, finding.z_mm)).tolist()
        scale = max(50.0, 2.5 * finding.diameter_mm) / size
        views = [whole_slice(volume.grid, "axial", (z, y, x), (size, size))]
        views += [View(volume.grid, plane, (z, y, x), (size, size), scale) for plane in PLANES]
        for column, view in enumerate(views):
            picture = view.grey(volume.hu)
            draw_box(picture, view.pixel_of((z, y, x)), finding.diameter_mm / view.mm_per_pixel, YELLOW)
            left = gap + column * (size + gap)
            if column:
                picture[size - 8 : size - 6, 8 : 8 + round(10 / view.mm_per_pixel)] = 255
            sheet.put(picture, top + LINE_PX + 5, left)
            name = "whole slice" if column == 0 else f"{view.plane}, bar 10 mm"
            sheet.label(top + LINE_PX + 5, left, size, name)
    sheet.save(Path(path))
    return Path(path)


def draw_mask(path: str | Path, volume: "Volume", lungs: "LungMask", *, slices: int = 20) -> Path:
    """Contact sheet of the lung mask: axial slices over the whole scan, then coronal and sagittal cuts.

    Green is the mask as found, orange the dilated one that the network sees. The header names volume and fallbacks.

    Args:
        path: the PNG to write.
        volume: the scan in canonical orientation.
        lungs: of this volume; only the slices that are shown are made of it.
        slices: axial slices, from the lowest to the highest.

    Returns:
        `path`.

    Raises:
        OSError: it cannot be written.
    """
    size, gap, columns = 220, 4, 5
    width = gap + columns * (size + gap)
    head = [volume.seriesuid, f"lungs {lungs.volume_ml:.0f} ml   green: mask   orange: dilated, what is searched"]
    wrapped = [piece for text in lungs.fallbacks for piece in textwrap.wrap(f"fallback: {text}", 150)]
    top = 6 + LINE_PX * (len(head) + len(wrapped)) + 4
    depth = volume.grid.shape[0]
    box = lungs.mask_extent()
    middle = [(first + last) / 2 for first, last in box]
    places = [("axial", z) for z in np.unique(np.round(np.linspace(0, depth - 1, min(slices, depth))))]
    for plane, shares in (("coronal", (0.25, 0.5, 0.75)), ("sagittal", (0.25, 0.75))):
        first, last = box[PLANES[plane][0]]
        places += [(plane, first + share * (last - first)) for share in shares]
    cuts: list[View] = []
    for plane, position in places:
        centre = [position if axis == PLANES[plane][0] else middle[axis] for axis in range(3)]
        cuts.append(whole_slice(volume.grid, plane, centre, (size, size)))
    rows = -(-len(cuts) // columns)
    sheet = Sheet(top + rows * (size + gap), width)
    for number, line in enumerate([*head, *wrapped]):
        sheet.text(5 + number * LINE_PX, gap, line, TEXT_COLOUR if number < len(head) else _hex(ORANGE))
    for number, view in enumerate(cuts):
        picture = view.grey(volume.hu)
        for which, colour in (("dilated", ORANGE), ("mask", GREEN)):
            draw_contour(picture, view.sample_slice(lungs.cut(which, *view.place), linear=False), colour)
        row, column = top + number // columns * (size + gap), gap + number % columns * (size + gap)
        sheet.put(picture, row, column)
        through = PLANES[view.plane][0]
        name = {"axial": "z", "coronal": "coronal y", "sagittal": "sagittal x"}[view.plane]
        sheet.label(row, column, size, f"{name} {view.centre[through]:.0f}")
    sheet.save(Path(path))
    return Path(path)


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
