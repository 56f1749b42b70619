"""How much faster than the classic way: the same scan by a plain rebuild of 2017's pipeline, by MONAI, and by us.

The classic way is `bench.classic`: pre-processing at full resolution, then eager PyTorch in float32 on tiles of 128
voxels at half overlap over the whole scan at 1 mm, one at a time. MONAI is its sliding-window inferer driving the same
eager network over our working volume, with our pre-processing to its credit. Neither is charged for decoding and
writing; ours is measured from file to CSV.

Each runs in a process of its own, built and warm before anything counts; then they take turns (`bench.turns`): in each
round a scan of ours, and some of the tiles. Tiles cost the same whatever they show, so a few are timed and
multiplied by how many there are, which the report says. The classic pre-processing is run once, whole, before the
others start, since it takes more memory than they do.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.classic import TILE
from bench.machine import describe
from bench.monai_inferer import OVERLAP
from bench.turns import ROOT, Loop
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from convert.model_file import IR_PRECISIONS, model_file
from runtime.find_scans import find_scan

SCHEMA_VERSION = 1
TILES, RUNS = 3, 3
MODULE = "bench.naive_loop"
PREPROCESSING, NETWORK, CLASSIC = "classic pre-processing", "classic network", "classic"
BOXED = "classic, lungs' box alone"
MONAI_NETWORK, MONAI = "MONAI network", "MONAI"
TOTALS = (CLASSIC, BOXED, MONAI)
"""Rows of whole scans; those of rpn3d follow."""
FAST_BF16 = {"avx512_bf16", "amx_bf16"}

Say = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is compared.

    Attributes:
        scan: a file, a DICOM folder, or FOLDER#SeriesInstanceUID.
        net, weights: of the eager network.
        cpus: cores for each.
        model: what rpn3d loads, see `convert.model_file.model_file`.
        precision: auto (f32; bf16 where the processor has it; int8 where the model has it), or some of f32, bf16,
            int8 with commas between them.
        tiles: timed tiles of the classic way and windows of MONAI; 0: all there are.
        runs: scans of ours, and rounds.
        tile: edge of both's tiles in voxels.
    """

    scan: str
    net: Path
    weights: Path
    cpus: int
    model: Path | None = None
    precision: str = "auto"
    tiles: int = TILES
    runs: int = RUNS
    tile: int = TILE


