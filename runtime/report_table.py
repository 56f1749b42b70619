"""The ranked list of findings as a terminal shows it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from runtime.findings import Finding

if TYPE_CHECKING:
    from rich.table import Table

    from runtime.outputs import ScanResult

COLUMNS = ("rank", "slice", "probability", "pixel", "x mm", "y mm", "z mm", "diameter mm")


def ordinal(number: int) -> str:
    """1 -> "1st", 2 -> "2nd", 11 -> "11th", 23 -> "23rd"."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def cells(finding: Finding) -> tuple[str, ...]:
    """The row of one finding, in the order of `COLUMNS`; slice and pixel count from 0, in the file as stored."""
    return (
        ordinal(finding.rank),
        str(finding.slice_index),
        f"{finding.probability:.6f}",
        f"[{finding.pixel_x}, {finding.pixel_y}]",
        *(f"{round(v, 1) + 0.0:.1f}" for v in (finding.x_mm, finding.y_mm, finding.z_mm, finding.diameter_mm)),
    )


def summary(result: "ScanResult") -> str:
    """One line: which scan, how many findings, what ran, how long it took."""
    count = len(result.findings)
    parts = [f"{count} finding{'' if count == 1 else 's'}"]
    if result.engine:
        parts.append(f"{result.engine} {result.precision}".strip())
    if result.seconds:
        parts.append(f"{result.total_seconds:.1f} s")
    return f"{result.seriesuid}: {', '.join(parts)}"


def plain_lines(result: "ScanResult", limit: int = 10) -> list[str]:
    """The report as plain text: the summary, one line a finding, what was left out, fallbacks and notes.

    A finding reads "1st, slice 218, 0.999686, [409, 293], x 56.2 y 86.3 z -115.9 mm, diameter 23.4 mm".
    """
    lines = [summary(result)]
    for finding in result.findings[:limit]:
        rank, index, probability, pixel, x, y, z, diameter = cells(finding)
        place = f"x {x} y {y} z {z} mm"
        lines.append(f"  {rank}, slice {index}, {probability}, {pixel}, {place}, diameter {diameter} mm")
    return lines + [f"  {line}" for line in remarks(result, limit)]


def remarks(result: "ScanResult", limit: int) -> list[str]:
    """What follows the list: findings not shown, fallbacks taken, notes."""
    rest = len(result.findings) - limit
    more = [f"and {rest} less probable, in the CSV and JSON"] if rest > 0 else []
    return more + [f"fallback: {text}" for text in result.fallbacks] + [f"note: {text}" for text in result.notes]


def rich_table(findings: Sequence[Finding], title: str) -> "Table":
    """The findings as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for finding in findings:
        table.add_row(*(Text(cell) for cell in cells(finding)))  # Text: "[409, 293]" is no markup
    return table


def print_report(result: "ScanResult", limit: int = 10, stream: TextIO | None = None) -> None:
    """Print the ranked list: a table where `stream` (default: stdout) is a terminal, plain lines elsewhere."""
    out = stream if stream is not None else sys.stdout
    if not out.isatty():
        print("\n".join(plain_lines(result, limit)), file=out)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out)
    if result.findings:
        console.print(rich_table(result.findings[:limit], summary(result)))
    else:
        console.print(Text(summary(result)))
    for line in remarks(result, limit):
        console.print(Text(line))
