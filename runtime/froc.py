"""LUNA16's official evaluation: which marks hit, the FROC curve, and the mean sensitivity at seven rates (CPM).

The rules of the official program, followed to the last digit it prints:

1. Of each scan at most 100 marks count. If there are more, only those more probable than the 101st are kept, so that
   marks tied with it go, and fewer than 100 may remain.
2. A mark hits a finding when it is nearer to its centre than half the diameter; at just that distance it does not.
   A diameter below zero (excluded findings have -1) stands for 10 mm.
3. A nodule counts once, with the most probable of its marks; the others are doubles. A mark within two nodules hits
   both.
4. Marks on excluded findings, unless they hit a nodule, are ignored. All other marks are false positives.
5. Thresholds are the distinct probabilities, descending; missed nodules count in the denominator alone. Points
   inside a stretch of equal steps are left out, as scikit-learn's `roc_curve` does; linear interpolation
   between the points does not see the difference. Beyond the last point sensitivity stays as it is.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.mark_files import Marks, MarksError, read_annotations, read_series_list, read_submission

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which the sensitivities are read."""

MAX_MARKS_PER_SCAN = 100
UNKNOWN_DIAMETER_MM = 10.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NoduleHit:
    """One annotated nodule; `probability` is that of its best mark, None if it was missed; `marks` within it.

    `type` is what the annotations say it is, "" where they say nothing; the figures do not depend on it. `apart_mm` is
    how far its best mark is from its centre.
    """

    seriesuid: str
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    probability: float | None
    marks: int
    type: str = ""
    apart_mm: float | None = None


@dataclass(frozen=True)
class ScanCounts:
    """The marks of one scan: `dropped` by the limit, the others hits, doubles, ignored or false positives."""

    seriesuid: str
    nodules: int
    hits: int
    false_positives: int
    ignored: int
    doubles: int
    marks: int
    dropped: int


@dataclass(frozen=True, eq=False)
class FrocResult:
    """An evaluation.

    Attributes:
        fps_per_scan, sensitivity, thresholds: the curve, (n,), from (0, 0, inf) to all marks; sensitivities
            are NaN when there is no nodule.
        sensitivities: at `RATES`; cpm: their mean.
        nodules: every annotated nodule of the scans, in their order.
        scans: every scan, in the order of the list.
        false_positive_probability, false_positive_xyz_mm, false_positive_scan: of each false positive, (m,), (m, 3)
            and (m,), the last an index into `scans`, ascending.
        unknown_series: marks that do not count, by their series, which is not in the list.
        notes: what else a reader should know.
    """

    fps_per_scan: Floats
    sensitivity: Floats
    thresholds: Floats
    sensitivities: tuple[float, ...]
    cpm: float
    nodules: tuple[NoduleHit, ...]
    scans: tuple[ScanCounts, ...]
    false_positive_probability: Floats
    false_positive_xyz_mm: Floats
    false_positive_scan: NDArray[np.intp]
    unknown_series: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Totals over the scans, in the official program's terms."""
        return {
            "scans": len(self.scans),
            "nodules": len(self.nodules),
            "candidates": sum(s.marks - s.dropped for s in self.scans),
            "true_positives": sum(s.hits for s in self.scans),
            "false_positives": sum(s.false_positives for s in self.scans),
            "false_negatives": sum(s.nodules - s.hits for s in self.scans),
            "ignored_on_excluded": sum(s.ignored for s in self.scans),
            "doubles": sum(s.doubles for s in self.scans),
            "dropped_by_limit": sum(s.dropped for s in self.scans),
            "on_unknown_series": sum(self.unknown_series.values()),
        }


def evaluate_files(
    submission: str | Path,
    annotations: str | Path,
    excluded: str | Path | None = None,
    series_list: str | Path | None = None,
) -> FrocResult:
    """Evaluate a submission CSV; without a list of scans, every scan that a file names counts (a note says so).

    Raises:
        MarksError: a file that cannot be read.
    """
    return evaluate_marks(
        read_submission(submission),
        read_annotations(annotations),
        None if excluded is None else read_annotations(excluded),
        None if series_list is None else read_series_list(series_list),
    )


