"""How far a cut through the lungs is felt: what a margin between a window's core and its cuts must keep out.

    python -m bench.margin SCAN... --model rpn3d-int8.xml -o docs

Each scan goes through the network twice: in one window, the reference, and cut in the middle of all three axes into
eight windows without any margin. An output cell at distance d from the nearest cut then shows what a margin of d would
have let through, so that one run gives the whole curve. Written are `margin.json`, `margin.png` and the rows of
the table in docs/margin.md.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench.save_picture import save_picture
from caffe_models.atomic import replacing
from runtime.candidates import LEAST_LOGIT, Candidates, decode, nms
from runtime.cover import Triple, Window, lung_cells
from runtime.engines.base import EngineOptions, load_engine
from runtime.find_scans import find_scans
from runtime.lung_mask import find_lungs
from runtime.network_input import STRIDE, WINDOW_MULTIPLE
from runtime.plan import Plan
from runtime.tiling import Predictor, run_windows
from runtime.volume import read_volume
from runtime.working_volume import WorkingVolume, make_working_volume

MARGINS = (0, 8, 16, 24, 32, 48, 64)
LEAST_PROBABILITY = 0.001
"""Findings below are not counted: of a calibrated model some tens in a scan lie above it."""
SHIFT = 0.05
"""A finding whose probability changes by more than this counts as shifted."""
SAME_VOXEL = 5.0
"""Findings whose centres lie closer than this are one and the same."""


@dataclass(frozen=True)
class Band:
    """What a cut changed at distances from `margin` on, in one scan.

    Attributes:
        margin: voxels; cells and findings at least this far from every cut, and nearer than the next margin.
        cells: cells in the lungs whose logit is above `LEAST_LOGIT` in either run: those below in both are no findings
            either way.
        median_logit, max_logit: absolute change of their logits.
        findings: findings of the whole with a probability of `LEAST_PROBABILITY` or more.
        vanished, appeared, shifted: how many of them have no partner in the cut run, are new in it, or change their
            probability by more than 0.05.
    """

    scan: str
    margin: int
    cells: int
    median_logit: float
    max_logit: float
    findings: int
    vanished: int
    appeared: int
    shifted: int


def halves(shape: Sequence[int]) -> tuple[Plan, Plan, tuple[int, int, int]]:
    """The plan of one window, that of eight windows that only touch, and where the cuts lie."""
    z, y, x = (-(-n // WINDOW_MULTIPLE) * WINDOW_MULTIPLE for n in shape)
    padded = (z, y, x)
    whole = Window((0, 0, 0), padded, (0, 0, 0), padded)
    middle = (cut(z), cut(y), cut(x))
    ends = [((0, m), (m, n)) for m, n in zip(middle, padded, strict=True)]
    windows = []
    for a in ends[0]:
        for b in ends[1]:
            for c in ends[2]:
                start: Triple = (a[0], b[0], c[0])
                stop: Triple = (a[1], b[1], c[1])
                windows.append(Window(start, (a[1] - a[0], b[1] - b[0], c[1] - c[0]), start, stop))
    return _plan((whole,), padded), _plan(tuple(windows), padded), middle


def cut(extent: int) -> int:
    return extent // 2 // WINDOW_MULTIPLE * WINDOW_MULTIPLE


def compare(name: str, working: WorkingVolume, engine: Predictor) -> list[Band]:
    """The bands of one scan, from the nearest to the farthest."""
    whole, parts, middle = halves(working.voxels.shape)
    one = run_windows(working, whole, engine).values
    many = run_windows(working, parts, engine).values
    centres = [STRIDE * np.arange(n) + 1.5 for n in one.shape[1:]]
    axes = np.meshgrid(*[np.abs(c + 0.5 - m) for c, m in zip(centres, middle, strict=True)], indexing="ij", sparse=True)
    distance = np.minimum(np.minimum(axes[0], axes[1]), axes[2])
    inside = lung_cells(working.lung, whole.padded_shape)
    logits = [np.stack([head[k] for k in range(0, len(head), 5)]) for head in (one, many)]
    seen = inside & (np.maximum(*logits) > LEAST_LOGIT)
    change = np.abs(logits[0] - logits[1])
    uncut, parted = (decode(head, LEAST_LOGIT, lung=working.lung) for head in (one, many))
    found = [nms(uncut), nms(parted)]
    bands = []
    for margin, after in zip(MARGINS, (*MARGINS[1:], 10_000), strict=True):
        here = seen & ((distance >= margin) & (distance < after))
        values = change[here]
        near = [_distance(side, middle) for side in found]
        lost, moved, count = _partners(found[0], uncut, parted, (near[0] >= margin) & (near[0] < after))
        new, _, _ = _partners(found[1], parted, uncut, (near[1] >= margin) & (near[1] < after))
        bands.append(
            Band(
                name,
                margin,
                int(values.size),
                float(np.median(values)) if values.size else 0.0,
                float(values.max(initial=0.0)),
                count,
                lost,
                new,
                moved,
            )
        )
    return bands


def _plan(windows: tuple[Window, ...], padded: Triple) -> Plan:
    return Plan(windows, padded, 0, 0, "to measure what a cut does")


def _distance(side: Candidates, middle: Triple) -> NDArray[np.float64]:
    away: NDArray[np.float64] = np.abs(side.centre_voxel + 0.5 - np.asarray(middle, dtype=np.float64)).min(axis=1)
    return away


def _probability(logit: NDArray[np.float32]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1 / (1 + np.exp(-logit.astype(np.float64)))
    return p


def _partners(kept: Candidates, mine: Candidates, theirs: Candidates, band: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Of the findings `kept` in the band: how many have no partner, how many one of another probability, how many all.

    A finding stands for the likeliest candidate around it, before NMS, in either run: one that sinks from
    0.0011 to 0.0009, or whose neighbour now wins, has not vanished.
    """
    lost = moved = count = 0
    for i in np.flatnonzero(band & (_probability(kept.logit) >= LEAST_PROBABILITY)):
        count += 1
        best = []
        for side in (mine, theirs):
            apart = np.linalg.norm(side.centre_voxel - kept.centre_voxel[i], axis=1)
            close = apart < max(SAME_VOXEL, float(kept.diameter_voxel[i]) / 2)
            best.append(float(_probability(side.logit[close]).max(initial=0.0)))
        lost += best[1] == 0.0
        moved += best[1] > 0.0 and abs(best[0] - best[1]) > SHIFT
    return lost, moved, count


