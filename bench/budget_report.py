"""What `bench_budget` measured as text, as Markdown and as a picture; all from its JSON alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.save_picture import save_picture
from runtime.budget import format_memory

COLOURS = {"f32": "tab:blue", "bf16": "tab:orange", "int8": "tab:green"}

Figures = Mapping[str, Any]

EXTRAPOLATION = (
    "n scans are taken to need start + n x each; each is from one result to the next, or, where a cell had one scan "
    "alone, the sum of its stages, which a set overlaps"
)


def answers(figures: Figures) -> list[str]:
    """A sentence for each number of cores: whether the scans asked for fit into the time; nothing if nobody asked.

    Of the cells that fit, the one with the least memory is named, of these the fastest.
    """
    asked = figures["asked"]
    if asked is None:
        return []
    count, within = asked["scans"], asked["within_s"]
    lines = []
    for cpus in _cores(figures):
        rows = [row for row in figures["rows"] if row["cpus"] == cpus and row["status"] == "completed"]
        timed = [(row["start_s"] + count * row["each_s"], row) for row in rows]
        fitting = [(row["memory_bytes"], seconds, row) for seconds, row in timed if seconds <= within]
        question = f"{count} scan{'s' * (count != 1)} in {duration(within)} on {_of_cores(cpus)}"
        if fitting:
            _, seconds, row = min(fitting, key=lambda each: each[:2])
            lines.append(f"{question}: yes, with {row['precision']} at {row['memory']} ({duration(seconds)})")
        elif timed:
            seconds, row = min(timed, key=lambda each: each[0])
            cell = f"{row['precision']} at {row['memory']}"
            lines.append(f"{question}: no: the fastest cell needs {duration(seconds)} ({cell})")
        else:
            lines.append(f"{question}: no: no cell completed")
    return lines


def duration(seconds: float) -> str:
    """Seconds as people say them: 90 seconds, 41 minutes."""
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    return f"{minutes:.1f} minutes" if minutes < 10 and round(minutes, 1) % 1 else f"{minutes:.0f} minutes"


def table(figures: Figures) -> str:
    """The JSON's figures as text: a line for each cell."""
    lines = [
        f"machine   {Machine(**figures['machine']).line()}",
        f"command   {' '.join(figures['command'])}",
        f"rounds    {figures['rounds']}; {EXTRAPOLATION}",
        "",
        f"{'cores':<6}{'memory':<8}{'asked':<7}{'ran':<6}{'windows':>8}{'start':>9}{'each':>9}{'scans/h':>9}"
        f"{'cores busy':>12}{'peak':>10}  held by",
    ]
    for row in figures["rows"]:
        head = f"{row['cpus']:<6}{row['memory']:<8}{row['precision']:<7}"
        if row["status"] != "completed":
            lines.append(f"{head}{row['status']}: {row['message']}")
            continue
        lines.append(
            f"{head}{row['ran']:<6}{row['windows']:>8}{row['start_s']:>7.1f} s{row['each_s']:>7.1f} s"
            f"{row['scans_an_hour']:>9.0f}{row['busy_share']:>12.0%}{format_memory(row['peak_rss_bytes']):>10}"
            f"  {row['held_by']}"
        )
    lines += [figures["left_out"]] if figures["left_out"] else []
    said = answers(figures)
    return "\n".join([*lines, *(["", *said] if said else [])])


def markdown(figures: Figures) -> str:
    """For RESULTS.md: scans an hour, a row for each number of cores and memory, a column for each precision."""
    precisions = _precisions(figures)
    found = {(row["cpus"], row["memory"], row["precision"]): row for row in figures["rows"]}
    lines = [
        f"| cores | memory | {' | '.join(f'{name}, scans an hour' for name in precisions)} |",
        "|---|---|" + "---|" * len(precisions),
    ]
    for cpus in _cores(figures):
        for memory in _memory(figures):
            cells = [_words(found.get((cpus, memory, name))) for name in precisions]
            lines.append(f"| {cpus} | {memory} | {' | '.join(cells)} |")
    held = sorted({row["held_by"] for row in figures["rows"] if row["held_by"] != "nothing"})
    lines += ["", f"Each cell a process of its own, its memory held by a {' or a '.join(held) or 'limit of its own'}; "]
    lines[-1] += f"in brackets peak memory and windows; {EXTRAPOLATION}."
    lines += [f"{figures['left_out']}."] if figures["left_out"] else []
    said = answers(figures)
    return "\n".join([*lines, *(["", *(f"- {line}" for line in said)] if said else [])]) + "\n"


def draw_budget(figures: Figures, path: str | Path) -> Path:
    """Bars of scans an hour by memory, a colour for each precision, a panel for each number of cores, as a PNG."""
    from matplotlib.figure import Figure

    cores, memory, precisions = _cores(figures), _memory(figures), _precisions(figures)
    figure = Figure(figsize=(1.2 + 1.3 * len(memory) * len(cores) + 1.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(cores), sharey=True, squeeze=False)[0]
    width = 0.8 / len(precisions)
    top = max((row.get("scans_an_hour", 0.0) for row in figures["rows"]), default=0.0) or 1.0
    for panel, cpus in zip(panels, cores, strict=True):
        for row in (row for row in figures["rows"] if row["cpus"] == cpus):
            place = memory.index(row["memory"]) + (precisions.index(row["precision"]) + 0.5) * width - 0.4
            colour = COLOURS[row["precision"]]
            if row["status"] == "completed":
                panel.bar(place, row["scans_an_hour"], width * 0.94, color=colour)
                text, size, turned = f"{row['scans_an_hour']:.0f}", 8, 0
            else:
                text, size, turned = f"{row['precision']} {row['status']}", 8, 90
            height = row.get("scans_an_hour", 0.0) + 0.01 * top
            panel.text(place, height, text, ha="center", va="bottom", fontsize=size, rotation=turned, color="black")
        panel.set_title(_of_cores(cpus), fontsize=10)
        panel.set_xticks(range(len(memory)), memory)
        panel.set_xlim(-0.5, len(memory) - 0.5)
        panel.set_ylim(0, 1.12 * top)
        panel.set_xlabel("memory")
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    if figures["asked"] is not None:
        rate = 3600 * figures["asked"]["scans"] / figures["asked"]["within_s"]
        for panel in panels:
            panel.axhline(rate, color="black", linewidth=0.9, linestyle="--")
            panel.set_ylim(0, 1.12 * max(top, rate))
        panels[0].text(-0.47, rate, f"asked for: {rate:.0f}", fontsize=8, va="bottom")
    panels[0].set_ylabel("scans an hour")
    handles = [panels[-1].bar(0, 0, color=COLOURS[name], label=name) for name in precisions]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return save_picture(figure, path, dpi=100)


def _words(row: Figures | None) -> str:
    if row is None:
        return "-"
    if row["status"] != "completed":
        return str(row["status"])
    windows = f"{row['windows']} window{'s' * (row['windows'] != 1)}"
    return f"{row['scans_an_hour']:.0f} ({format_memory(row['peak_rss_bytes'])}, {windows})"


def _of_cores(cpus: int) -> str:
    return f"{cpus} core{'s' * (cpus != 1)}"


def _cores(figures: Figures) -> list[int]:
    return _in_order(row["cpus"] for row in figures["rows"])


def _memory(figures: Figures) -> list[str]:
    return _in_order(row["memory"] for row in figures["rows"])


def _precisions(figures: Figures) -> list[str]:
    return _in_order(row["precision"] for row in figures["rows"])


def _in_order(values: Any) -> list[Any]:
    found: Sequence[Any] = list(dict.fromkeys(values))
    return list(found)
