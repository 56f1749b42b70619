"""The figures of `bench.scaling` as text and as a page of markdown, from its JSON alone."""

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any

from bench.machine import Machine
from caffe_models.free_memory import format_memory

Figures = Mapping[str, Any]
Row = Mapping[str, Any]

XEON_PHI = (
    "The AVX2 row stands for Xeon Phi (Knights Landing) class machines: oneDNN dropped their instruction set in 2.6, "
    "so there it takes its AVX2 kernels. It is this processor under a cap (ONEDNN_MAX_CPU_ISA); OpenVINO does not "
    "support Xeon Phi, nothing was run on one, and OpenVINO's own kernels, beside oneDNN's, ignore the cap."
)
ROOF = (
    "The roof is the best that OpenVINO (and NumPy's BLAS, in f32) reached on large matrix products and convolutions "
    "in that precision on this machine, of several sizes and turns. A share above 100 % says that these probes fall "
    "short of the machine's peak: the network's own rate is then the least that it is."
)

SWEEPS: tuple[tuple[str, str, str], ...] = (
    ("cores", "cores", "One window of {edge}^3 voxels through the runtime's engine, on 1 core and more."),
    (
        "streams",
        "streams x threads",
        "Windows of {edge}^3 through OpenVINO's queue on all {cpus} cores, so many at a time.",
    ),
    ("windows", "window", "One window of each size through the runtime's engine on all {cpus} cores."),
    ("isa", "instruction set", "Windows of {edge}^3 on all {cpus} cores, oneDNN capped to each instruction set."),
)
"""Sweep, heading of its first column, what it is."""

SPEED = ("in", "median", "least - most", "Mvoxel/s", "GFLOP/s")


def table(figures: Figures) -> str:
    """The JSON's figures as text for a terminal."""
    lines = [
        f"machine   {Machine(**figures['machine']).line()}",
        f"net       {figures['net']}, {figures['multiply_adds_per_voxel'] / 1e3:.1f} thousand multiply-adds a voxel, "
        "2 FLOP each",
        *(f"model     {precision}: {name}" for precision, name in figures["models"].items()),
        f"runs      medians of {figures['runs']} turns",
    ]
    for title, note, head, rows in _sections(figures):
        lines += ["", *wrap(f"{title}: {note}", 116), *_aligned(head, rows)]
    return "\n".join(lines)


def markdown(figures: Figures) -> str:
    """The JSON's figures as a section of a page."""
    lines = []
    for title, note, head, rows in _sections(figures):
        lines += [f"**{title.capitalize()}.** {note}", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def label(row: Row) -> str:
    """What a point is called in its sweep."""
    if row["sweep"] == "streams":
        return f"{row['streams']} x {row['cpus'] // row['streams']}"
    return {"cores": str(row["cpus"]), "windows": f"{row['edge']}^3", "isa": str(row["isa"])}[row["sweep"]]


def roofs(figures: Figures, cpus: int | None = None) -> dict[str, float]:
    """Precision -> GFLOP/s of the roof on so many cores (None: all)."""
    wanted = figures["cpus"] if cpus is None else cpus
    return {row["precision"]: row["gflop_per_s"] for row in of(figures, "roof") if row["cpus"] == wanted and ran(row)}


def best_of_net(figures: Figures, precision: str) -> Row | None:
    """The fastest point of the network on all cores, whichever sweep it is from; instruction sets are capped, so not
    those."""
    rows = [
        row
        for sweep in ("cores", "streams", "windows")
        for row in of(figures, sweep)
        if row["precision"] == precision and row["cpus"] == figures["cpus"] and ran(row)
    ]
    return max(rows, key=lambda row: float(row["gflop_per_s"]), default=None)


def of(figures: Figures, sweep: str) -> list[Row]:
    return [row for row in figures["points"] if row["sweep"] == sweep]


def ran(row: Row) -> bool:
    return bool(row["status"] == "ran")


def _sections(figures: Figures) -> Iterator[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]]:
    for sweep, first, note in SWEEPS:
        rows = of(figures, sweep)
        if rows:
            more = {
                "cores": ("times 1 core",),
                "streams": ("memory",),
                "windows": ("memory",),
                "isa": ("most convolutions",),
            }
            text = note.format(**figures) + (f" {XEON_PHI}" if sweep == "isa" else "")
            cells = [(label(row), *_speed(row), *_last(row, rows, sweep)) for row in rows]
            yield sweep, text, (first, *SPEED, *more[sweep]), cells
    if figures["scans"]:
        note = "`rpn3d detect` on so many copies of one scan: a whole process each, start-up included."
        head = ("scans", "in", "seconds", "a scan", "scans an hour", "cores busy")
        yield "scans", note, head, [_set_of_scans(row) for row in figures["scans"]]
    if of(figures, "roof"):
        head = ("cores", "in", "roof, GFLOP/s", "reached on", "the network at its best", "share")
        yield "roof", ROOF, head, [_roof(row, figures) for row in of(figures, "roof")]
    for row in of(figures, "layers"):
        title = f"layers in {row['precision']}"
        if not ran(row):
            yield title, "", ("layer",), [(_why(row),)]
            continue
        columns = ("layer", "in", "ms", "of the time", "GFLOP/s", "of the roof", "kernel")
        note = (
            f"The nodes that take most of one window of {row['edge']}^3 on {row['cpus']} cores, of "
            f"{row['layers']['nodes']} (OpenVINO's profiling); share is of the roof of the precision that it ran in."
        )
        tops = roofs(figures)
        yield title, note, columns, [_layer(one, tops) for one in row["layers"]["rows"]]