def table(bands: Sequence[Band]) -> str:
    """Rows of docs/margin.md: all scans together."""
    lines = [
        "| distance from the cut | cells | median change of a logit | largest "
        "| findings | vanished | appeared | shifted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for margin in MARGINS:
        rows = [b for b in bands if b.margin == margin and b.cells + b.findings + b.appeared]
        if not rows:
            continue
        cells = sum(b.cells for b in rows)
        median = sum(b.median_logit * b.cells for b in rows) / max(1, cells)
        sums = [sum(getattr(b, key) for b in rows) for key in ("findings", "vanished", "appeared", "shifted")]
        lines.append(
            f"| {margin} or more | {cells} | {median:.3f} | {max(b.max_logit for b in rows):.2f} | "
            + " | ".join(map(str, sums))
            + " |"
        )
    return "\n".join(lines)


def draw(bands: Sequence[Band], file: Path) -> None:
    """The largest and the median change of a logit against the distance from the cut, a line a scan."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5))
    axes = figure.subplots()
    for number, scan in enumerate(dict.fromkeys(b.scan for b in bands)):
        rows = [b for b in bands if b.scan == scan and b.cells]
        for values, style, name in (
            ([b.max_logit for b in rows], "o-", "largest, a line a scan"),
            ([b.median_logit for b in rows], "o:", "median"),
        ):
            label = name if number == 0 else None
            axes.plot([b.margin for b in rows], values, style, color=f"C{number}", label=label, markersize=3)
    axes.set(xlabel="distance from the cut, voxels (band from here to the next)", ylabel="change of a logit")
    axes.set_yscale("log")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    save_picture(figure, file, dpi=110)


def main(
    scans: list[str],
    model: Annotated[Path, typer.Option(help="The IR.")],
    out: Annotated[Path, typer.Option("-o", "--out")] = Path("docs"),
    cpus: int = 2,
) -> None:
    """Measure what a cut changes, by its distance."""
    engine = load_engine("openvino", model, EngineOptions(threads=cpus))
    bands: list[Band] = []
    for source in find_scans(scans):
        volume = read_volume(source)
        working = make_working_volume(volume, find_lungs(volume, threads=cpus), threads=cpus)
        bands += compare(source.path.stem[-12:], working, engine)
        print(json.dumps([asdict(b) for b in bands if b.scan == source.path.stem[-12:]]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "margin.json") as part:
        part.write_text(json.dumps({"precision": engine.precision, "bands": [asdict(b) for b in bands]}, indent=1))
    draw(bands, out / "margin.png")
    print(table(bands))


if __name__ == "__main__":
    typer.run(main)
