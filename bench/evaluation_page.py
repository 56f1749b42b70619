"""The page of an evaluation: one HTML text with its pictures inside; no scripts, nothing fetched."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from bench.evaluation_content import RATE_LABELS, Evaluation
from bench.evaluation_distances import BESIDE_MM, by_distance
from bench.evaluation_figures import OPERATING_RATES, Comparison, Figures, Group
from bench.evaluation_places import Place
from bench.evaluation_plots import draw_groups
from bench.evaluation_probabilities import by_probability
from runtime.froc import RATES, Floats, FrocResult

FALSE_POSITIVES_SHOWN = 5
MISS_RATE = OPERATING_RATES[-1]

STYLE = """
body{font:15px/1.4 sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#1a1a1a}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #bbb}.big{font-size:1.9em;margin:.2em 0}
table{border-collapse:collapse;margin:.8em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}
td:first-child,th:first-child,td.l{text-align:left}th{font-weight:600}.m{color:#b00020}.s{color:#555}
img{max-width:100%}figure{display:inline-block;margin:.5em .8em .8em 0;vertical-align:top;max-width:676px}
figcaption{font-size:.9em;overflow-wrap:anywhere}.wide{overflow-x:auto;font-size:.85em}
@media print{figure,tr{break-inside:avoid}}
"""


def page(evaluation: Evaluation, picture: bytes) -> str:
    """The page; `picture` is the plot of the FROC curves as PNG."""
    figures, result = evaluation.figures, evaluation.result
    name = html.escape(figures.main.name)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in evaluation.notes)
    body = [
        f"<h1>Lung nodule detection: {name}</h1>",
        _headline(figures),
        _image(picture, "FROC curve"),
        f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
        "<h2>Sensitivity</h2>",
        _table(("false positives per scan", "sensitivity", "95 % interval"), _rates(figures)),
        _reach(result),
        _probabilities(result),
        _compared(figures.comparison),
        _groups(figures, "diameter", "diameter in mm", figures.by_diameter),
        _groups(figures, "texture", "texture", figures.by_texture),
        _groups(figures, "place", "place", figures.by_place),
        _distances(result, figures.thresholds[-1]),
        _misses(evaluation),
        _false_positives(evaluation),
        "<h2>By scan</h2>",
        f"<p>Nodules with the probability of their best mark, then up to {FALSE_POSITIVES_SHOWN} false positives, the "
        "most probable first. Positions are x, y, z in mm.</p>",
        f'<div class="wide">{_scan_table(result)}</div>',
        "<h2>Counts</h2>",
        _table(("what", "count"), [(key.replace("_", " "), value) for key, value in result.counts.items()]),
        "<h2>How this was made</h2>",
        _method(figures),
        _table(("read as", "file"), evaluation.files.items()),
    ]
    head = f'<meta charset="utf-8"><title>{name}: CPM {result.cpm:.4f}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{_lines(body)}\n</body></html>\n'


def _headline(figures: Figures) -> str:
    result = figures.main.result
    counts = result.counts
    marks = f"{counts['candidates']} marks ({counts['candidates'] / counts['scans']:.1f} per scan)"
    return (
        f'<p class="big">CPM {result.cpm:.4f} <span class="s">(95 % {_interval(figures.main.at_rates, -1)})</span></p>'
        f"<p>{counts['scans']} scans, {counts['nodules']} nodules, {marks}. CPM is the mean of the sensitivities at "
        "the seven rates of false positives below.</p>"
    )


def _rates(figures: Figures) -> list[tuple[str, ...]]:
    result = figures.main.result
    labels, values = [*RATE_LABELS, "mean (CPM)"], [*result.sensitivities, result.cpm]
    return [
        (label, f"{value:.4f}", _interval(figures.main.at_rates, k))
        for k, (label, value) in enumerate(zip(labels, values, strict=True))
    ]


def _reach(result: FrocResult) -> str:
    """What the rates beyond the last mark mean, if there are any."""
    last = len(result.false_positive_probability) / len(result.scans)
    if last >= RATES[-1]:
        return ""
    return (
        f"<p>All marks together are {last:.2f} false positives per scan; at higher rates the sensitivity stays as it "
        "is there.</p>"
    )


def _probabilities(result: FrocResult) -> str:
    rows = by_probability(result)
    if not rows:
        return ""
    upper = [f"below {row.probability:g}" for row in rows[1:]] + ["1"]
    cells = [
        (
            f"{row.probability:g}",
            f"{row.fps_per_scan:.2f}",
            *("" if math.isnan(v) else f"{v:.3f}" for v in (row.sensitivity, row.sensitivity_large)),
            f"{row.probability:g} to {to}",
            row.marks,
            f"{row.share:.3f}" if row.marks else "",
        )
        for row, to in zip(rows, upper, strict=True)
    ]
    columns = ("marks of", "false positives per scan", "found", "of 6 mm and more", "marks from", "count", "on nodules")
    return _lines(
        [
            "<h2>By probability</h2>",
            "<p>Left: what is found if marks of this probability and more count. Right: how many of the marks about it "
            "are on nodules; where probabilities mean what they say, that is between the two. A nodule's marks after "
            "the best, and those on excluded findings, count neither way.</p>",
            _table(columns, cells),
        ]
    )


def _compared(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    other, points = comparison.other, comparison.interval
    values = [*other.result.sensitivities, other.result.cpm]
    rows = [
        (label, f"{value:.4f}", _interval(other.at_rates, k), _plus(comparison.difference[k]), _signed(points, k))
        for k, (label, value) in enumerate(zip([*RATE_LABELS, "mean (CPM)"], values, strict=True))
    ]
    low, high = points[0, -1], points[2, -1]
    if math.isnan(low):
        verdict = "No nodule is annotated, so nothing can be compared."
    elif low > 0:
        verdict = "The interval lies above 0: the first is better."
    elif high < 0:
        verdict = "The interval lies below 0: the other is better."
    else:
        verdict = "The interval holds 0: these scans do not tell the two apart."
    columns = ("false positives per scan", "sensitivity of the other", "95 % interval", "difference", "95 % interval")
    return _lines(
        [
            f"<h2>Compared with {html.escape(other.name)}</h2>",
            f"<p>Difference in CPM, this submission less the other: <b>{_plus(comparison.difference[-1])}</b> "
            f"(95 % {_signed(points, 7)}). {verdict}</p>",
            _table(columns, rows),
            f"<p>Nodules found at {MISS_RATE:g} false positives per scan, each submission by its own threshold:</p>",
            _table(("by", "nodules"), comparison.found.items()),
        ]
    )


def _groups(figures: Figures, what: str, title: str, groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    columns = [title, "nodules", "found at all", "share"]
    columns += [name for rate in OPERATING_RATES for name in (f"at {rate:g} FP/scan", "95 % interval")]
    rows: list[list[object]] = []
    for group in groups:
        row: list[object] = [group.label, group.nodules, group.found]
        row.append(f"{group.found / group.nodules:.3f}" if group.nodules else "")
        for k, value in enumerate(group.sensitivity):
            row += [f"{value:.3f}", _interval(group.interval, k, 3)] if group.nodules else ["", ""]
        rows.append(row)
    at = [f"{_probability(t)} for {rate:g}" for t, rate in zip(figures.thresholds, OPERATING_RATES, strict=True)]
    return _lines(
        [
            f"<h2>By {what}</h2>",
            _image(draw_groups(groups, title), f"FROC curves by {what}") if any(g.nodules for g in groups) else "",
            "<p>Hits of each class against the false positives of the whole set; in brackets the nodules of the class. "
            f"The thresholds are those of the whole set: probability {', '.join(at)} false positives per scan.</p>",
            _table(columns, rows),
        ]
    )


def _distances(result: FrocResult, threshold: float) -> str:
    rows = by_distance(result, threshold)
    if not any(row.hit or row.beside for row in rows):
        return ""
    cells = [
        (row.label, row.hit, *("" if math.isnan(v) else f"{v:.2f}" for v in (row.median_mm, row.ninety_mm)), row.beside)
        for row in rows
    ]
    columns = (
        "diameter in mm",
        "nodules hit",
        "median distance, mm",
        "nine in ten within, mm",
        "missed, a mark beside",
    )
    return _lines(
        [
            "<h2>Distance from the centre</h2>",
            f"<p>Of the most probable mark of each nodule, at {MISS_RATE:g} false positives per scan. The last column "
            f"counts nodules that no mark hit, while a false positive lies within {BESIDE_MM:g} mm of their surface: "
            "what is wrong is its place.</p>",
            _table(columns, cells),
        ]
    )


def _misses(evaluation: Evaluation) -> str:
    threshold, shown = evaluation.figures.thresholds[-1], len(evaluation.misses)
    if not evaluation.misses:
        return f"<h2>Misses</h2><p>No nodule is missed at {MISS_RATE:g} false positives per scan.</p>"
    which = "All" if shown == evaluation.miss_count else f"The largest {shown}"
    text = (
        f"Nodules without a mark of at least {_probability(threshold)}, the threshold that gives {MISS_RATE:g} false "
        f"positives per scan: {evaluation.miss_count}. {which} are shown, the largest first."
    )
    return _places("Misses", text, evaluation.misses, evaluation)


def _false_positives(evaluation: Evaluation) -> str:
    if not evaluation.false_positives:
        return "<h2>Worst false positives</h2><p>There is no false positive.</p>"
    text = f"The {len(evaluation.false_positives)} most probable of all scans."
    return _places("Worst false positives", text, evaluation.false_positives, evaluation)


def _places(title: str, text: str, places: Sequence[Place], evaluation: Evaluation) -> str:
    pictures = evaluation.pictures
    if any(place in pictures for place in places):
        text += (
            " Yellow: the place, as wide as its diameter where that is known, else four ticks; green: other nodules "
            "that the plane cuts. The patient's right is at the left, the head up."
        )
    elif not evaluation.picture_notes:
        text += " With <code>--scans</code> the page shows them."
    figures = [
        f"<figure>{_image(pictures[place], 'axial, coronal, sagittal')}<br><figcaption>{number}. {_caption(place)}"
        "</figcaption></figure>"
        for number, place in enumerate(places, start=1)
        if place in pictures
    ]
    rest = [(number, *_cells(place)) for number, place in enumerate(places, start=1) if place not in pictures]
    columns = ("", "what", "x, y, z mm", "diameter mm", "type", "probability", "scan")
    table = f'<div class="wide">{_table(columns, rest)}</div>' if rest else ""
    return _lines([f"<h2>{title}</h2>", f"<p>{text}</p>", *figures, table])


def _cells(place: Place) -> tuple[str, ...]:
    return (
        place.why,
        f"{place.x_mm:.1f}, {place.y_mm:.1f}, {place.z_mm:.1f}",
        "" if place.diameter_mm is None else f"{place.diameter_mm:.1f}",
        place.type.replace(";", ", "),
        "" if place.probability is None else f"{place.probability:.6f}",
        place.seriesuid,
    )


def _caption(place: Place) -> str:
    why, where, diameter, kind, probability, uid = _cells(place)
    parts = [f"{why}; {where} mm", diameter and f"diameter {diameter} mm", kind]
    parts.append(probability and f"probability {probability}")
    return f'{html.escape("; ".join(filter(None, parts)))}<br><span class="s">{html.escape(uid)}</span>'


def _method(figures: Figures) -> str:
    return (
        "<p>LUNA16's rules: a mark hits a nodule when it lies nearer to its centre than half the diameter; marks on "
        "excluded findings are ignored; of each scan the 100 most probable marks count. Intervals and the band are the "
        f"2.5 % and 97.5 % points of {figures.draws} bootstrap draws of scans (seed {figures.seed}); those of classes "
        "hold the thresholds, those of a difference use the same draws for both submissions.</p>"
    )


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
    return f"<table><tr>{''.join(f'<th>{n}</th>' for n in names)}</tr>{_lines(rows)}</table>"


def _table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{_lines(body)}</table>"


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _interval(points: Floats, column: int, decimals: int = 4) -> str:
    low, high = points[0, column], points[2, column]
    return "undefined" if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"


def _signed(points: Floats, column: int) -> str:
    low, high = points[0, column], points[2, column]
    return "undefined" if math.isnan(low) else f"{_plus(low)} to {_plus(high)}"


def _plus(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # + 0.0: no "-0.0000"


def _probability(threshold: float) -> str:
    return f"{threshold:.6f}" if math.isfinite(threshold) else "more than any mark has"


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
