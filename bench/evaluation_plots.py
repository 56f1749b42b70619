"""FROC curves as PNG: rates from 1/8 to 8 on a logarithmic axis."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from bench.evaluation_content import RATE_LABELS
from bench.evaluation_figures import CURVE_RATES, Certain, Group
from runtime.froc import RATES

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#a6761d", "#666666")


def draw_froc(submissions: Sequence[Certain]) -> bytes:
    """The curve of each submission with its 95 % band, and a dot at each of the seven rates."""
    figure, axes = _axes((7, 5))
    for one, colour in zip(submissions, COLOURS, strict=False):
        result = one.result
        name = f"{one.name}: " if len(submissions) > 1 else ""
        axes.fill_between(CURVE_RATES, one.band[0], one.band[2], color=colour, alpha=0.18, linewidth=0)
        axes.plot(CURVE_RATES, np.interp(CURVE_RATES, result.fps_per_scan, result.sensitivity), color=colour)
        label = _plain(f"{name}CPM {result.cpm:.4f}, band 95 %")
        axes.plot(RATES, result.sensitivities, "o", color=colour, label=label)
    if len(submissions) == 1:
        axes.set_title(submissions[0].name, parse_math=False)
    axes.legend(loc="lower right")
    return _png(figure)


def draw_groups(groups: Sequence[Group], title: str) -> bytes:
    """The curve of each class that has a nodule; classes that are sums of others are left out."""
    figure, axes = _axes((6, 4))
    for place, group in enumerate(group for group in groups if not group.overlaps and group.nodules):
        colour, dashes = COLOURS[place % len(COLOURS)], ("-", "--", ":")[place // len(COLOURS) % 3]
        label = _plain(f"{group.label} ({group.nodules})")
        values = np.interp(CURVE_RATES, group.fps_per_scan, group.curve)
        axes.plot(CURVE_RATES, values, color=colour, linestyle=dashes, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=9, title=title)
    return _png(figure)


def _axes(inches: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, usable from threads
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, RATE_LABELS)
    axes.set(xlim=(RATES[0], RATES[-1]), ylim=(-0.02, 1.02), xlabel="false positives per scan", ylabel="sensitivity")
    axes.grid(alpha=0.3)
    return figure, axes


def _plain(text: str) -> str:
    """A label as it stands: "$" would begin mathematics, and a leading "_" hides a label from the legend."""
    return text.replace("$", r"\$").lstrip("_")


def _png(figure: Any) -> bytes:
    target = BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
