"""Phantoms as files: `<seriesuid>.mhd` and `.zraw` as LUNA16 has them, and `annotations.csv`.

A scan's header is written last and whole, and so are its annotations, so that what an interrupted run leaves behind
is never half a scan: `write_phantoms` goes on where it stopped.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from train.phantom_make import Phantom, make_phantom, seriesuid

HEADER = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "type")
"""LUNA16's columns, then what the nodule is: texture and place, as "solid;juxtapleural"."""

Row = tuple[str, float, float, float, float]


class PhantomError(Rpn3dError):
    """Phantoms that cannot be written where they are wanted."""


def annotation_rows(phantom: Phantom) -> list[Row]:
    """Rows of LUNA16's annotations.csv: seriesuid, x, y, z, diameter in mm."""
    uid = phantom.volume.seriesuid
    return [(uid, n.x_mm, n.y_mm, n.z_mm, n.diameter_mm) for n in phantom.nodules]


def as_stored(phantom: Phantom) -> NDArray[np.int16]:
    """The voxels in the order of `volume.file_grid`."""
    permutation, flips = phantom.volume.file_grid.to_canonical()
    turned = np.flip(phantom.volume.hu, tuple(axis for axis, flipped in enumerate(flips) if flipped))
    stored = np.ascontiguousarray(np.transpose(turned, np.argsort(permutation)))
    if phantom.padding_hu < -1024:
        stored = np.where(stored == -1024, np.int16(phantom.padding_hu), stored)
    return stored


def write_phantom(phantom: Phantom, folder: str | Path) -> Path:
    """Write `<seriesuid>.mhd` with its `.zraw` (compressed) and `<seriesuid>.nodules.json`; returns the header's path.

    The three files appear whole, the header last: a header that is there belongs to a complete scan.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    uid = phantom.volume.seriesuid
    grid = phantom.volume.file_grid
    image = SimpleITK.GetImageFromArray(as_stored(phantom))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    truth = {
        "seed": phantom.seed,
        "nodules": [
            {"x_mm": n.x_mm, "y_mm": n.y_mm, "z_mm": n.z_mm, "diameter_mm": n.diameter_mm, "kind": n.kind}
            for n in phantom.nodules
        ],
    }
    header = target / f"{uid}.mhd"
    with replacing(header) as temporary:
        written = temporary.with_suffix(".zraw")
        try:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True)
            with replacing(target / f"{uid}.zraw") as data:
                written.replace(data)
        finally:
            written.unlink(missing_ok=True)
        with replacing(target / f"{uid}.nodules.json") as notes:
            notes.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
        text = temporary.read_text(encoding="ascii").replace(written.name, f"{uid}.zraw")
        temporary.write_text(text, encoding="ascii")
    return header


def write_phantoms(
    folder: str | Path,
    count: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **options: object,
) -> Path:
    """Write the phantoms of seeds `seed` to `seed + count - 1` and `annotations.csv` of all that are in the folder.

    Scans that are there already are kept as they are. The table is written anew after every scan, so that it always
    fits the scans of the folder.

    Args:
        progress: called with one line after each scan.
        options: for `make_phantom`.

    Returns:
        The path of annotations.csv.

    Raises:
        PhantomError: count below 1, a negative seed, or a file of truth in the folder that cannot be read.
        OSError: the folder cannot be written, or the disk is full.
    """
    if count < 1:
        raise PhantomError(f"count is {count}; ask for 1 phantom or more")
    if seed < 0:
        raise PhantomError(f"seed is {seed}; give 0 or more")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    table = write_annotations(target)
    for k in range(count):
        uid = seriesuid(seed + k)
        if (target / f"{uid}.mhd").exists():
            message = f"{uid} is there already"
        else:
            phantom = make_phantom(seed + k, **options)  # type: ignore[arg-type]
            write_phantom(phantom, target)
            shape = "x".join(str(n) for n in reversed(phantom.volume.hu.shape))
            message = f"{uid} {shape}, {len(phantom.nodules)} nodules"
            table = write_annotations(target)
        if progress is not None:
            progress(f"{k + 1}/{count} {message}")
    return table


def write_annotations(folder: Path) -> Path:
    """Write `annotations.csv` from the truth beside each complete scan of the folder, by seriesuid; see `HEADER`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for header in sorted(folder.glob("*.mhd")):
        truth = header.with_suffix(".nodules.json")
        if header.name.startswith(".") or not truth.exists():
            continue
        try:
            nodules = json.loads(truth.read_text(encoding="utf-8"))["nodules"]
            for n in nodules:
                values = (n["x_mm"], n["y_mm"], n["z_mm"], n["diameter_mm"])
                # ";": readers that split lines at commas without regard to quotes find their five columns
                kind = str(n.get("kind", "")).replace(",", ";")
                writer.writerow([header.stem, *(f"{v:.4f}" for v in values), kind])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PhantomError(
                f"{truth}: not the truth of a phantom ({error}); remove it and {header.name} to make them anew"
            ) from error
    path = folder / "annotations.csv"
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path
