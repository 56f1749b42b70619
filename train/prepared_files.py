"""Prepared scans on disk: a folder for each, arrays that are mapped into memory, so that thousands open at once.

    <folder>/scans.json          the scans of the last preparing, in order; others in the folder are not trained on
    <folder>/<scan>/voxels.npy   (z, y, x) uint8
    <folder>/<scan>/lung.npy     the lung mask, packed to bits
    <folder>/<scan>/lung_sample.npy  int32, flat positions of random voxels of the lung
    <folder>/<scan>/scan.json    name, grid, what it was made from
    <folder>/<scan>/nodules.json     nodules in voxels; written anew when annotations change

A scan's folder appears whole, by being renamed; `nodules.json` comes last of all, when its annotations are placed.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from runtime.grid import Grid
from runtime.outputs import safe_name
from train.prepared_scan import Annotation, DatasetError, InFile, PreparedScan

FORMAT = 1
"""To be raised when the files change, or when the lung mask or the working volume come out differently: what older
versions prepared is then prepared again."""
LUNG_SAMPLE = 16384
"""Voxels of the lung that a scan on disk draws its random crops from: 64 KB instead of up to 50 MB."""
INDEX = "scans.json"
WORK_PREFIX = ".making-"
_COPY = re.compile(r"\+\d+$")


@dataclass(frozen=True)
class Head:
    """`scan.json`.

    Attributes:
        seriesuid: the scan's name.
        shape: (z, y, x) of its voxels.
        grid: where they lie.
        scan_grid: of the scan it was made from.
        made_from: what decides how it came out; a scan whose sources say otherwise is made anew.
        targets, ignored: annotations in world mm that come with the source itself.
        base: folder of the scan that it is a copy of, with other nodules put in; None: it is no copy.
        inserted: rows of `PreparedScan.nodules` that were put in.
    """

    seriesuid: str
    shape: tuple[int, int, int]
    grid: Grid | None = None
    scan_grid: Grid | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[Annotation, ...] = ()
    ignored: tuple[Annotation, ...] = ()
    base: str | None = None
    inserted: tuple[tuple[float, ...], ...] = ()


def base_of(seriesuid: str) -> str:
    """The scan that a copy such as `<seriesuid>+3` was made from; others are their own."""
    return _COPY.sub("", seriesuid) or seriesuid


def folder_name(seriesuid: str) -> str:
    """Name of the folder of a scan or of a copy of one."""
    base = base_of(seriesuid)
    return safe_name(base) + seriesuid[len(base) :]


def lung_sample(lung: NDArray[np.bool_], seriesuid: str) -> NDArray[np.int32]:
    """Up to LUNG_SAMPLE flat positions of the mask, ascending; the same for the same name."""
    inside = np.flatnonzero(lung)
    if len(inside) > LUNG_SAMPLE:
        rng = np.random.default_rng(list(seriesuid.encode()))
        inside = np.sort(rng.choice(inside, LUNG_SAMPLE, replace=False))
    return inside.astype(np.int32)


def save(scan: PreparedScan, folder: str | Path) -> Path:
    """Write a scan with its nodules, whole or not at all; returns its folder."""
    shape = scan.shape
    path = write_scan(Head(scan.seriesuid, (shape[0], shape[1], shape[2]), scan.grid), scan.voxels, scan.lung, folder)
    write_nodules(path, scan.nodules, scan.mining)
    return path


def write_scan(head: Head, voxels: NDArray[np.uint8], lung: NDArray[np.bool_], folder: str | Path) -> Path:
    """Write everything but the nodules, whole or not at all, in place of what was there; returns the scan's folder."""
    path = Path(folder) / folder_name(head.seriesuid)
    with replacing_folder(path) as made:
        np.save(made / "voxels.npy", np.ascontiguousarray(voxels))
        np.save(made / "lung.npy", np.packbits(lung))
        np.save(made / "lung_sample.npy", lung_sample(lung, head.seriesuid))
        (made / "scan.json").write_text(json.dumps({"format": FORMAT, **asdict(head)}, indent=1) + "\n", "utf-8")
    return path


