"""An evaluation as files: froc.json, froc.csv, froc.png, CADAnalysis.txt, and evaluation.html that holds it all.

The official figures come from `runtime.froc`, what is computed from them from `bench.evaluation_figures`, pictures of
places in the scans from `bench.evaluation_pictures`; `evaluation_content` has all that as one value, which
`evaluation_page` and `evaluation_official` put into words.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.evaluation_content import Evaluation, summary
from bench.evaluation_figures import compute
from bench.evaluation_official import cad_analysis, curve_lines
from bench.evaluation_page import page
from bench.evaluation_pictures import draw_places
from bench.evaluation_places import missed, with_diameters, worst_false_positives
from bench.evaluation_plots import draw_froc
from caffe_models.atomic import replacing
from runtime.find_scans import find_scans
from runtime.froc import evaluate_marks
from runtime.mark_files import Marks, read_annotations, read_series_list, read_submission


def evaluate(
    submission: str | Path,
    annotations: str | Path,
    excluded: str | Path | None = None,
    seriesuids: str | Path | None = None,
    out_dir: str | Path | None = None,
    *,
    compare: str | Path | None = None,
    scans: Sequence[str | Path] = (),
    draws: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a submission as LUNA16 does and, with `out_dir`, write the files; see `write_evaluation`.

    Args:
        submission, annotations, excluded, seriesuids: CSV files; without the last, every scan that a file names counts.
        compare: another submission, evaluated over the same scans and compared with the first.
        scans: scan files, DICOM folders or folders of scans for pictures; only what the pictures need is read.
        draws, seed: of the bootstrap over scans that gives the 95 % intervals.
        say: called with a line of progress before each scan is read.

    Raises:
        MarksError: an input that cannot be read; nothing is written then.
        ScanError: a path of `scans` that holds no scan.
        OSError: `out_dir` cannot be written.
    """
    sources = find_scans(scans) if scans else ()
    first = read_submission(submission)
    other = None if compare is None else read_submission(compare)
    truth = read_annotations(annotations)
    ignored = None if excluded is None else read_annotations(excluded)
    listed = None if seriesuids is None else read_series_list(seriesuids)
    extra: tuple[str, ...] = ()
    if other is not None and listed is None:
        listed, extra = _named_scans(first, other, truth, ignored)
    result = evaluate_marks(first, truth, ignored, listed)
    result = replace(result, notes=(*extra, *result.notes))
    names = _names(Path(submission), None if compare is None else Path(compare))
    compared = None if other is None else evaluate_marks(other, truth, ignored, listed)
    figures = compute(result, names[0], compared, names[1], draws=draws, seed=seed)
    misses, miss_count = missed(result, figures.thresholds[-1])
    false = with_diameters(worst_false_positives(result), Path(submission))
    pictures, missing = draw_places((*false, *misses), sources, result, say) if scans else ({}, ())
    given = {
        "submission": submission,
        "compared with": compare,
        "annotations": annotations,
        "excluded findings": excluded,
        "list of scans": seriesuids,
    }
    files = {what: str(path) for what, path in given.items() if path is not None}
    evaluation = Evaluation(figures, false, misses, miss_count, files, pictures, missing)
    if out_dir is not None:
        write_evaluation(evaluation, out_dir)
    return evaluation


def write_evaluation(evaluation: Evaluation, out_dir: str | Path) -> dict[str, Path]:
    """Write the evaluation into `out_dir`, each file whole or not at all.

    Returns:
        Paths by kind: json, csv, png, text, html.

    Raises:
        OSError: the folder cannot be written.
    """
    folder, figures, result = Path(out_dir), evaluation.figures, evaluation.result
    shown = (figures.main,) if figures.comparison is None else (figures.main, figures.comparison.other)
    picture = draw_froc(shown)
    content = {
        "json": ("froc.json", (json.dumps(summary(evaluation), indent=1) + "\n").encode()),
        "csv": ("froc.csv", ("fps_per_scan,sensitivity,threshold\n" + curve_lines(result)).encode()),
        "png": ("froc.png", picture),
        "text": ("CADAnalysis.txt", cad_analysis(result, figures.main.name).encode()),
        "html": ("evaluation.html", page(evaluation, picture).encode()),
    }
    for file, data in content.values():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(data)
    return {kind: folder / file for kind, (file, _) in content.items()}


def _named_scans(first: Marks, other: Marks, truth: Marks, ignored: Marks | None) -> tuple[tuple[str, ...], tuple[str]]:
    """The scans that any file names, for two submissions without a list of scans, and a note on them."""
    files = (first, other, truth) if ignored is None else (first, other, truth, ignored)
    scans = tuple(sorted({uid for marks in files for uid in marks.seriesuid}))
    note = (
        f"no list of scans was given: the {len(scans)} scans that the files of both submissions name were counted; any "
        "other scan without marks would lower the false positives per scan"
    )
    return scans, (note,)


def _names(first: Path, other: Path | None) -> tuple[str, str]:
    """What headings call the submissions: the file's name, with its folder where both have the same."""
    if other is None:
        return first.stem, ""
    if first.stem != other.stem:
        return first.stem, other.stem
    folders = first.resolve().parent.name, other.resolve().parent.name
    if folders[0] != folders[1]:
        return f"{folders[0]}/{first.stem}", f"{folders[1]}/{other.stem}"
    return str(first), str(other)