def evaluate_marks(
    submission: Marks,
    annotations: Marks,
    excluded: Marks | None = None,
    scans: Sequence[str] | None = None,
    *,
    max_marks: int = MAX_MARKS_PER_SCAN,
) -> FrocResult:
    """Evaluate marks against annotations.

    Args:
        submission: marks with probabilities.
        annotations: nodules with diameters in mm.
        excluded: findings on which marks are ignored.
        scans: the scans that count, each once, also those with neither mark nor nodule.
        max_marks: that count of each scan.

    Raises:
        MarksError: no scan at all, or one listed twice.
    """
    notes: list[str] = []
    if scans is None:
        named = [*annotations.seriesuid, *(excluded.seriesuid if excluded else ()), *submission.seriesuid]
        scans = sorted(set(named))
        notes.append(
            f"no list of scans was given: the {len(scans)} scans that the files name were counted; any other scan "
            "without marks would lower the false positives per scan"
        )
    if not scans:
        raise MarksError(f"{submission.source}: no scan to evaluate; give marks, annotations or a list of scans")
    if len(set(scans)) < len(scans):
        raise MarksError("a scan is listed twice and would count twice in every rate; list every scan once")

    marks_of, nodules_of = submission.rows_of(), annotations.rows_of()
    excluded_of = excluded.rows_of() if excluded else {}
    none = np.empty(0, dtype=np.intp)
    nodules: list[NoduleHit] = []
    counted: list[ScanCounts] = []
    false_rows: list[NDArray[np.intp]] = []
    for uid in scans:
        every = marks_of.get(uid, none)
        rows = most_probable(every, submission.value, max_marks)
        xyz, probability = submission.xyz_mm[rows], submission.value[rows]
        own = nodules_of.get(uid, none)
        within = inside(xyz, annotations.xyz_mm[own], annotations.value[own])
        hit: NDArray[np.bool_] = np.asarray(within.any(axis=1))
        ignored = np.zeros_like(hit)
        if excluded is not None and uid in excluded_of:
            other = excluded_of[uid]
            ignored = ~hit & inside(xyz, excluded.xyz_mm[other], excluded.value[other]).any(axis=1)
        false_rows.append(rows[~hit & ~ignored])
        marks_in = within.sum(axis=0)
        for column, row in enumerate(own):
            x, y, z = annotations.xyz_mm[row].tolist()
            best = apart = None
            if marks_in[column]:
                surest = np.flatnonzero(within[:, column])[np.argmax(probability[within[:, column]])]
                best, apart = float(probability[surest]), math.dist(xyz[surest], (x, y, z))
            diameter, marks = float(annotations.value[row]), int(marks_in[column])
            nodules.append(NoduleHit(uid, x, y, z, diameter, best, marks, annotations.type_of(int(row)), apart))
        hits = int((marks_in > 0).sum())
        doubles = int(marks_in.sum()) - hits
        false = len(false_rows[-1])
        dropped = len(every) - len(rows)
        counted.append(ScanCounts(uid, len(own), hits, false, int(ignored.sum()), doubles, len(every), dropped))
        if (within.sum(axis=1) > 1).any():
            notes.append(f"{uid}: a mark lies within two nodules and hits both")

    false_row = np.concatenate(false_rows)
    false_positives = submission.value[false_row]
    found = np.asarray([n.probability for n in nodules if n.probability is not None], dtype=np.float64)
    fps, sensitivity, thresholds = curve(found, false_positives, len(nodules), len(scans))
    at_rates = tuple(float(v) for v in np.interp(RATES, fps, sensitivity))
    listed = set(scans)
    return FrocResult(
        fps,
        sensitivity,
        thresholds,
        at_rates,
        math.fsum(at_rates) / len(at_rates),
        tuple(nodules),
        tuple(counted),
        false_positives,
        submission.xyz_mm[false_row],
        np.repeat(np.arange(len(scans)), [len(r) for r in false_rows]),
        {uid: len(rows) for uid, rows in marks_of.items() if uid not in listed},
        (*notes, *_notes(submission, annotations, listed)),
    )


def most_probable(rows: NDArray[np.intp], probability: Floats, limit: int) -> NDArray[np.intp]:
    """`rows`, or if they are more than `limit`, those more probable than the one after the limit (rule 1)."""
    if len(rows) <= limit:
        return rows
    own = probability[rows]
    beyond = np.partition(own, len(own) - limit - 1)[len(own) - limit - 1]
    return np.asarray(rows[own > beyond])


def inside(marks_mm: Floats, centres_mm: Floats, diameters_mm: Floats) -> NDArray[np.bool_]:
    """(marks, findings): whether the mark is nearer to the centre than the radius (rule 2)."""
    diameter = np.where(diameters_mm < 0, UNKNOWN_DIAMETER_MM, diameters_mm)
    apart = marks_mm[:, None, :] - centres_mm[None, :, :]
    squared = apart[..., 0] ** 2 + apart[..., 1] ** 2 + apart[..., 2] ** 2  # summed in the official order
    return np.asarray(squared < (diameter / 2.0) ** 2)


def curve(hits: Floats, false_positives: Floats, nodules: int, scans: int) -> tuple[Floats, Floats, Floats]:
    """The FROC curve of the probabilities of the nodules found and of the false positives (rule 5).

    Returns:
        False positives per scan, sensitivity (NaN if `nodules` is 0) and threshold of each point.
    """
    probability = np.concatenate([hits, false_positives])
    order = np.argsort(-probability, kind="stable")
    descending = probability[order]
    ends = np.flatnonzero(np.diff(descending, append=-math.inf))  # the last mark of each distinct probability
    true = np.cumsum(order < len(hits))[ends]
    false = ends + 1 - true
    if len(ends) > 2:
        turns = (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0)
        kept = np.concatenate([[True], turns, [True]])
        true, false, ends = true[kept], false[kept], ends[kept]
    fps = np.concatenate([[0.0], false / scans])
    sensitivity = np.concatenate([[0.0], true / nodules]) if nodules else np.full(len(fps), math.nan)
    return fps, sensitivity, np.concatenate([[math.inf], descending[ends]])


def _notes(submission: Marks, annotations: Marks, scans: Collection[str]) -> list[str]:
    found = []
    if repeated := submission.repeated():
        found.append(f"{submission.source}: {repeated} rows repeat an earlier row; each was counted as a mark")
    if repeated := annotations.repeated():
        found.append(f"{annotations.source}: {repeated} rows repeat an earlier row; each was counted as a nodule")
    if outside := sum(uid not in scans for uid in annotations.seriesuid):
        found.append(f"{annotations.source}: {outside} nodules lie in scans that are not listed and were left out")
    if not any(uid in scans for uid in annotations.seriesuid):
        found.append("no nodule is annotated in these scans: sensitivity is undefined, false positives count")
    return found
