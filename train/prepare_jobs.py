"""One scan to be prepared is one job: an annotated scan, a lung nobody annotated, a phantom, a copy with nodules.

To add a source of training data: write a job here, and have `train.prepare` make it. A job is handed to another
process, so it holds names and numbers, no arrays.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtime.find_scans import ScanSource
from runtime.grid import Grid
from runtime.lung_mask import find_lungs
from runtime.volume import Volume, read_volume
from runtime.working_volume import make_working_volume
from train.insert import insert_nodules, load_nodules, to_hu
from train.nodule_library import NoduleLibrary, without
from train.phantom import make_phantom
from train.prepared_files import Head, folder_name, load, read_head, write_scan
from train.prepared_scan import TARGET, Annotation, DatasetError


class Job(Protocol):
    """One scan to be prepared."""

    @property
    def seriesuid(self) -> str:
        """Name of the prepared scan."""

    @property
    def made_from(self) -> Mapping[str, Any]:
        """What decides how it comes out, for `Head.made_from`."""

    def make(self, folder: Path, threads: int) -> None:
        """Prepare it into `folder`, whole or not at all.

        Raises:
            Rpn3dError: it cannot be prepared, whatever becomes of the others.
        """


@dataclass(frozen=True)
class ScanJob:
    """A scan in files. `print` is its fingerprint."""

    seriesuid: str
    source: ScanSource
    print: str

    @property
    def made_from(self) -> Mapping[str, Any]:
        return {"kind": "scan", "fingerprint": self.print}

    def make(self, folder: Path, threads: int) -> None:
        _prepare(read_volume(self.source, threads), self, folder, threads)


@dataclass(frozen=True)
class LungJob:
    """A 1 mm lung volume (`lung_volume`)."""

    path: Path
    print: str

    @property
    def seriesuid(self) -> str:
        return self.path.stem

    @property
    def made_from(self) -> Mapping[str, Any]:
        return {"kind": "lung", "fingerprint": self.print}

    def make(self, folder: Path, threads: int) -> None:
        volume, masses = lung_volume(self.path)
        _prepare(volume, self, folder, threads, ignored=tuple(masses))


@dataclass(frozen=True)
class PhantomJob:
    """A synthetic CT; `nodules` as `make_phantom` takes them."""

    seed: int
    nodules: int | None

    @property
    def seriesuid(self) -> str:
        return phantom_name(self.seed)

    @property
    def made_from(self) -> Mapping[str, Any]:
        return {"kind": "phantom", "seed": self.seed, "nodules": self.nodules}

    def make(self, folder: Path, threads: int) -> None:
        made = make_phantom(self.seed, nodules=self.nodules)
        targets = tuple(Annotation(n.x_mm, n.y_mm, n.z_mm, n.diameter_mm) for n in made.nodules)
        _prepare(made.volume, self, folder, threads, targets=targets)


@dataclass(frozen=True)
class CopyJob:
    """A copy of a prepared scan with nodules of a library put in.

    `base` and `base_made_from` name the scan, `library_print` and `leave_out` the nodules that are drawn from.
    """

    base: str
    base_made_from: Mapping[str, Any]
    copy: int
    library: Path
    library_print: str
    leave_out: tuple[str, ...]
    count: int
    seed: int

    @property
    def seriesuid(self) -> str:
        return f"{self.base}+{self.copy}"

    @property
    def made_from(self) -> Mapping[str, Any]:
        return {
            "kind": "copy",
            "base": self.base_made_from,
            "library": self.library_print,
            "leave_out": sorted(self.leave_out),
            "count": self.count,
            "seed": self.seed,
        }

    def make(self, folder: Path, threads: int) -> None:
        base = folder_name(self.base)
        scan, head = load(folder / base), read_head(folder / base)
        rng = np.random.default_rng((self.seed, self.copy, *base.encode()))
        taken = [tuple(map(float, row[:4])) for row in scan.nodules]
        lung = scan.lung
        library = _library(self.library, self.leave_out)
        voxels, done = insert_nodules(rng, scan.voxels, lung, library, self.count, taken=taken)
        rows = tuple((*n.centre_voxel, n.diameter_mm, TARGET) for n in done)
        made = Head(self.seriesuid, head.shape, head.grid, head.scan_grid, self.made_from, base=base, inserted=rows)
        write_scan(made, voxels, lung, folder)


def phantom_name(seed: int) -> str:
    """Name of a prepared phantom."""
    return f"phantom-{seed:06d}"


def file_print(path: Path) -> str:
    """Of a file that is read whole anyway: changes when any of it does.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error


def lung_volume(path: Path) -> tuple[Volume, list[Annotation]]:
    """A scan that is stored as 1 mm lung window (`u8` 0..255 for [-1200, 600] HU), and its known masses.

    Raises:
        DatasetError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            x, y, z = (float(v) for v in stored["origin_mm"])
            grid = Grid(stored["u8"].shape, (1.0, 1.0, 1.0), (x, y, z), tuple(map(float, stored["direction"])))
            hu = np.rint(to_hu(stored["u8"])).astype(np.int16)
            masses = stored["tumours"] if "tumours" in stored else np.zeros((0, 4))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a 1 mm lung volume ({error})") from error
    ignored = [Annotation(*(float(v) for v in row)) for row in masses]
    return Volume(hu=hu, grid=grid, file_grid=grid, seriesuid=path.stem, source=str(path), notes=()), ignored


@lru_cache(maxsize=1)
def _library(path: Path, leave_out: tuple[str, ...]) -> NoduleLibrary:
    return without(load_nodules(path), leave_out)


def _prepare(
    volume: Volume,
    job: Job,
    folder: Path,
    threads: int,
    targets: tuple[Annotation, ...] = (),
    ignored: tuple[Annotation, ...] = (),
) -> None:
    working = make_working_volume(volume, find_lungs(volume, threads), threads=threads)
    z, y, x = working.voxels.shape
    head = Head(job.seriesuid, (z, y, x), working.grid, volume.grid, job.made_from, targets, ignored)
    write_scan(head, working.voxels, working.lung, folder)
