"""Prepared scans: what training reads.

A prepared scan is a scan as the detector itself sees it (lung mask, 1 mm, uint8: `runtime.working_volume`), with its
nodules in voxels of that volume, in one `.npz` file. Preparing is done once; crops are drawn from memory.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from runtime import mark_files
from runtime.lung_mask import find_lungs
from runtime.volume import Volume
from runtime.working_volume import WorkingVolume, make_working_volume

TARGET, IGNORE = 1.0, 0.0


class DatasetError(Rpn3dError):
    """Training data that cannot be read or used."""


@dataclass(frozen=True)
class Annotation:
    """One row of a LUNA16-style annotation file: centre in world mm (x, y, z), diameter in mm."""

    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float


@dataclass(frozen=True)
class PreparedScan:
    """A scan ready to draw crops from.

    Attributes:
        seriesuid: its name.
        voxels: (z, y, x) uint8 at 1 mm, as the network sees it.
        lung: (z, y, x) bool, the dilated lung mask on the same grid.
        nodules: (n, 5) float32: z, y, x in voxels, diameter in voxels (mm), kind (1 target, 0 ignore).
        mining: every nodule is annotated, so that false positives may be used as hard negatives.
    """

    seriesuid: str
    voxels: NDArray[np.uint8]
    lung: NDArray[np.bool_]
    nodules: NDArray[np.float32]
    mining: bool


def read_annotations(path: str | Path) -> dict[str, list[Annotation]]:
    """Rows of a LUNA16-style CSV (seriesuid,coordX,coordY,coordZ,diameter_mm), by seriesuid.

    A diameter that is not above zero is kept (LUNA16 marks points so); who trains on it decides.

    Raises:
        MarksError: a missing file or column, or a value that is not a finite number, with file and line.
    """
    marks = mark_files.read_annotations(path)
    table = np.column_stack([marks.xyz_mm, marks.value]).tolist()
    return {uid: [Annotation(*table[row]) for row in rows] for uid, rows in marks.rows_of().items()}


@dataclass(frozen=True)
class Prepared:
    """A prepared scan and what could not be used of its annotations, one sentence each."""

    scan: PreparedScan
    complaints: tuple[str, ...]


def prepare(volume: Volume, targets: Iterable[Annotation], ignored: Iterable[Annotation], *, mining: bool) -> Prepared:
    """Mask, resample and window `volume` as detection does, and bring its annotations into the voxels of the result.

    A target that the lung mask cuts away is turned into an ignored place: the network cannot see it, so it may
    neither be asked for it nor be blamed for it.

    Raises:
        ScanError: no lungs were found.
    """
    lungs = find_lungs(volume)
    working = make_working_volume(volume, lungs)
    return from_working_volume(working, volume.seriesuid, targets, ignored, mining=mining)


def from_working_volume(
    working: WorkingVolume,
    seriesuid: str,
    targets: Iterable[Annotation],
    ignored: Iterable[Annotation],
    *,
    mining: bool,
) -> Prepared:
    """The same for a working volume that is there already."""
    rows: list[tuple[float, ...]] = []
    complaints: list[str] = []
    shape = np.asarray(working.voxels.shape)
    for kind, annotations in ((TARGET, targets), (IGNORE, ignored)):
        for a in annotations:
            where = f"{seriesuid}: nodule at ({a.x_mm:.1f}, {a.y_mm:.1f}, {a.z_mm:.1f}) mm"
            if kind == TARGET and a.diameter_mm <= 0:
                complaints.append(f"{where}: diameter {a.diameter_mm:g} mm is not above 0; ignored")
                kind_here, diameter = IGNORE, 10.0
            else:
                # LUNA16 gives points without a size a diameter of -1: ignore a neighbourhood of 10 mm
                kind_here, diameter = kind, a.diameter_mm if a.diameter_mm > 0 else 10.0
            z, y, x = working.grid.to_voxel((a.x_mm, a.y_mm, a.z_mm))
            index = np.round((z, y, x)).astype(int)
            if np.any(index < 0) or np.any(index >= shape):
                if kind == TARGET:
                    complaints.append(f"{where}: outside the lungs' box; left out")
                continue
            if kind_here == TARGET and not working.lung[tuple(index)]:
                complaints.append(f"{where}: outside the lung mask; ignored")
                kind_here = IGNORE
            rows.append((z, y, x, diameter, kind_here))
    nodules = np.asarray(rows, dtype=np.float32).reshape(-1, 5)
    return Prepared(PreparedScan(seriesuid, working.voxels, working.lung, nodules, mining), tuple(complaints))


def save(scan: PreparedScan, folder: str | Path) -> Path:
    """Write `<seriesuid>.npz` whole or not at all; the mask is packed to bits."""
    path = Path(folder) / f"{scan.seriesuid}.npz"
    head = {"seriesuid": scan.seriesuid, "mining": scan.mining, "shape": list(scan.voxels.shape)}
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            voxels=scan.voxels,
            lung=np.packbits(scan.lung),
            nodules=scan.nodules,
            head=np.asarray(json.dumps(head)),
        )
    return path


def load(path: str | Path) -> PreparedScan:
    """Read what `save` wrote.

    Raises:
        DatasetError: the file is missing, broken or something else.
    """
    file = Path(path)
    try:
        with np.load(file, allow_pickle=False) as stored:
            head: Mapping[str, object] = json.loads(str(stored["head"]))
            voxels = stored["voxels"]
            lung = np.unpackbits(stored["lung"], count=voxels.size).reshape(voxels.shape).astype(bool)
            return PreparedScan(str(head["seriesuid"]), voxels, lung, stored["nodules"], bool(head["mining"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{file}: not a prepared scan ({error}); prepare it again") from error


def load_folder(folder: str | Path) -> list[PreparedScan]:
    """All prepared scans of a folder, by name.

    Raises:
        DatasetError: there is none, or one is broken.
    """
    files = sorted(Path(folder).glob("*.npz"))
    if not files:
        raise DatasetError(f"{folder}: holds no prepared scan (*.npz)")
    return [load(file) for file in files]
