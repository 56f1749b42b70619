"""An evaluation as files: froc.json, froc.csv, froc.png, CADAnalysis.txt, and evaluation.html that holds it all."""

import base64
import html
import json
import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.bootstrap import bootstrap
from caffe_models.atomic import replacing
from runtime.froc import RATES, Floats, FrocResult, NoduleHit, evaluate_files

SCHEMA_VERSION = 1
RATE_LABELS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
SIZES_MM = (-math.inf, 5.0, 10.0, 20.0, math.inf)
FALSE_POSITIVES_SHOWN = 5


def evaluate(
    submission: str | Path,
    annotations: str | Path,
    excluded: str | Path | None = None,
    seriesuids: str | Path | None = None,
    out_dir: str | Path | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> FrocResult:
    """Evaluate a submission as LUNA16 does and, with `out_dir`, write the files; see `write_evaluation`.

    Raises:
        MarksError: an input that cannot be read; nothing is written then.
        OSError: `out_dir` cannot be written.
    """
    result = evaluate_files(submission, annotations, excluded, seriesuids)
    if out_dir is not None:
        write_evaluation(result, out_dir, name=Path(submission).stem, draws=draws, seed=seed)
    return result


def write_evaluation(
    result: FrocResult, out_dir: str | Path, *, name: str = "submission", draws: int = 1000, seed: int = 0
) -> dict[str, Path]:
    """Write the evaluation into `out_dir`, each file whole or not at all.

    Args:
        name: of the submission, for the headings.
        draws, seed: of the bootstrap over scans that gives the 95 % intervals.

    Returns:
        Paths by kind: json, csv, png, text, html.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(out_dir)
    bands = bootstrap(result, draws, seed)
    picture = draw_froc(result, bands, name)
    content = {
        "json": ("froc.json", (json.dumps(summary(result, bands, draws, seed), indent=1) + "\n").encode()),
        "csv": ("froc.csv", ("fps_per_scan,sensitivity,threshold\n" + curve_lines(result)).encode()),
        "png": ("froc.png", picture),
        "text": ("CADAnalysis.txt", cad_analysis(result, name).encode()),
        "html": ("evaluation.html", page(result, bands, name, picture).encode()),
    }
    for file, data in content.values():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(data)
    return {kind: folder / file for kind, (file, _) in content.items()}


def summary(result: FrocResult, bands: Floats, draws: int, seed: int) -> dict[str, Any]:
    """What froc.json holds: cpm, the sensitivity at each rate, counts, notes; null where it is undefined."""
    return {
        "schema_version": SCHEMA_VERSION,
        "cpm": _number(result.cpm),
        "cpm_95": [_number(bands[0, -1]), _number(bands[2, -1])],
        "rates": list(RATES),
        "sensitivity": [_number(v) for v in result.sensitivities],
        "sensitivity_95": [
            [_number(low), _number(high)] for low, high in zip(bands[0, :-1], bands[2, :-1], strict=True)
        ],
        "bootstrap": {"draws": draws, "seed": seed},
        "counts": result.counts,
        "unknown_series": dict(result.unknown_series),
        "notes": list(result.notes),
    }


def text_lines(result: FrocResult) -> list[str]:
    """The evaluation for a terminal: CPM, sensitivity at each rate, counts, unknown scans, notes."""
    rates = zip(RATE_LABELS, result.sensitivities, strict=True)
    lines = [f"CPM {result.cpm:.4f}", "false positives per scan   sensitivity"]
    lines += [f"{label:>24}   {value:11.4f}" for label, value in rates]
    lines += [f"{key.replace('_', ' ')}: {value}" for key, value in result.counts.items()]
    return lines + [f"note: {line}" for line in _remarks(result)]


def _remarks(result: FrocResult) -> list[str]:
    unknown = result.unknown_series.items()
    return [*result.notes, *(f"{uid}: {n} marks, not in the list of scans, not counted" for uid, n in unknown)]


def curve_lines(result: FrocResult) -> str:
    """The points of the curve as the official program writes them: false positives per scan, sensitivity, threshold."""
    points = zip(result.fps_per_scan, result.sensitivity, result.thresholds, strict=True)
    return "".join(f"{fps:.9f},{sensitivity:.9f},{threshold:.9f}\n" for fps, sensitivity, threshold in points)


def cad_analysis(result: FrocResult, name: str) -> str:
    """The counts in the official program's words and layout."""
    counts = result.counts
    sensitivity = counts["true_positives"] / counts["nodules"] if counts["nodules"] else math.nan
    stars = "*" * 60
    lines = [
        "",
        stars,
        f"CAD Analysis: {name}",
        stars,
        "",
        "Candidate detection results:",
        f"    True positives: {counts['true_positives']}",
        f"    False positives: {counts['false_positives']}",
        f"    False negatives: {counts['false_negatives']}",
        "    True negatives: 0",
        f"    Total number of candidates: {counts['candidates']}",
        f"    Total number of nodules: {counts['nodules']}",
        f"    Ignored candidates on excluded nodules: {counts['ignored_on_excluded']}",
        f"    Ignored candidates which were double detections on a nodule: {counts['doubles']}",
        f"    Sensitivity: {sensitivity:.9f}",
        f"    Average number of candidates per scan: {counts['candidates'] / counts['scans']:.9f}",
    ]
    return "\n".join(lines) + "\n"


def draw_froc(result: FrocResult, bands: Floats, name: str) -> bytes:
    """The FROC curve as PNG: rates from 1/8 to 8 on a logarithmic axis, with the 95 % interval at each rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fine = np.geomspace(RATES[0], RATES[-1], 400)
    axes.fill_between(RATES, bands[0, :-1], bands[2, :-1], color="#1f77b4", alpha=0.18, linewidth=0, label="95 %")
    axes.plot(fine, np.interp(fine, result.fps_per_scan, result.sensitivity), color="#1f77b4")
    axes.plot(RATES, result.sensitivities, "o", color="#1f77b4", label=f"CPM {result.cpm:.4f}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, RATE_LABELS)
    axes.set(xlim=(RATES[0], RATES[-1]), ylim=(0, 1), xlabel="false positives per scan", ylabel="sensitivity")
    axes.set_title(name, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    target = BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def page(result: FrocResult, bands: Floats, name: str, picture: bytes) -> str:
    """The page: one HTML text, the picture inside, no scripts, nothing fetched."""
    inline = base64.b64encode(picture).decode("ascii")
    counts = [(key.replace("_", " "), value) for key, value in result.counts.items()]
    rates = [
        (label, f"{value:.4f}", f"{low:.4f} to {high:.4f}")
        for label, value, low, high in zip(
            [*RATE_LABELS, "mean (CPM)"], [*result.sensitivities, result.cpm], bands[0], bands[2], strict=True
        )
    ]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _remarks(result))
    parts = [
        f"<h1>{html.escape(name)}: CPM {result.cpm:.4f}</h1>",
        f'<img alt="FROC curve" src="data:image/png;base64,{inline}">',
        f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
        "<h2>Sensitivity</h2>",
        _table(("false positives per scan", "sensitivity", "95 % interval"), rates),
        "<h2>Counts</h2>",
        _table(("what", "count"), counts),
        "<h2>By diameter</h2>",
        _table(("mm", "nodules", "found", "share"), _by_size(result.nodules)),
        "<h2>By scan</h2>",
        f"<p>Nodules with the probability of their best mark, then up to {FALSE_POSITIVES_SHOWN} false positives, the "
        "most probable first. Positions are x, y, z in mm.</p>",
        _scan_table(result),
    ]
    style = (
        "body{font:15px sans-serif;margin:2em auto;max-width:70em;padding:0 1em}table{border-collapse:collapse}"
        "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}"
        "td:first-child,th:first-child,td.l{text-align:left}.m{color:#b00020}img{max-width:100%}"
    )
    head = f'<meta charset="utf-8"><title>{html.escape(name)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _by_size(nodules: Sequence[NoduleHit]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for low, high in pairwise(SIZES_MM):
        own = [n for n in nodules if low <= n.diameter_mm < high]
        found = sum(n.probability is not None for n in own)
        label = (
            f"under {high:.0f}"
            if low < 0
            else f"{low:.0f} and more"
            if high == math.inf
            else f"{low:.0f} to {high:.0f}"
        )
        rows.append((label, len(own), found, f"{found / len(own):.3f}" if own else ""))
    return rows


def _scan_table(result: FrocResult) -> str:
    nodules: dict[str, list[str]] = {}
    for n in result.nodules:
        where = f"{n.diameter_mm:.1f} mm at {n.x_mm:.1f}, {n.y_mm:.1f}, {n.z_mm:.1f}"
        text = (
            f"{n.probability:.6f}: {where}" if n.probability is not None else f'<span class="m">missed: {where}</span>'
        )
        nodules.setdefault(n.seriesuid, []).append(text)
    bounds = np.searchsorted(result.false_positive_scan, np.arange(len(result.scans) + 1))
    rows = []
    for index, scan in enumerate(result.scans):
        own = slice(int(bounds[index]), int(bounds[index + 1]))
        probability, xyz = result.false_positive_probability[own], result.false_positive_xyz_mm[own]
        best = np.argsort(-probability, kind="stable")[:FALSE_POSITIVES_SHOWN]
        false = [f"{probability[i]:.6f}: {', '.join(f'{v:.1f}' for v in xyz[i])}" for i in best]
        numbers = (scan.nodules, scan.hits, scan.nodules - scan.hits, scan.false_positives, scan.ignored, scan.doubles)
        cells = "".join(f"<td>{v}</td>" for v in (html.escape(scan.seriesuid), *numbers))
        listed = "".join(f'<td class="l">{"<br>".join(v)}</td>' for v in (nodules.get(scan.seriesuid, []), false))
        rows.append(f"<tr>{cells}{listed}</tr>")
    names = ("scan", "nodules", "hits", "missed", "false positives", "ignored", "doubles", "nodules", "false positives")
    return f"<table><tr>{''.join(f'<th>{n}</th>' for n in names)}</tr>{''.join(rows)}</table>"


def _table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
