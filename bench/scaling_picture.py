"""The figures of `bench.scaling` as one picture of small panels, from its JSON alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.save_picture import save_picture
from bench.scaling_tables import best_of_net, label, of, ran, roofs

COLOURS = {"f32": "tab:blue", "bf16": "tab:green", "int8": "tab:orange"}

Figures = Mapping[str, Any]


def draw_scaling(figures: Figures, path: str | Path) -> Path:
    """Draw it as a PNG: GFLOP/s by cores, streams, window and instruction set, with the roof on all cores as a broken
    line; scans an hour; and the roof beside what the network reaches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6), layout="constrained")
    panels = figure.subplots(2, 3)
    _cores(panels[0, 0], figures)
    _line(panels[0, 1], figures, "streams", "streams x threads")
    _line(panels[0, 2], figures, "windows", "window, voxels")
    _scans(panels[1, 0], figures)
    _bars(panels[1, 1], figures)
    _roof(panels[1, 2], figures)
    for panel in panels.flat:
        panel.set_ylim(bottom=0)
        panel.grid(axis="y", alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7)
    machine = figures["machine"]
    figure.suptitle(f"{machine['cpu']}, {figures['cpus']} cores, medians of {figures['runs']} turns", fontsize=10)
    return save_picture(figure, path)


def _cores(panel: Any, figures: Figures) -> None:
    _title(panel, "cores", "cores")
    counts = sorted({row["cpus"] for row in of(figures, "cores")})
    for precision, colour in COLOURS.items():
        rows = [row for row in of(figures, "cores") if row["precision"] == precision and ran(row)]
        if rows:
            x = [row["cpus"] for row in rows]
            panel.plot(x, [row["gflop_per_s"] for row in rows], "o-", color=colour, label=precision)
            one = rows[0]["gflop_per_s"] / rows[0]["cpus"]
            panel.plot(x, [one * count for count in x], ":", color=colour, label=f"{precision}, ideal")
    panel.set_xticks(counts)
    _roof_lines(panel, figures)


def _line(panel: Any, figures: Figures, sweep: str, across: str) -> None:
    _title(panel, sweep, across)
    names = list(dict.fromkeys(label(row) for row in of(figures, sweep)))
    for precision, colour in COLOURS.items():
        rows = [row for row in of(figures, sweep) if row["precision"] == precision and ran(row)]
        if rows:
            x = [names.index(label(row)) for row in rows]
            panel.plot(x, [row["gflop_per_s"] for row in rows], "o-", color=colour, label=precision)
    panel.set_xticks(range(len(names)), names)
    if len(names) == 1:
        panel.set_xlim(-1, 1)
    _roof_lines(panel, figures)


def _scans(panel: Any, figures: Figures) -> None:
    _title(panel, "scans in a set, start-up included", "scans")
    panel.set_ylabel("scans an hour")
    rows = [row for row in figures["scans"] if ran(row)]
    if rows:
        name = rows[0]["ran_in"]
        x, y = [row["scans"] for row in rows], [row["scans_an_hour"] for row in rows]
        panel.plot(x, y, "o-", color=COLOURS.get(name, "grey"), label=name)
        panel.set_xticks(x)


def _bars(panel: Any, figures: Figures) -> None:
    _title(panel, "instruction set (oneDNN's cap)", "")
    names = list(dict.fromkeys(label(row) for row in of(figures, "isa")))
    precisions = [name for name in COLOURS if any(row["precision"] == name and ran(row) for row in of(figures, "isa"))]
    width = 0.8 / max(1, len(precisions))
    for number, precision in enumerate(precisions):
        for row in of(figures, "isa"):
            if row["precision"] == precision and ran(row):
                place = names.index(label(row)) + (number - (len(precisions) - 1) / 2) * width
                panel.bar(place, row["gflop_per_s"], width, color=COLOURS[precision])
    for place, name in enumerate(names):
        if not any(ran(row) for row in of(figures, "isa") if label(row) == name):
            panel.text(place, 0, " not here", rotation=90, ha="center", va="bottom", fontsize=7, color="grey")
    panel.set_xlim(-0.6, max(1, len(names)) - 0.4)
    panel.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=6)
    _roof_lines(panel, figures)


def _roof(panel: Any, figures: Figures) -> None:
    _title(panel, "the roof, and the network at its best", "")
    tops = roofs(figures)
    for place, (precision, top) in enumerate(tops.items()):
        panel.bar(place, top, 0.8, color="lightgrey", edgecolor="grey")
        net = best_of_net(figures, precision)
        if net is not None:
            panel.bar(place, net["gflop_per_s"], 0.6, color=COLOURS[precision])
            panel.text(place, top, f"{net['gflop_per_s'] / top:.0%}", ha="center", va="bottom", fontsize=8)
    panel.set_xticks(range(len(tops)), list(tops))
    panel.margins(y=0.15)


def _roof_lines(panel: Any, figures: Figures) -> None:
    for precision, top in roofs(figures).items():
        panel.axhline(top, color=COLOURS[precision], linestyle="--", linewidth=0.8)


def _title(panel: Any, title: str, across: str) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(across, fontsize=8)
    panel.set_ylabel("GFLOP/s", fontsize=8)
    panel.tick_params(labelsize=7)
