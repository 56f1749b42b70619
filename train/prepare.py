"""Prepare what training draws from: annotated scans, lungs to put nodules into, phantoms.

Each prepared scan is one file, written whole. What is there already is not made again, so preparing can be stopped at
any moment and goes on where it was.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import ScanError
from runtime.find_scans import find_scans
from runtime.grid import Grid
from runtime.outputs import safe_name
from runtime.volume import Volume, read_volume
from train.dataset import (
    TARGET,
    Annotation,
    DatasetError,
    Prepared,
    PreparedScan,
    load,
    prepare,
    read_annotations,
    save,
)
from train.insert import NoduleLibrary, insert_nodules, load_nodules, to_hu
from train.phantom import make_phantom

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Where training data comes from.

    Attributes:
        scans: fully annotated scans (files, folders): their false positives are real ones.
        annotations, excluded: LUNA16-style CSVs for them; places of the second are ignored.
        backgrounds: scans, or 1 mm lungs (.npz), that nobody annotated: lungs to put nodules into; hard negatives
            are never chosen from them.
        nodules: library of real nodules to put into scans and backgrounds.
        copies: how many copies with inserted nodules of each of those.
        per_copy: nodules put into each copy.
        phantoms: how many synthetic CTs; phantom_seed: the first one's seed; phantom_nodules: nodules that each is to
            hold, None: as `rpn3d phantom` draws them, 0 to 12. More of them make a crop worth more.
        workers: processes to make phantoms in.
        seed: of the insertions.
    """

    scans: tuple[Path, ...] = ()
    annotations: Path | None = None
    excluded: Path | None = None
    backgrounds: tuple[Path, ...] = ()
    nodules: Path | None = None
    copies: int = 6
    per_copy: int = 16
    phantoms: int = 0
    phantom_seed: int = 1000
    phantom_nodules: int | None = None
    workers: int = 1
    seed: int = 1


def prepare_all(sources: Sources, folder: str | Path, say: Say) -> Path:
    """Prepare everything into `folder`; complaints about annotations are said and kept in `complaints.txt` there.

    Raises:
        DatasetError: nothing to train on, or an input that cannot be read.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    library = None if sources.nodules is None else load_nodules(sources.nodules)
    complaints: list[str] = []
    bases = [*_annotated(sources, target, complaints, say), *_backgrounds(sources, target, say)]
    if library is not None:
        for path in bases:
            for copy in range(sources.copies):
                _inserted(path, copy, library, sources, say)
    _phantoms(sources, target, say)
    for complaint in complaints:
        say(complaint)
    if complaints:
        with (target / "complaints.txt").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in complaints)
    if not any(target.glob("*.npz")):
        raise DatasetError("nothing to train on: give annotated scans, or phantoms above 0")
    return target


def _annotated(sources: Sources, folder: Path, complaints: list[str], say: Say) -> Iterator[Path]:
    if not sources.scans:
        return
    if sources.annotations is None:
        raise DatasetError("scans were given without annotations; add --annotations A.csv")
    targets = read_annotations(sources.annotations)
    ignored = {} if sources.excluded is None else read_annotations(sources.excluded)
    for found in find_scans(sources.scans):
        seriesuid = found.seriesuid or Path(found.path).stem
        path = folder / f"{safe_name(seriesuid)}.npz"
        if not path.is_file():
            say(f"preparing {found.path}")
            try:
                volume = read_volume(found)
                done = prepare(
                    volume, targets.get(volume.seriesuid, ()), ignored.get(volume.seriesuid, ()), mining=True
                )
            except ScanError as error:
                complaints.append(str(error))
                continue
            complaints.extend(done.complaints)
            path = save(done.scan, folder)
        yield path


def _backgrounds(sources: Sources, folder: Path, say: Say) -> Iterator[Path]:
    for source in sources.backgrounds:
        lungs = [source] if source.suffix == ".npz" else []
        found: Sequence[tuple[str, Callable[[], tuple[Volume, list[Annotation]]]]]
        if lungs:
            found = [(source.stem, lambda source=source: lung_volume(source))]  # type: ignore[misc]
        else:
            found = [
                (scan.seriesuid or Path(scan.path).stem, lambda scan=scan: (read_volume(scan), []))  # type: ignore[misc]
                for scan in find_scans([source])
            ]
        for seriesuid, read in found:
            path = folder / f"{safe_name(seriesuid)}.npz"
            if not path.is_file():
                say(f"preparing {seriesuid}")
                volume, ignored = read()
                done = prepare(replace(volume, seriesuid=seriesuid), (), ignored, mining=False)
                path = save(done.scan, folder)
            yield path


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
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{path}: not a 1 mm lung volume ({error})") from error
    ignored = [Annotation(*(float(v) for v in row)) for row in masses]
    return Volume(hu=hu, grid=grid, file_grid=grid, seriesuid=path.stem, source=str(path), notes=()), ignored


def _inserted(path: Path, copy: int, library: NoduleLibrary, sources: Sources, say: Say) -> None:
    name = f"{path.stem}+{copy}"
    if (path.parent / f"{name}.npz").is_file():
        return
    say(f"inserting nodules: {name}")
    scan = load(path)
    rng = np.random.default_rng((sources.seed, copy, *path.stem.encode()))
    taken = [tuple(map(float, row[:4])) for row in scan.nodules]
    voxels, done = insert_nodules(rng, scan.voxels, scan.lung, library, sources.per_copy, taken=taken)
    rows = np.array([(*n.centre_voxel, n.diameter_mm, TARGET) for n in done], dtype=np.float32).reshape(-1, 5)
    nodules = np.concatenate([scan.nodules, rows])
    save(PreparedScan(name, voxels, scan.lung, nodules, scan.mining), path.parent)


def _phantoms(sources: Sources, folder: Path, say: Say) -> None:
    seeds = [
        seed
        for seed in range(sources.phantom_seed, sources.phantom_seed + sources.phantoms)
        if not (folder / f"{phantom_name(seed)}.npz").is_file()
    ]
    with ProcessPoolExecutor(max_workers=sources.workers) as pool:
        make = partial(_phantom, folder=folder, nodules=sources.phantom_nodules)
        for seed, complaints in zip(seeds, pool.map(make, seeds), strict=True):
            say(f"phantom {seed}: {'; '.join(complaints) or 'ready'}")


def phantom_name(seed: int) -> str:
    """Name of a prepared phantom."""
    return f"phantom-{seed:06d}"


def _phantom(seed: int, folder: Path, nodules: int | None) -> tuple[str, ...]:
    made = make_phantom(seed, nodules=nodules)
    targets = [Annotation(n.x_mm, n.y_mm, n.z_mm, n.diameter_mm) for n in made.nodules]
    try:
        done: Prepared = prepare(made.volume, targets, (), mining=True)
    except ScanError as error:
        return (str(error),)
    save(replace(done.scan, seriesuid=phantom_name(seed)), folder)
    return done.complaints