def bench_naive(task: Task, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure; what bench_naive.json holds. An alternative that fails is a row that says why.

    Raises:
        Rpn3dError: no runs, fewer than no tiles, an unknown precision.
        ScanError: the scan is not there, or is several.
    """
    if task.runs < 1 or task.tiles < 0:
        raise Rpn3dError(f"bench: runs {task.runs}, tiles {task.tiles}; give 1 or more, and 0 (all) or more")
    asked = wanted_precisions(task.precision)
    source = find_scan(task.scan)
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as made:
        folder = Path(made)
        say("classic pre-processing, whole and once")
        steps = {PREPROCESSING: _preprocess(task, folder)}
        steps.update(_take_turns(task, folder, steps[PREPROCESSING], asked, say))
    rows = rows_of(steps)
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": describe().as_json(),
        "scan": source.seriesuid or source.path.name,
        "cpus": task.cpus,
        "runs": task.runs,
        "tile": task.tile,
        "overlaps": {"classic": 0.5, "MONAI": OVERLAP},
        "rows": rows,
    }


def wanted_precisions(precision: str) -> tuple[str, ...]:
    """f32,int8 -> ("f32", "int8"); auto -> those that this processor runs well.

    Raises:
        Rpn3dError: one that is not known.
    """
    if precision == "auto":
        fast = FAST_BF16 & set(describe().flags)
        return ("f32", "bf16", "int8") if fast else ("f32", "int8")
    names = tuple(name.strip() for name in precision.split(","))
    for name in names:
        if name not in IR_PRECISIONS:
            raise Rpn3dError(f'bench: precision "{name}" is not one of auto, {", ".join(IR_PRECISIONS)}')
    return names


Steps = Sequence[Mapping[str, Any]] | str
"""What a loop told of its steps, or why it has none."""


def rows_of(steps: Mapping[str, Steps]) -> list[Row]:
    """The rows of the report, in order: parts, sums, and how many times faster than the classic way each whole is.

    Args:
        steps: by the names of the loops: PREPROCESSING, NETWORK, MONAI_NETWORK, "rpn3d f32" and so on.
    """
    rows = [_whole(name, told) for name, told in steps.items() if name.startswith("rpn3d")]
    parts = [_whole(PREPROCESSING, steps[PREPROCESSING])]
    parts += [_extrapolated(name, steps[name]) for name in (NETWORK, MONAI_NETWORK)]
    preprocessing, network, monai = parts
    sums = [_sum(CLASSIC, preprocessing, network), _sum(BOXED, preprocessing, _boxed(network))]
    sums.append(_sum(MONAI, _prepared(monai), monai))
    reference = sums[0].get("median_s")
    for row in (*sums, *rows):
        if reference and "median_s" in row:
            row["times_faster"] = reference / row["median_s"]
    return [preprocessing, network, *sums[:2], monai, sums[2], *rows]


def extrapolate(seconds: Sequence[float], tiles: int, count: int) -> dict[str, float]:
    """Seconds of `count` tiles: the sum of those timed where that is all `tiles` of the scan and `count` asks for all,
    else `count` times the median, the least and the most of them."""
    if len(seconds) == tiles == count:
        total = float(sum(seconds))
        return {"median_s": total, "least_s": total, "most_s": total}
    return {
        "median_s": count * statistics.median(seconds),
        "least_s": count * min(seconds),
        "most_s": count * max(seconds),
    }


def write_json(figures: Mapping[str, Any], path: Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return path


def _whole(name: str, steps: Steps) -> Row:
    """A row of something that each step does whole."""
    if isinstance(steps, str):
        return {"name": name, "status": "failed", "message": steps}
    seconds = [float(step["seconds"]) for step in steps]
    names = steps[0]["stages"]
    stages = {stage: statistics.median(step["stages"].get(stage, 0.0) for step in steps) for stage in names}
    more = {key: steps[0][key] for key in ("shape", "precision", "windows") if key in steps[0]}
    spread = {"median_s": statistics.median(seconds), "least_s": min(seconds), "most_s": max(seconds)}
    more["peak_rss_bytes"] = int(steps[-1]["peak_rss_bytes"])
    return {"name": name, "status": "ran", **spread, "seconds": seconds, "stages": stages, **more}


def _extrapolated(name: str, steps: Steps) -> Row:
    """A row of tiles; where one step was the whole scan, of that."""
    if isinstance(steps, str):
        return {"name": name, "status": "failed", "message": steps}
    seconds, tiles = [float(step["seconds"]) for step in steps], int(steps[0]["tiles"])
    whole = bool(steps[0].get("whole"))
    spread = extrapolate(seconds, 1, 1) if whole else extrapolate(seconds, tiles, tiles)
    told = {key: steps[0][key] for key in ("box_tiles", "prepare_s") if key in steps[0]}
    counts = {"tiles": tiles, "timed": tiles if whole else len(seconds)}
    peak = int(steps[-1]["peak_rss_bytes"])
    return {"name": name, "status": "ran", **spread, "seconds": seconds, **counts, **told, "peak_rss_bytes": peak}


def _boxed(network: Row) -> Row:
    """The classic network over the lungs' box: as many tiles less."""
    if network["status"] != "ran":
        return network
    count = network["box_tiles"]
    return {**network, **extrapolate(network["seconds"], network["tiles"], count), "tiles": count}


def _prepared(monai: Row) -> Row:
    """Our pre-processing, as MONAI's row has it."""
    if monai["status"] != "ran":
        return monai
    seconds = sum(monai["prepare_s"].values())
    return {"status": "ran", "median_s": seconds, "least_s": seconds, "most_s": seconds}


def _sum(name: str, *parts: Row) -> Row:
    for part in parts:
        if part["status"] != "ran":
            return {"name": name, "status": "failed", "message": part["message"]}
    row: Row = {"name": name, "status": "ran"}
    row.update({key: sum(part[key] for part in parts) for key in ("median_s", "least_s", "most_s")})
    return row | {key: parts[-1][key] for key in ("tiles", "timed")}


def _preprocess(task: Task, folder: Path) -> Steps:
    try:
        with Loop(_job(task, folder, PREPROCESSING, "preprocessing"), folder / "preprocessing", MODULE) as loop:
            return loop.turn(1)
    except Rpn3dError as error:
        return _reason(error)


def _take_turns(task: Task, folder: Path, before: Steps, asked: Sequence[str], say: Say) -> dict[str, Steps]:
    """The steps of all but the pre-processing, by name of the loop."""
    found: dict[str, Any] = {}
    jobs = {NETWORK: _job(task, folder, NETWORK, "classic"), MONAI_NETWORK: _job(task, folder, MONAI_NETWORK, "monai")}
    for precision in asked:
        name = f"rpn3d {precision}"
        try:
            model = model_file(task.model, precision, net=task.net, weights=task.weights, say=say)
        except Rpn3dError as error:
            found[name] = str(error).replace(f"{ROOT}/", "")  # figures travel, the folder of this machine does not
            continue
        jobs[name] = {**_job(task, folder, name, "rpn3d"), "model": str(model.resolve()), "precision": precision}
    if isinstance(before, str):
        found[NETWORK] = f"its pre-processing failed: {before}"
        del jobs[NETWORK]
    with ExitStack() as stack:
        loops: dict[str, tuple[Loop, list[int]]] = {}
        for number, (name, job) in enumerate(jobs.items()):
            say(f"{name}: loading, and once without the clock")
            try:
                loop = stack.enter_context(Loop(job, folder / f"loop{number}", MODULE))
            except Rpn3dError as error:
                found[name] = _reason(error)
                continue
            found[name] = []
            steps = loop.batch if name in (NETWORK, MONAI_NETWORK) else task.runs
            loops[name] = loop, [len(part) for part in np.array_split(np.arange(steps), task.runs)]
        for turn in range(task.runs):
            for name, (loop, shares) in list(loops.items())[:: -1 if turn % 2 else 1]:
                if not shares[turn]:
                    continue
                try:
                    done = loop.turn(shares[turn])
                except Rpn3dError as error:
                    found[name] = _reason(error)
                    del loops[name]
                    continue
                found[name] += done
                say(f"round {turn + 1}/{task.runs}, {name}: {', '.join(format(s['seconds'], '.2f') for s in done)} s")
    return {name: found[name] for name in (NETWORK, MONAI_NETWORK, *(f"rpn3d {p}" for p in asked))}


def _job(task: Task, folder: Path, name: str, kind: str) -> dict[str, Any]:
    return {
        "loop": name,
        "kind": kind,
        "scan": task.scan,
        "net": str(task.net.resolve()),
        "weights": str(task.weights.resolve()),
        "cpus": task.cpus,
        "tile": task.tile,
        "tiles": task.tiles,
        "prepared": str(folder / "prepared.npz"),
    }


def _reason(error: Rpn3dError) -> str:
    """What the process said last, without who it was: the row says that."""
    text = str(error)
    return text.partition("exit code 1: ")[2] or text
