"""Training data: annotations, and scans prepared as the detector itself sees them (`runtime.working_volume`).

What a prepared scan is stands in `train.prepared_scan`, how it is stored in `train.prepared_files`, how annotations
come into it in `train.placing`; the names that others need are here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime import mark_files
from runtime.grid import Grid
from runtime.lung_mask import find_lungs
from runtime.volume import Volume
from runtime.working_volume import WorkingVolume, make_working_volume
from train.placing import Problem, place
from train.prepared_files import load, load_folder, save
from train.prepared_scan import IGNORE, TARGET, Annotation, DatasetError, PreparedScan

__all__ = [
    "IGNORE",
    "TARGET",
    "Annotation",
    "AnnotationTable",
    "DatasetError",
    "Prepared",
    "PreparedScan",
    "from_working_volume",
    "load",
    "load_folder",
    "merge_tables",
    "prepare",
    "read_annotations",
    "read_table",
    "save",
]

Annotations = dict[str, list[Annotation]]


def read_annotations(path: str | Path) -> Annotations:
    """Rows of a LUNA16-style CSV (seriesuid,coordX,coordY,coordZ,diameter_mm), by seriesuid.

    A diameter that is not above zero is kept (LUNA16 marks points so); `train.placing` decides what becomes of it.

    Raises:
        MarksError: a missing file or column, or a value that is not a finite number, with file and line.
    """
    marks = mark_files.read_annotations(path)
    table = np.column_stack([marks.xyz_mm, marks.value]).tolist()
    name = Path(path).name
    return {
        uid: [Annotation(*table[row], source=f"{name}:{marks.lines[row]}") for row in rows]
        for uid, rows in marks.rows_of().items()
    }


@dataclass(frozen=True)
class AnnotationTable:
    """One annotation file.

    Attributes:
        path: of the CSV.
        rows: its annotations by seriesuid.
        series: the scans it speaks of, by a list beside it; None: those it has rows of, and maybe others.
    """

    path: Path
    rows: Annotations
    series: frozenset[str] | None = None

    def speaks_of(self, seriesuid: str) -> bool:
        """Whether the file says what is in a scan, if only by having no row of it."""
        return seriesuid in self.rows or (self.series is not None and seriesuid in self.series)


def read_table(path: str | Path, series_list: str | Path | None = None) -> AnnotationTable:
    """Read an annotation file and the list of scans that belongs to it.

    Raises:
        MarksError: as `read_annotations`.
    """
    series = None if series_list is None else frozenset(mark_files.read_series_list(series_list))
    return AnnotationTable(Path(path), read_annotations(path), series)


def merge_tables(tables: Sequence[AnnotationTable]) -> Annotations:
    """The annotations of several files, each scan's from the first that speaks of it.

    Raises:
        DatasetError: two files disagree on a scan; the message names both.
    """
    merged: Annotations = {}
    for seriesuid in dict.fromkeys(uid for table in tables for uid in table.rows):
        speaking = [table for table in tables if table.speaks_of(seriesuid)]
        first = speaking[0]
        for other in speaking[1:]:
            if _rounded(first.rows.get(seriesuid, [])) != _rounded(other.rows.get(seriesuid, [])):
                raise DatasetError(
                    f"{first.path} and {other.path} disagree on {seriesuid}: {len(first.rows.get(seriesuid, []))} and "
                    f"{len(other.rows.get(seriesuid, []))} rows, not the same; name the right one with --annotations "
                    f"or --excluded"
                )
        merged[seriesuid] = first.rows.get(seriesuid, [])
    return merged


def _rounded(annotations: Sequence[Annotation]) -> list[tuple[float, ...]]:
    return sorted(tuple(round(v, 3) + 0.0 for v in (a.x_mm, a.y_mm, a.z_mm, a.diameter_mm)) for a in annotations)


@dataclass(frozen=True)
class Prepared:
    """A prepared scan and what was wrong with its annotations."""

    scan: PreparedScan
    problems: tuple[Problem, ...]

    @property
    def complaints(self) -> tuple[str, ...]:
        """One sentence for each problem."""
        return tuple(map(str, self.problems))


def prepare(volume: Volume, targets: Iterable[Annotation], ignored: Iterable[Annotation], *, mining: bool) -> Prepared:
    """Mask, resample and window `volume` as detection does, and bring its annotations into the voxels of the result.

    Raises:
        ScanError: no lungs were found.
    """
    working = make_working_volume(volume, find_lungs(volume))
    return from_working_volume(working, volume.seriesuid, targets, ignored, mining=mining, scan_grid=volume.grid)


def from_working_volume(
    working: WorkingVolume,
    seriesuid: str,
    targets: Iterable[Annotation],
    ignored: Iterable[Annotation],
    *,
    mining: bool,
    scan_grid: Grid | None = None,
) -> Prepared:
    """The same for a working volume that is there already; `train.placing.place` says what becomes of annotations."""
    nodules, problems = place(
        seriesuid, working.grid, lambda index: np.asarray(working.lung[tuple(index.T)]), targets, ignored, scan_grid
    )
    scan = PreparedScan(seriesuid, working.voxels, working.lung, nodules, mining, working.grid)
    return Prepared(scan, problems)