def _speed(row: Row) -> tuple[str, ...]:
    if not ran(row):
        return (row["precision"], _why(row), "-", "-", "-")
    return (
        row["ran_in"],
        f"{row['median_s']:.3g} s",
        f"{row['least_s']:.3g} - {row['most_s']:.3g}",
        f"{row['voxels_per_s'] / 1e6:.3g}",
        f"{row['gflop_per_s']:.4g}",
    )


def _last(row: Row, rows: Iterable[Row], sweep: str) -> tuple[str, ...]:
    if not ran(row):
        return ("-",)
    if sweep == "cores":
        ones = [one for one in rows if one["precision"] == row["precision"] and one["cpus"] == 1 and ran(one)]
        return (f"{row['voxels_per_s'] / ones[0]['voxels_per_s']:.2f}" if ones else "-",)
    return (row.get("kernels", "-") if sweep == "isa" else format_memory(row["peak_rss_bytes"]),)


def _why(row: Row) -> str:
    text = str(row["message"])
    return text if len(text) <= 90 else f"{text[:89]}…"


def _set_of_scans(row: Row) -> tuple[str, ...]:
    if not ran(row):
        return (str(row["scans"]), row.get("precision", "-"), _why(row), "-", "-", "-")
    return (
        str(row["scans"]),
        row["ran_in"],
        f"{row['wall_s']:.1f}",
        f"{row['wall_s'] / row['scans']:.2f} s",
        f"{row['scans_an_hour']:.0f}",
        f"{row['cpu_s'] / (row['wall_s'] * row['cpus']):.0%}",
    )


def _roof(row: Row, figures: Figures) -> tuple[str, ...]:
    if not ran(row):
        return (str(row["cpus"]), row["precision"], _why(row), "-", "-", "-")
    top = row["candidates"][0]
    net = _net_at(row, figures)
    speed = f"{net['gflop_per_s']:.4g} GFLOP/s ({net['sweep']}: {label(net)})" if net else "-"
    share = f"{net['gflop_per_s'] / row['gflop_per_s']:.0%}" if net else "-"
    return (
        str(row["cpus"]),
        row["precision"],
        f"{row['gflop_per_s']:.4g}",
        f"{top['name']}, {top['by']}",
        speed,
        share,
    )


def _net_at(row: Row, figures: Figures) -> Row | None:
    """The network's best on as many cores as this roof."""
    if row["cpus"] == figures["cpus"]:
        return best_of_net(figures, row["precision"])
    found = [
        one
        for one in of(figures, "cores")
        if one["precision"] == row["precision"] and one["cpus"] == row["cpus"] and ran(one)
    ]
    return found[0] if found else None


def _layer(one: Row, tops: Mapping[str, float]) -> tuple[str, ...]:
    speed, top = one.get("gflop_per_s"), tops.get(one["ran_in"] or "")
    return (
        one["layer"] or f"{one['node']} ({one['type']})",
        one["ran_in"] or "-",
        f"{1e3 * one['seconds']:.2f}",
        f"{one['share']:.1%}",
        f"{speed:.4g}" if speed else "-",
        f"{speed / top:.0%}" if speed and top else "-",
        one["kernel"],
    )


def _aligned(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    every = [head, *rows]
    widths = [max(len(row[k]) for row in every) for k in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every
    ]
