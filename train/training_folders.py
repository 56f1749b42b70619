"""Scans and annotations of a training set, found in its folders as LUNA16 and Tianchi hand them out.

    LUNA16:   subset0/<seriesuid>.mhd ... subset9/, CSVS/annotations.csv, CSVS/annotations_excluded.csv,
              seg-lungs-LUNA16/<seriesuid>.mhd (lung masks under the scans' names)
    Tianchi:  train_subset00/LKDS-00001.mhd ..., csv/train/annotations.csv, csv/train/seriesuids.csv,
              csv/val/annotations.csv, csv/val/seriesuids.csv, csv/test/seriesuids.csv

So scan files are taken at any depth, but not from folders that are named after masks. A `seriesuids.csv` beside an
annotations.csv lists the scans that the file speaks of; a scan that no file speaks of was not annotated, and taking it
for one without nodules would teach the net that its nodules are none.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.dicom_mark import looks_like_dicom
from runtime.errors import ScanError
from runtime.find_scans import ScanSource, find_scans
from runtime.scan_file import scan_stem, scan_suffix
from train.dataset import AnnotationTable, read_table
from train.prepared_scan import DatasetError

TARGETS, EXCLUDED, SERIES = "annotations.csv", "annotations_excluded.csv", "seriesuids.csv"
MASK_FOLDER = re.compile(r"(^|[^a-z])(lungs?[_-]?)?(seg|segs|segmentations?|masks?|labels?)([^a-z]|$)", re.IGNORECASE)
MASK_FILE = re.compile(r"[_-](lungs?[_-]?)?(seg|segs|segmentations?|masks?|labels?)$", re.IGNORECASE)
SHOWN = 3


@dataclass(frozen=True)
class TrainingSet:
    """What was found.

    Attributes:
        scans: the annotated ones, each with its seriesuid.
        annotations, excluded: what to find in them, and what counts neither way.
        notes: what was found and what was left out, one line each.
    """

    scans: tuple[ScanSource, ...]
    annotations: tuple[AnnotationTable, ...]
    excluded: tuple[AnnotationTable, ...]
    notes: tuple[str, ...]


@dataclass
class _Tables:
    targets: list[Path]
    excluded: list[Path]
    lists: list[Path]


def find_training_set(
    paths: Sequence[Path], annotations: Sequence[Path] = (), excluded: Sequence[Path] = ()
) -> TrainingSet:
    """The annotated scans that `paths` (files, folders) name, and their annotation files.

    Args:
        paths: scan files, DICOM folders, folders of scans, or a whole LUNA16 or Tianchi folder.
        annotations, excluded: files that are taken instead of those that lie there.

    Raises:
        ScanError: a path without scans, or two scans of one name.
        DatasetError: no annotation file.
        MarksError: one that cannot be read.
    """
    notes: list[str] = []
    scans: list[ScanSource] = []
    tables = _Tables([], [], [])
    for path in paths:
        scans.extend(scans_in(path, notes))
        for found, more in zip(vars(tables).values(), vars(_tables_of(path)).values(), strict=True):
            found.extend(one for one in more if one.resolve() not in {other.resolve() for other in found})
    named = _named_once(scans, notes)
    lists = {file.parent: file for file in tables.lists}
    if annotations:
        targets = [read_table(file) for file in annotations]
    else:
        targets = [read_table(file, lists.get(file.parent)) for file in tables.targets]
        if not targets:
            raise DatasetError(
                f"{', '.join(map(str, paths))}: scans to train on, and no {TARGETS} in or beside them; "
                f"add --annotations A.csv"
            )
        notes.append(f"annotations: {', '.join(map(str, tables.targets))}")
        named = _annotated(named, targets, tables.lists, notes)
    if excluded:
        left_out = [read_table(file) for file in excluded]
    else:
        left_out = [read_table(file, lists.get(file.parent)) for file in tables.excluded]
        if left_out:
            notes.append(f"excluded findings: {', '.join(map(str, tables.excluded))}")
    silent = [uid for uid in named if not any(uid in table.rows for table in (*targets, *left_out))]
    if silent:
        notes.append(f"taken as free of nodules, no annotation file has a row of them: {_some(silent)}")
    return TrainingSet(tuple(named.values()), tuple(targets), tuple(left_out), tuple(notes))


def seriesuid_of(source: ScanSource) -> str:
    """The scan's name; of a DICOM folder the series of its first CT slice.

    Raises:
        ScanError: no such slice.
    """
    if source.seriesuid is not None:
        return source.seriesuid
    from runtime.dicom_slice import read_slice_header  # pydicom takes half a second to import

    for path in _dicom_files(source.path):
        header = read_slice_header(path, source.path.name)
        if header is not None and header.modality in ("CT", "") and not header.is_localizer:
            return header.series_uid
    raise ScanError(f"{source}: no CT slices found; give the folder of a CT series")


def fingerprint(source: ScanSource) -> str:
    """Changes when the scan's files do, not when they are copied elsewhere; reads 64 KB of each at most, not all."""
    digest = hashlib.sha256()
    if source.kind == "dicom":
        files = _dicom_files(source.path)
        digest.update("\n".join(f"{path.name} {path.stat().st_size}" for path in files).encode())
        files = files[len(files) // 2 :][:1]
    else:
        stem = scan_stem(source.path)
        beside = [source.path.with_name(stem + suffix) for suffix in (".raw", ".zraw")]
        files = [source.path, *(path for path in beside if source.path.suffix.lower() == ".mhd" and path.is_file())]
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as stream:
            for start in (0, size // 2, max(0, size - 16384)):
                stream.seek(start)
                digest.update(stream.read(16384))
    return digest.hexdigest()[:32]


def _dicom_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and looks_like_dicom(path)]


def _named_once(scans: Iterable[ScanSource], notes: list[str]) -> dict[str, ScanSource]:
    named: dict[str, ScanSource] = {}
    for source in scans:
        try:
            seriesuid = seriesuid_of(source)
        except ScanError as error:
            notes.append(f"left out: {error}")
            continue
        other = named.setdefault(seriesuid, ScanSource(source.path, source.kind, seriesuid))
        if other.path.resolve() != source.path.resolve():
            raise ScanError(f"{source} and {other.path} are both the scan {seriesuid}; remove or rename one")
    return named


def _annotated(
    named: dict[str, ScanSource], tables: Sequence[AnnotationTable], lists: Sequence[Path], notes: list[str]
) -> dict[str, ScanSource]:
    """The scans that the annotation files speak of."""
    from runtime.mark_files import read_series_list

    known = {table.path.parent for table in tables}
    unannotated = {uid for file in lists if file.parent not in known for uid in read_series_list(file)}
    everything = any(table.series is None for table in tables)
    taken, left = {}, []
    for uid, source in named.items():
        spoken_of = any(table.speaks_of(uid) for table in tables)
        if spoken_of or (everything and uid not in unannotated):
            taken[uid] = source
        else:
            left.append(uid)
    if left:
        notes.append(
            f"left out, in no list of annotated scans ({SERIES}): {_some(left)}; --background takes them as lungs "
            f"to put nodules into"
        )
    return taken


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def scans_in(path: Path, notes: list[str]) -> list[ScanSource]:
    """The scans that a path names, those of deeper folders too, without masks; what was found is added to `notes`.

    Raises:
        ScanError: there is none.
    """
    if not path.is_dir():
        return list(find_scans([path]))
    deeper: list[Path] = []
    masks: list[str] = []
    for folder, files in _walk(path, masks):
        if folder != path:
            deeper.extend(
                folder / name for name in sorted(files) if not name.startswith(".") and scan_suffix(Path(name))
            )
    try:
        found = find_scans([path])
    except ScanError:
        if not deeper:
            raise
        found = ()
    kept: list[ScanSource] = []
    mask_files: list[str] = []
    for source in [*found, *(find_scans(deeper) if deeper else ())]:
        inside = source.path.relative_to(path) if source.path != path else Path()
        if any(MASK_FOLDER.search(part) for part in inside.parts[: None if source.kind == "dicom" else -1]):
            continue
        if source.kind != "dicom" and MASK_FILE.search(scan_stem(source.path)):
            mask_files.append(str(inside))
            continue
        kept.append(source)
    folders = sorted({str(source.path.parent.relative_to(path)) for source in kept if source.path != path})
    where = f" in {_some(folders)}" if folders != ["."] and folders else ""
    notes.append(f"{path}: {len(kept)} scan{'s' * (len(kept) != 1)}{where}")
    if masks or mask_files:
        notes.append(f"{path}: left out, named after masks: {_some([*masks, *mask_files])}")
    if not kept:
        raise ScanError(f"{path}: no scan found but files named after masks; name the scans one by one")
    return kept


def _walk(path: Path, masks: list[str] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Folders and their files, links followed, hidden folders and those named after masks left out."""

    def refuse(error: OSError) -> None:
        raise ScanError(f"{error.filename}: cannot be read: {error.strerror or error}")

    been: set[Path] = set()
    for name, folders, files in os.walk(path, onerror=refuse, followlinks=True):
        folder = Path(name)
        if folder.resolve() in been:
            folders.clear()
            continue
        been.add(folder.resolve())
        if masks is not None:
            masks.extend(str((folder / sub).relative_to(path)) for sub in sorted(folders) if MASK_FOLDER.search(sub))
        folders[:] = sorted(sub for sub in folders if not sub.startswith(".") and not MASK_FOLDER.search(sub))
        yield folder, files


def _tables_of(path: Path) -> _Tables:
    """Annotation files in a folder at any depth; if there are none, and for a file, those beside it."""
    if path.is_dir():
        found = _sorted_tables(_walk(path))
        if found.targets:
            return found
        places = [path.resolve().parent]
    else:
        places = [path.resolve().parent, path.resolve().parent.parent]
    for place in places:
        own = [(place, [entry.name for entry in place.iterdir() if entry.is_file()])]
        tables = [sub for sub in place.iterdir() if sub.is_dir() and sub.name.lower() in ("csv", "csvs")]
        found = _sorted_tables([*own, *(one for sub in sorted(tables) for one in _walk(sub))])
        if found.targets:
            return found
    return _Tables([], [], [])


def _sorted_tables(folders: Iterable[tuple[Path, list[str]]]) -> _Tables:
    found = _Tables([], [], [])
    by_name = {TARGETS: found.targets, EXCLUDED: found.excluded, SERIES: found.lists}
    for folder, files in folders:
        for name in sorted(files):
            if name.lower() in by_name:
                by_name[name.lower()].append(folder / name)
    return found
