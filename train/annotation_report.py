"""One report of everything that is wrong with the annotations of a training set: a CSV, and a line for each kind."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from caffe_models.atomic import replacing
from train.placing import Problem
from train.prepared_scan import Annotation

REPORT = "annotations_report.csv"
HEADER = ("problem", "where", "seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "done", "detail")


def of_other_scans(
    annotations: Mapping[str, Sequence[Annotation]], scans: Collection[str], failed: Collection[str], kind: str = ""
) -> list[Problem]:
    """Annotations of series that are not among the scans, or whose scan could not be prepared.

    Args:
        annotations: by seriesuid.
        scans: seriesuids that there are, whether prepared or not.
        failed: those of them that could not be prepared.
        kind: put before the words of the problem.
    """
    problems: list[Problem] = []
    for seriesuid, rows in annotations.items():
        if seriesuid not in scans or seriesuid in failed:
            what = "of a scan that was not prepared" if seriesuid in failed else "of a series not among the scans"
            problems.extend(Problem(f"{kind}{what}", seriesuid, row, "left out") for row in rows)
    return problems


def write_report(problems: Sequence[Problem], folder: str | Path) -> Path:
    """Write `annotations_report.csv`, whole: a row for each problem, only the header if there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for p in problems:
        a = p.annotation
        writer.writerow((p.kind, a.source, p.seriesuid, a.x_mm, a.y_mm, a.z_mm, a.diameter_mm, p.done, p.detail))
    path = Path(folder) / REPORT
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def summary(problems: Sequence[Problem]) -> list[str]:
    """One line for each kind of problem: how many, in how many series, what was done."""
    counts = Counter((p.kind, p.done) for p in problems)
    series = {key: len({p.seriesuid for p in problems if (p.kind, p.done) == key}) for key in counts}
    return [
        f"annotations: {count} {kind}: {done} ({series[kind, done]} series; {REPORT})"
        for (kind, done), count in counts.items()
    ]
