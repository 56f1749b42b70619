"""The figures of `rpn3d bench scan` for people, from its JSON alone: text, Markdown, a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.save_picture import save_picture
from runtime.budget import format_memory

START = "start and the rest"


def table(figures: Mapping[str, Any]) -> str:
    """Machine, then seconds by stage of each scan, then the whole process."""
    machine = Machine(**figures["machine"])
    lines = [f"machine   {machine.line()}", f"command   {' '.join(figures['command'])}"]
    for scan in figures["scans"]:
        what = (
            f"{scan['engine']} {scan['precision']}, {scan['cpus']:g} cores, {scan['plan'].get('windows', '?')} windows"
        )
        lines += ["", f"{scan['seriesuid']}  ({what}, {scan['findings']} findings)"]
        seconds = scan["median_s"]
        lines += [f"  {name:<12}{value:9.2f} s" for name, value in seconds.items()]
        lines.append(f"  {'stages':<12}{sum(seconds.values()):9.2f} s")
    warm = figures.get("warm")
    if warm:
        lines += ["", f"warm process, median of {len(warm['runs']) - 1}: {_warm_words(warm)}"]
        lines += [
            f"  {name:<12}{value:9.2f} s  {warm['stages_cpu_s'].get(name, 0.0):9.2f} s of all cores"
            for name, value in warm["stages_s"].items()
        ]
    lines += ["", *_process_lines(figures)]
    return "\n".join(lines)


def markdown(figures: Mapping[str, Any]) -> str:
    """A table by stage and a line for each whole."""
    shares = _means(figures)
    warm = figures.get("warm") or {"stages_s": {}, "stages_cpu_s": {}}
    names = list(dict.fromkeys([*shares, *warm["stages_s"]]))
    scans = figures["scans"]
    precision = ", ".join(dict.fromkeys(f"{scan['engine']} {scan['precision']}" for scan in scans))
    lines = [
        f"{len(scans)} scan{'s' * (len(scans) > 1)}, {precision}, {figures['cpus']:g} cores; seconds by stage: in "
        "`rpn3d detect` (medians over its runs, mean over the scans), in a warm process with nothing beside it, and "
        "the CPU seconds of all cores there.",
        "",
        "| stage | process | warm | CPU |",
        "|---|---|---|---|",
    ]
    for name in names:
        cells = [_cell(part.get(name)) for part in (shares, warm["stages_s"], warm["stages_cpu_s"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sums = [_cell(sum(part.values()) or None) for part in (shares, warm["stages_s"], warm["stages_cpu_s"])]
    lines += [f"| sum | {' | '.join(sums)} |", ""]
    if figures.get("warm"):
        lines.append(f"- warm process, file to CSV: {_warm_words(figures['warm'])}")
    return "\n".join([*lines, *(f"- {line}" for line in _process_lines(figures))])


def draw_scan(figures: Mapping[str, Any], path: str | Path) -> Path:
    """A bar for a scan's share of the whole process, one for the warm process, one for the bound."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shares, warm, cpus = _means(figures), figures.get("warm"), figures["cpus"]
    rest = figures["median"]["wall_s"] / len(figures["scans"]) - sum(shares.values())
    bars = {"process": {**shares, START: max(0.0, rest)}}
    if warm:
        bars["warm process"] = warm["stages_s"]
        bars[f"bound: CPU / {cpus:g} cores"] = {name: value / cpus for name, value in warm["stages_cpu_s"].items()}
    names = [name for name in dict.fromkeys(name for bar in bars.values() for name in bar) if name != START]
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)} | {START: "0.8"}
    figure = Figure(figsize=(7, 1.3 + 0.5 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for row, bar in enumerate(bars.values()):
        left = 0.0
        for name, value in bar.items():
            axes.barh(row, value, left=left, color=colours[name], height=0.6)
            left += value
        note = f"{left + min(0.0, rest):.2f} s, stages overlapping" if row == 0 and rest < 0 else f"{left:.2f} s"
        axes.text(left, row, f" {note}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("seconds a scan")
    shown = [*names, START]
    handles = [Rectangle((0, 0), 1, 1, color=colours[name]) for name in shown]
    figure.legend(handles, shown, fontsize=7, ncols=len(shown), loc="outside upper center")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return save_picture(figure, path, dpi=100)


def _process_lines(figures: Mapping[str, Any]) -> list[str]:
    """The whole process, its start, and its pace over several scans."""
    median, count, scans = figures["median"], len(figures["runs"]), len(figures["scans"])
    lines = [
        f"process, median of {count}: {median['wall_s']:.2f} s on the clock, {median['cpu_s']:.2f} s of all cores, "
        f"peak memory {format_memory(int(median['peak_rss_bytes']))}, "
        f"{3600 * scans / median['wall_s']:.0f} scans an hour"
    ]
    if median.get("cores_busy") is not None:
        lines.append(f"cores busy {median['cores_busy']:.0%} of the time, start-up included")
    if median.get("first_window_s") is not None:
        lines.append(f"{median['first_window_s']:.2f} s from the start of the process to the network's first window")
    pace, warm = figures.get("steady"), figures.get("warm")
    if pace:
        text = (
            f"after the first of {scans} scans (done {pace['first_done_s']:.2f} s after the start): "
            f"{pace['seconds_a_scan']:.2f} s a scan, {pace['scans_per_hour']:.0f} an hour, cores busy "
            f"{pace['cores_busy']:.0%} of the time"
        )
        if warm:
            text += f"; {warm['bound_s'] / pace['seconds_a_scan']:.0%} of the bound"
        lines.append(text)
    return lines


def _warm_words(warm: Mapping[str, Any]) -> str:
    return (
        f"{warm['median_s']:.2f} s a scan ({warm['least_s']:.2f} to {warm['most_s']:.2f}); bound by the stages' CPU "
        f"seconds over all cores: {warm['bound_s']:.2f} s, {3600 / warm['bound_s']:.0f} scans an hour"
    )


def _means(figures: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage, the mean over the scans."""
    scans = figures["scans"]
    names = dict.fromkeys(name for scan in scans for name in scan["median_s"])
    return {name: sum(scan["median_s"].get(name, 0.0) for scan in scans) / len(scans) for name in names}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
