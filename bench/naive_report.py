"""What `bench.naive` measured, as text, as Markdown and as a picture: all from its JSON alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.naive import BOXED, CLASSIC, MONAI, MONAI_NETWORK, NETWORK, PREPROCESSING
from bench.save_picture import save_picture
from runtime.budget import format_memory

PARTS = (PREPROCESSING, NETWORK, MONAI_NETWORK)
COLOURS = {CLASSIC: "tab:gray", BOXED: "tab:gray", MONAI: "tab:orange"}
OURS_COLOUR = "tab:blue"


def table(figures: Mapping[str, Any]) -> str:
    """A line for each part and each whole; what was extrapolated, and why something is missing."""
    lines = [
        f"machine   {Machine(**figures['machine']).line()}",
        f"scan      {figures['scan']}, {figures['cpus']} cores, tiles of {figures['tile']} voxels, medians of "
        f"{figures['runs']} round{'' if figures['runs'] == 1 else 's'}, in which all take turns",
        "",
        f"{'':<28}{'median':>10}{'least - most':>22}{'memory':>10}{'faster':>9}  how",
    ]
    for row in figures["rows"]:
        name = f"  {row['name']}" if row["name"] in PARTS else row["name"]
        if row["status"] != "ran":
            lines.append(f"{name:<28}{'-':>10}{'-':>22}{'-':>10}{'-':>9}  {row['message']}")
            continue
        spread = f"{row['least_s']:.1f} - {row['most_s']:.1f} s"
        peak = format_memory(row["peak_rss_bytes"]) if "peak_rss_bytes" in row else ""
        faster = times(row["times_faster"]) if "times_faster" in row else ""
        lines.append(f"{name:<28}{row['median_s']:>8.1f} s{spread:>22}{peak:>10}{faster:>9}  {how(row)}")
    return "\n".join([*lines, "", *_notes(figures)])


def markdown(figures: Mapping[str, Any]) -> str:
    """A table for `bench/RESULTS.md`, and a line that explains it."""
    lines = ["| from file to findings | seconds | least - most | times faster | how |", "|---|---|---|---|---|"]
    for row in figures["rows"]:
        name = f"{row['name']}" if row["name"] in PARTS else f"**{row['name']}**"
        if row["status"] != "ran":
            lines.append(f"| {name} | - | - | - | {row['message'].replace('|', '/')} |")
            continue
        faster = times(row["times_faster"]) if "times_faster" in row else ""
        spread = f"{row['least_s']:.1f} - {row['most_s']:.1f}"
        lines.append(f"| {name} | {row['median_s']:.1f} | {spread} | {faster} | {how(row)} |")
    return "\n".join([*lines, "", f"{figures['scan']}, {figures['cpus']} cores. " + " ".join(_notes(figures)), ""])


def draw_naive(figures: Mapping[str, Any], out: Path) -> Path:
    """A bar for each whole on a logarithmic axis, with its seconds and how many times faster it is; a PNG."""
    from matplotlib.figure import Figure

    rows = [row for row in figures["rows"] if row["status"] == "ran" and row["name"] not in PARTS]
    figure = Figure(figsize=(8, 1.4 + 0.5 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    names = [row["name"] for row in rows]
    seconds = [row["median_s"] for row in rows]
    axes.barh(names, seconds, color=[COLOURS.get(name, OURS_COLOUR) for name in names], height=0.65)
    for number, row in enumerate(rows):
        faster = f"   {times(row['times_faster'])} as fast" if "times_faster" in row and row["name"] != CLASSIC else ""
        text = f"{row['median_s']:.1f} s{faster}"
        axes.annotate(text, (row["median_s"], number), (5, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    if seconds:
        axes.set_xlim(min(seconds) / 2, max(seconds) * 6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds for one scan (log)")
    axes.set_title(f"{figures['scan'][-40:]}, {figures['cpus']} cores", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return save_picture(figure, out)


def times(factor: float) -> str:
    """0.62 -> 0.62x, 5.3 -> 5.3x, 61.7 -> 62x."""
    return f"{factor:.2f}x" if factor < 1 else f"{factor:.1f}x" if factor < 10 else f"{factor:.0f}x"


def how(row: Mapping[str, Any]) -> str:
    """How a row came about, in a few words."""
    if row["name"] == PREPROCESSING:
        return "run once: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["stages"].items())
    if row["name"].startswith("rpn3d"):
        windows = row.get("windows", "?")
        return f"file to CSV, ran in {row['precision']}, {windows} window{'' if windows == 1 else 's'}"
    what = "windows" if row["name"] in (MONAI, MONAI_NETWORK) else "tiles"
    if row["timed"] == row["tiles"]:
        text = f"all {row['tiles']} {what} timed"
    else:
        text = f"extrapolated from {row['timed']} of {row['tiles']} {what}"
        if row["name"] == BOXED:
            text = f"{row['tiles']} {what}, extrapolated from {row['timed']}"
    return f"{text}, our pre-processing" if row["name"] == MONAI else text


def _notes(figures: Mapping[str, Any]) -> list[str]:
    classic, monai = (format(figures["overlaps"][name], ".0%") for name in ("classic", "MONAI"))
    return [
        f"Classic: a plain rebuild of the 2017 pre-processing, then eager PyTorch float32 on tiles of {figures['tile']}"
        f" voxels at {classic} overlap over the whole scan at 1 mm, one at a time.",
        f"MONAI: its sliding-window inferer ({monai} overlap, its default) with the same network over our working "
        "volume, which is cropped to the lungs.",
        "Neither is charged for decoding and writing; rpn3d runs from file to CSV with a model that is loaded already.",
        "Times faster are medians of this one run.",
    ]
