"""The figures of `rpn3d bench train` for people, from its JSON alone: Markdown, a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.save_picture import save_picture
from runtime.budget import format_memory


def markdown(figures: Mapping[str, Any]) -> str:
    """A table with a line for each loop, and what it is held against."""
    lines = [
        f"Crops a second of a training step, {figures['threads']} threads, on {figures['data']}; medians of "
        f"{figures['steps']} steps that take turns, after {figures['warmup']}. The plain loop is eager PyTorch on "
        "the same net, with no data to read and its targets ready. Ratio: ours by plain. Waits: the share of a step "
        "between asking for a batch and having it.",
        "",
        "| crop | batch | in | loop | crops a second | step | least - most | waits | memory | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        for number, one in enumerate(row["loops"]):
            ratio = f"{row['ratio']:.3f}" if number == 0 else ""
            lines.append(
                f"| {row['crop']} | {row['batch']} | {row['precision']} | {one['loop']} | {one['crops_per_s']:.2f} "
                f"| {one['median_s']:.3f} s | {one['least_s']:.3f} - {one['most_s']:.3f} | {one['wait_share']:.1%} "
                f"| {format_memory(one['peak_rss_bytes'])} | {ratio} |"
            )
    return "\n".join([*lines, *(["", figures["left_out"]] if figures["left_out"] else [])])


def draw_train(figures: Mapping[str, Any], path: Path | str) -> Path:
    """Millions of voxels a second of each loop, in groups of one crop size and precision."""
    from matplotlib.figure import Figure

    rows = figures["rows"]
    names = list(dict.fromkeys(one["loop"] for row in rows for one in row["loops"]))
    figure = Figure(figsize=(8, 0.7 + 0.6 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        found = [(k, row["crop"], one) for k, row in enumerate(rows) for one in row["loops"] if one["loop"] == name]
        axes.barh(
            [k + (number - (len(names) - 1) / 2) * height for k, _, _ in found],
            [one["crops_per_s"] * crop**3 / 1e6 for _, crop, one in found],
            height,
            label=name,
        )
    axes.set_yticks(range(len(rows)), [f"crop {row['crop']}, {row['precision']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("million voxels a second, forward, backward and update")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return save_picture(figure, path)
