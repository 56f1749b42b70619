"""The figures of `rpn3d bench engines` for people, from its JSON alone: text, Markdown, a picture."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.save_picture import save_picture
from caffe_models.net_table_text import short
from convert.parity import TOLERANCE

AGAINST = ("torch f32", "onnxruntime f32")
"""Engines that Markdown names ratios to."""


def table(result: Mapping[str, Any]) -> str:
    """The JSON's figures as text: a line for each engine; what went wrong in the importer's own words."""
    shapes = ", ".join(f"{blob} {'x'.join(map(str, shape))}" for blob, shape in result["inputs"].items())
    machine, packages = result["machine"], result["machine"]["packages"]
    lines = [
        f"machine  {machine['cpu']}, {machine['usable_cpus']} usable threads, Python {machine['python']}, "
        f"rpn3d {packages.get('rpn3d', 'source')}",
        f"net      {short(result['net'], 108)}",
        f"inputs   {short(shapes, 108)}",
        f"work     {result['multiply_adds'] / 1e9:.3g} G multiply-adds, {result['threads']} threads, medians of "
        f"{result['runs']} runs in {result.get('rounds', 1)} rounds",
        "",
        f"{'engine':<31}{'version':<9}{'ran in':<7}{'median':>10}{'least - most':>20}{'GFLOP/s':>8}{'off by':>9}"
        "  verdict",
    ]
    for row in result["engines"]:
        start = f"{row['engine']:<31}{(row.get('version') or '-')[:8]:<9}{row.get('precision') or '-':<7}"
        if row["status"] == "ran":
            off = f"{row['relative']:.1e}" if row.get("relative") is not None else "-"
            spread = f"{_time(row['least_s'])} - {_time(row['most_s'])}"
            start += f"{_time(row['median_s']):>10}{spread:>20}{row['gflop_per_s']:>8.1f}{off:>9}"
        else:
            start += f"{'-':>10}{'-':>20}{'-':>8}{'-':>9}"
        lines.append(f"{start}  {row['verdict']}")
        lines += [f"    {_brief(row['message'])}"] if row.get("message") else []
    lines += _bound_lines(result)
    lines += ["", "off by: largest difference from torch f32, relative to the largest magnitude of that output;"]
    lines.append(
        f"allowed are {TOLERANCE['f32']:g} in f32, {TOLERANCE['bf16']:g} in bf16, {TOLERANCE['int8']:g} in int8. "
        "2 FLOP a multiply-add."
    )
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """A table of the engines that ran, with ratios; lines for the others; the bound."""
    rows = result["engines"]
    ran = [row for row in rows if row["status"] == "ran"]
    medians = {row["engine"]: row["median_s"] for row in ran}
    against = [name for name in AGAINST if name in medians]
    shapes = ", ".join(f"{blob} {'x'.join(map(str, shape))}" for blob, shape in result["inputs"].items())
    lines = [
        f"`{result['net']}` on {result.get('inputs_are') or 'the arrays given'} ({shapes}), "
        f"{result['threads']} threads; medians of {result['runs']} runs, engines taking turns. Off by: the largest "
        "difference from torch f32 against the largest magnitude.",
        "",
        "| engine | ran in | seconds | least to most | M voxels a second | off by | "
        + "".join(f"times {name} | " for name in against),
        "|---|---|---|---|---|---|" + "---|" * len(against),
    ]
    for row in ran:
        off = f"{row['relative']:.1e}" if row.get("relative") is not None else ""
        ratios = "".join(f"{medians[name] / row['median_s']:.2f} | " for name in against)
        wrong = " (**silently wrong**)" if row["verdict"] == "silently wrong" else ""
        emulated = ", emulated" if row.get("emulated") else ""
        lines.append(
            f"| {row['engine']}{wrong} | {row['precision']}{emulated} | {_time(row['median_s'])} | "
            f"{_time(row['least_s'])} to {_time(row['most_s'])} | {row['voxels_per_s'] / 1e6:.3g} | {off} | {ratios}"
        )
    lines.append("")
    for row in rows:
        if row["status"] != "ran":
            lines.append(f"- {row['engine']}: {row['verdict']}: {_brief(row.get('message') or '')}")
    if result.get("bound"):
        lines += ["", "OpenVINO's own `benchmark_app` on the same model, shapes and cores, as the bound:", ""]
        lines += [f"- {line}" for line in _bound_lines(result) if line]
    return "\n".join(lines)


def draw_engines(result: Mapping[str, Any], path: str | Path) -> Path:
    """Voxels a second of each engine as bars, the best bound of each precision as a line."""
    from matplotlib.figure import Figure

    ran = [row for row in result["engines"] if row["status"] == "ran"]
    colours = {"f32": "C0", "bf16": "C1", "int8": "C2"}
    figure = Figure(figsize=(7, 1.2 + 0.3 * max(1, len(ran))))
    axes = figure.subplots()
    for place, row in enumerate(ran):
        speed = row["voxels_per_s"] / 1e6
        wrong = row["verdict"] == "silently wrong"
        axes.barh(place, speed, color="0.8" if wrong else colours.get(row["precision"], "C3"), height=0.7)
        note = ", silently wrong" if wrong else ", emulated" if row.get("emulated") else ""
        axes.text(speed, place, f" {speed:.3g}{note}", va="center", fontsize=7)
    for precision, share in (result.get("share_of_bound") or {}).items():
        best = share["bound_voxels_per_s"] / 1e6
        axes.axvline(best, color=colours.get(precision, "C3"), linestyle=":", label=f"benchmark_app {precision}")
    for precision in dict.fromkeys(row["precision"] for row in ran):
        axes.barh(0, 0, color=colours.get(precision, "C3"), label=precision)
    axes.set_yticks(range(len(ran)), [row["engine"] for row in ran], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"M voxels a second, {result['threads']} threads")
    axes.legend(fontsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    return save_picture(figure, path, dpi=100)


def _bound_lines(result: Mapping[str, Any]) -> list[str]:
    rows = result.get("bound") or []
    lines = [""] if rows else []
    for row in rows:
        if row["status"] == "ran":
            lines.append(
                f"{row['engine']}: {row['voxels_per_s'] / 1e6:.3g} M voxels a second, "
                f"latency {_time(row['latency_s'])} ({row['iterations']} inferences)"
            )
        else:
            lines.append(f"{row['engine']}: {row['status']}: {_brief(row.get('message') or '')}")
    for precision, share in (result.get("share_of_bound") or {}).items():
        lines.append(f"{share['engine']} reaches {share['share']:.0%} of the bound in {precision} ({share['bound']})")
    return lines


def _time(seconds: float) -> str:
    """1.23 s, 45.6 ms or 78.9 us."""
    factor, unit = (1.0, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * factor:.3g} {unit}"


def _brief(message: str, width: int = 112) -> str:
    """A library's message without the folders it was built in and OpenCV's error numbers, cut to `width`."""
    text = re.sub(r"/[^\s:]*/", "", message)
    text = re.sub(r"^OpenCV\([^)]*\) (\S+) error: \([^)]*\) ", r"\1 ", text)
    return text if len(text) <= width else f"{text[: width - 1]}…"