def write_nodules(path: Path, nodules: NDArray[np.float32], mining: bool) -> bool:
    """Write `nodules.json` of the scan in `path` unless it says so already; returns whether it was written."""
    text = json.dumps({"mining": mining, "nodules": nodules.tolist()}) + "\n"
    file = path / "nodules.json"
    if file.is_file() and file.read_text("utf-8") == text:
        return False
    with replacing(file) as temporary:
        temporary.write_text(text, "utf-8")
    return True


def read_head(path: str | Path) -> Head:
    """`scan.json` of the scan in the folder `path`.

    Raises:
        DatasetError: it is missing, broken or of another version.
    """
    file = Path(path) / "scan.json"
    try:
        stored = json.loads(file.read_text("utf-8"))
        if stored.pop("format") != FORMAT:
            raise DatasetError(f"{path}: prepared by another version; prepare it again")
        for name in ("grid", "scan_grid"):
            stored[name] = None if stored[name] is None else _grid(stored[name])
        for name in ("targets", "ignored"):
            stored[name] = tuple(Annotation(**one) for one in stored[name])
        stored["inserted"] = tuple(map(tuple, stored["inserted"]))
        stored["shape"] = tuple(stored["shape"])
        return Head(**stored)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{file}: not the head of a prepared scan ({error}); prepare it again") from error


def _grid(stored: Mapping[str, Any]) -> Grid:
    return Grid(**{name: tuple(values) for name, values in stored.items()})


def load(path: str | Path) -> PreparedScan:
    """Open the scan in the folder `path`; its voxels are read when they are asked for.

    Raises:
        DatasetError: it is missing, broken or something else.
    """
    folder = Path(path)
    if folder.suffix == ".npz":
        raise DatasetError(f"{folder}: a prepared scan of an older version; prepare it again and remove this file")
    head = read_head(folder)
    file = folder / "nodules.json"
    try:
        stored = json.loads(file.read_text("utf-8"))
        nodules = np.asarray(stored["nodules"], dtype=np.float32).reshape(-1, 5)
        mining = bool(stored["mining"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{file}: no nodules of a prepared scan ({error}); prepare it again") from error
    return open_scan(folder, head, nodules, mining)


def open_scan(path: Path, head: Head, nodules: NDArray[np.float32], mining: bool) -> PreparedScan:
    """The scan in the folder `path` with these nodules.

    Raises:
        DatasetError: an array is missing or cut off.
    """
    voxels, lung = InFile(path / "voxels.npy", head.shape), InFile(path / "lung.npy", head.shape, packed=True)
    voxels.check()
    lung.check()
    sample = InFile(path / "lung_sample.npy", (0,))
    sample.mapped()
    # the fields take files in place of arrays: `train.prepared_scan.maybe_in_file`
    arrays: dict[str, Any] = {"voxels": voxels, "lung": lung, "lung_sample": sample}
    return PreparedScan(seriesuid=head.seriesuid, nodules=nodules, mining=mining, grid=head.grid, **arrays)


def load_folder(folder: str | Path) -> list[PreparedScan]:
    """The prepared scans of a folder: those of its `scans.json`, without one all, by name.

    Raises:
        DatasetError: there is none, or one is missing or broken.
    """
    root = Path(folder)
    index = root / INDEX
    if index.is_file():
        try:
            names = [str(name) for name in json.loads(index.read_text("utf-8"))["scans"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{index}: not a list of prepared scans ({error}); prepare again") from error
    else:
        names = sorted(path.parent.name for path in root.glob("[!.]*/scan.json"))
    if not names:
        old = any(root.glob("*.npz"))
        raise DatasetError(
            f"{root}: holds no prepared scan" + (", only .npz files of an older version; prepare again" if old else "")
        )
    return [load(root / name) for name in names]


def write_index(folder: Path, names: Sequence[str]) -> None:
    """Write which scans of the folder are trained on."""
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps({"scans": list(names)}, indent=0) + "\n", "utf-8")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success flush its files to disk and rename it to `path`.

    An older folder there is removed first, so that a kill in between leaves nothing in its place, never a mixture.
    What an ended process left behind is cleared away by `remove_leftovers`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=path.parent))
    try:
        yield made
        for file in made.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)  # mkdtemp makes folders that only their owner reads
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=path.parent))
            path.rename(old / path.name)
            shutil.rmtree(old)
        made.rename(path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were making in `folder`; nobody else may be preparing there."""
    for left in folder.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
