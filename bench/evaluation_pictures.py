"""Pictures of places in scans, three planes each; every scan is read once, and only if a place lies in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.evaluation_places import Place
from runtime.dicom_mark import looks_like_dicom
from runtime.drawing import LINE_PX, PLANES, Colour, Pixels, Sheet, View, draw_circle
from runtime.errors import ScanError
from runtime.find_scans import ScanSource
from runtime.froc import FrocResult
from runtime.volume import Volume, read_volume

SIDE_MM = 50.0
PANEL_PX = 220
GAP_PX = 4
PLACE_COLOUR: Colour = (255, 214, 0)
NODULE_COLOUR: Colour = (60, 230, 110)


@dataclass(frozen=True)
class Ball:
    """A nodule to be drawn where a plane cuts it; world mm."""

    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float


def draw_places(
    places: Sequence[Place],
    sources: Iterable[ScanSource],
    result: FrocResult,
    say: Callable[[str], None] | None = None,
) -> tuple[dict[Place, bytes], tuple[str, ...]]:
    """A PNG of each place whose scan is among `sources`.

    Args:
        places: to be drawn.
        sources: of the scans, as `find_scans` gives them.
        result: its nodules are drawn wherever a plane cuts them.
        say: called with a line before each scan is read.

    Returns:
        The pictures, and a note on each scan that was not found or cannot be read.
    """
    wanted: dict[str, list[Place]] = {}
    for place in places:
        wanted.setdefault(place.seriesuid, []).append(place)
    found = _sources_of(set(wanted), sources)
    pictures: dict[Place, bytes] = {}
    notes = []
    number = 0
    for uid, own in wanted.items():
        if uid not in found:
            notes.append(f"{uid}: not among the scans given, so {_count(own)} without a picture")
            continue
        number += 1
        if say is not None:
            say(f"{number}/{len(found)} reading {uid}")
        try:
            volume = read_volume(found[uid])
        except ScanError as error:
            notes.append(f"{uid}: {error}; {_count(own)} without a picture")
            continue
        nodules = [Ball(n.x_mm, n.y_mm, n.z_mm, n.diameter_mm) for n in result.nodules if n.seriesuid == uid]
        pictures |= {place: draw_place(volume, place, nodules) for place in own}
    return pictures, tuple(notes)


def draw_place(volume: Volume, place: Place, nodules: Sequence[Ball] = ()) -> bytes:
    """A place in three planes as PNG: at least 50 mm wide, the place circled in yellow, nodules in green.

    A circle is as wide as the place's diameter, or as the plane's cut through the nodule; a mark whose diameter is
    not known gets ticks alone.
    """
    centre_mm = (place.x_mm, place.y_mm, place.z_mm)
    z, y, x = volume.grid.to_voxel(centre_mm).tolist()
    scale = max(SIDE_MM, 2.5 * (place.diameter_mm or 0.0)) / PANEL_PX
    sheet = Sheet(LINE_PX + PANEL_PX + 2 * GAP_PX, GAP_PX + len(PLANES) * (PANEL_PX + GAP_PX))
    for column, plane in enumerate(PLANES):
        view = View(volume.grid, plane, (z, y, x), (PANEL_PX, PANEL_PX), scale)
        picture = view.grey(volume.hu)
        axis, index = view.place
        through_mm = volume.grid.spacing_mm[2 - axis]
        for ball in nodules:
            at = volume.grid.to_voxel((ball.x_mm, ball.y_mm, ball.z_mm)).tolist()
            itself = (ball.x_mm, ball.y_mm, ball.z_mm) == centre_mm
            squared = (ball.diameter_mm / 2) ** 2 - ((at[axis] - index) * through_mm) ** 2
            if squared > 0 and not itself:
                draw_circle(picture, view.pixel_of(at), 2 * squared**0.5 / scale, NODULE_COLOUR)
        middle = view.pixel_of((z, y, x))
        if place.diameter_mm is not None and place.diameter_mm > 0:
            draw_circle(picture, middle, place.diameter_mm / scale, PLACE_COLOUR)
        else:
            draw_ticks(picture, middle)
        draw_bar(picture, round(10 / scale))
        left = GAP_PX + column * (PANEL_PX + GAP_PX)
        sheet.put(picture, GAP_PX + LINE_PX, left)
        sheet.text(GAP_PX, left + 2, f"{plane}, bar 10 mm")
    return sheet.png()


def draw_bar(picture: Pixels, length: int) -> None:
    """A white bar with a dark rim at the lower left, in place."""
    picture[-9:-5, 7 : 9 + length] = 0
    picture[-8:-6, 8 : 8 + length] = 255


def draw_ticks(picture: Pixels, centre: tuple[float, float]) -> None:
    """Four lines that point at (row, column) and leave the middle free, in place."""
    row, column = (round(v) for v in centre)
    for near, far in ((-34, -16), (17, 35)):
        picture[row + near : row + far, column] = PLACE_COLOUR
        picture[row, column + near : column + far] = PLACE_COLOUR


def _sources_of(wanted: set[str], sources: Iterable[ScanSource]) -> dict[str, ScanSource]:
    """Where each wanted scan lies; a folder of DICOM files is asked for its series only if one is still missing."""
    found: dict[str, ScanSource] = {}
    unnamed = []
    for source in sources:
        if source.seriesuid is None:
            unnamed.append(source)
        elif source.seriesuid in wanted:
            found.setdefault(source.seriesuid, source)
    for source in unnamed:
        if len(found) == len(wanted):
            break
        uid = _series_of(source.path)
        if uid in wanted:
            found.setdefault(uid, source)
    return found


def _series_of(folder: Path) -> str | None:
    """SeriesInstanceUID of the first CT slice in a folder; None if there is none or it cannot be read."""
    from runtime.dicom_slice import read_slice_header  # pydicom takes half a second to import

    try:
        for path in sorted(folder.iterdir()):
            header = read_slice_header(path, folder.name) if looks_like_dicom(path) else None
            if header is not None and header.modality in ("CT", "") and not header.is_localizer:
                return header.series_uid
    except (OSError, ScanError):
        pass  # its scan is then named among those that were not found
    return None


def _count(places: Sequence[Place]) -> str:
    return "one place stays" if len(places) == 1 else f"{len(places)} places stay"
