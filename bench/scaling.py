"""Throughput of our network on this machine: against cores, streams, the window's size, the number of scans and the
instruction set; and how near the machine's roof it comes.

Every point is a process of its own that is bound to its cores before it loads anything (`bench.scaling_process`). The
points of a sweep are warmed up, then take turns, the order reversed every time, so that a machine that slows down slows
all of them (`bench.turns`); a figure is the median of its turns. What cannot be measured is a row that says why.

`cores` and `windows` are run by the runtime's engine as `rpn3d detect` does, in two stages; `streams` and `isa` by
OpenVINO alone on the whole IR. `scans` is the real command on copies of one phantom of a child's size (a third of an
adult's volume), start-up included.
"""

import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.scaling_picture import draw_scaling as draw_scaling
from bench.scaling_points import SWEEPS, Point, Task, check, points, precisions_of
from bench.scaling_tables import markdown as markdown
from bench.scaling_tables import table as table
from bench.scan import bench_scan
from bench.turns import Loop
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from caffe_models.net import Net
from caffe_models.net_table import table_of
from convert.model_file import model_file
from runtime.numa import choose, numa_nodes

SCHEMA_VERSION = 1
LAYERS_SHOWN = 10
PHANTOM_SEED = 1
PHANTOM: dict[str, Any] = {
    "size": 128,
    "spacing_mm": (2.8, 2.8, 2.5),
    "step_mm": 3.0,
    "nodules": 2,
    "reoriented": False,
}

SHRUNK = 0.7
"""All lengths of the phantom, once it is made, times this."""

Say = Callable[[str], None]


def bench_scaling(task: Task, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure; what bench_scaling.json holds.

    Raises:
        Rpn3dError: an unknown sweep or precision, no runs, or an edge that is no multiple of 16.
    """
    check(task)
    machine = describe()
    precisions = task.precisions or precisions_of(machine.flags)
    models = {precision: _model(task, precision) for precision in precisions}
    work = table_of(Net.from_prototxt(task.net, input_shapes=_shapes(task.edge)))
    each = work.multiply_adds / task.edge**3  # extents are multiples of every stride: the work is linear in voxels
    rows: list[dict[str, Any]] = []
    for sweep in (name for name in SWEEPS if name in task.sweeps and name != "scans"):
        every = list(points(sweep, task, precisions, models, machine.flags))
        say(f"{sweep}: {len(every)} points")
        for row in _measure(every, models, task.runs, say):
            if row["status"] == "ran" and row["kind"] in ("runtime", "streams", "layers"):
                row["voxels_per_s"] = row["voxels"] / row["median_s"]
                row["gflop_per_s"] = 2e-9 * each * row["voxels_per_s"]
            rows.append(row)
    aliases = _layer_names(work)
    per_voxel = {row.name: row.multiply_adds / task.edge**3 for row in work.rows}
    for row in rows:
        if row["kind"] == "layers" and row["status"] == "ran":
            row["layers"] = _layers(row.pop("nodes"), aliases, per_voxel, row["edge"])
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine.as_json(),
        "net": task.net.name,
        "models": {precision: one if isinstance(one, str) else one.name for precision, one in models.items()},
        "multiply_adds_per_voxel": each,
        "cpus": task.cpus,
        "edge": task.edge,
        "runs": task.runs,
        "points": rows,
        "scans": _scans(task, models, say) if "scans" in task.sweeps else [],
    }


def write_json(figures: Mapping[str, Any], path: str | Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def _model(task: Task, precision: str) -> Path | str:
    """The IR for this precision, or why there is none."""
    try:
        return model_file(task.model, precision, net=task.net, weights=task.weights)
    except Rpn3dError as error:
        return str(error)


def _measure(points: Sequence[Point], models: Mapping[str, Path | str], runs: int, say: Say) -> list[dict[str, Any]]:
    """A row for each point: all are warmed up, then take turns."""
    turns: dict[Point, list[Any]] = {point: [] for point in points if not point.refused}
    failed: dict[Point, str] = {point: point.refused for point in points if point.refused}
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder, ExitStack() as stack:
        loops: dict[Point, Loop] = {}
        for number, point in enumerate(turns):
            try:
                job = _job(point, models)
                loops[point] = stack.enter_context(Loop(job, Path(folder, str(number)), "bench.scaling_process"))
                if point.kind != "roof":  # it warms up every piece by itself
                    loops[point].turn(1)
            except Rpn3dError as error:
                failed[point] = str(error)
        for number in range(runs):
            for point in list(turns)[:: -1 if number % 2 else 1]:
                if point in failed:
                    continue
                try:
                    turns[point] += loops[point].turn(1)
                except Rpn3dError as error:
                    failed[point] = str(error)
    rows = []
    for point in points:
        row = {**asdict(point), "status": "refused" if point.refused else "failed" if point in failed else "ran"}
        row["message"] = failed.get(point, "")
        del row["refused"]
        if row["status"] == "ran":
            row.update(_figures(turns[point]))
        rows.append(row)
        say(f"  {point.name}: {row['message'][:100] or format(row['median_s'], '.3g') + ' s'}")
    return rows


def _job(point: Point, models: Mapping[str, Path | str]) -> dict[str, Any]:
    taken = choose(point.cpus, numa_nodes(), {})
    return {
        **asdict(point),
        "loop": f"{point.sweep} {point.name}",
        "cores": sorted(core for node in taken for core in node),
        "environment": {"ONEDNN_MAX_CPU_ISA": point.cap} if point.cap else {},
        "model": str(Path(models[point.precision]).resolve()),
    }


def _figures(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [turn["seconds"] for turn in turns]
    found: dict[str, Any] = {
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        **{
            key: turns[-1][key]
            for key in ("voxels", "ran_in", "kernels", "peak_rss_bytes", "nodes")
            if key in turns[-1]
        },
    }
    if "candidates" in turns[0]:
        every = [one for turn in turns for one in turn["candidates"]]
        best: dict[tuple[str, str], dict[str, Any]] = {}
        for one in every:
            key = one["name"], one["by"]
            best[key] = max(best.get(key, one), one, key=lambda each: float(each["gflop_per_s"]))
        found["candidates"] = sorted(best.values(), key=lambda each: -each["gflop_per_s"])
        found["gflop_per_s"] = found["candidates"][0]["gflop_per_s"]
    return found


def _shapes(edge: int) -> dict[str, tuple[int, ...]]:
    return {"data": (1, 1, *(edge,) * 3), "coord": (1, 3, *(edge // 4,) * 3)}


def _layer_names(work: Any) -> dict[str, str]:
    """Names that a compiled node may carry for a convolution -> its layer: its own, and those of the batch
    normalisation and scale right behind it, which OpenVINO folds into it under their names alone."""
    found = {row.name: row.name for row in work.rows if row.multiply_adds}
    maker: dict[str, str] = {}
    for row in work.rows:
        if row.multiply_adds:
            maker.update(dict.fromkeys(row.tops, row.name))
        elif row.type in ("BatchNorm", "Scale") and row.bottoms[0] in maker:
            found[row.name] = maker[row.bottoms[0]]
            maker.update(dict.fromkeys(row.tops, found[row.name]))
        else:
            for top in row.tops:
                maker.pop(top, None)
    return found


def _layers(
    nodes: Sequence[Mapping[str, Any]], aliases: Mapping[str, str], per_voxel: Mapping[str, float], edge: int
) -> dict[str, Any]:
    """The nodes that take most time, with the layer of the prototxt that each is, and the sum of all."""
    total = sum(node["seconds"] for node in nodes)
    rows = []
    for node in sorted(nodes, key=lambda each: -each["seconds"])[:LAYERS_SHOWN]:
        known = [part.removesuffix("/WithoutBiases") for part in (*node["made_of"], node["node"])]
        layer = next((aliases[name] for name in known if name in aliases), None)
        row = {key: node[key] for key in ("node", "type", "kernel", "ran_in", "seconds")}
        row |= {"layer": layer, "share": node["seconds"] / total if total else 0.0}
        if layer is not None and node["seconds"]:
            row["gflop_per_s"] = 2e-9 * per_voxel[layer] * edge**3 / node["seconds"]
        rows.append(row)
    return {"seconds": total, "nodes": len(nodes), "rows": rows}


def _scans(task: Task, models: Mapping[str, Path | str], say: Say) -> list[dict[str, Any]]:
    """The real command on sets of scans, in the last precision that there is a model for."""
    ready = [precision for precision, model in models.items() if not isinstance(model, str)]
    if not ready:
        return [{"scans": count, "status": "refused", "message": "no model"} for count in task.scans]
    options = ["--precision", ready[-1], "--cpus", str(task.cpus), "--no-pictures", "--threshold", "0.5"]
    options += ["--model", str(task.model)] if task.model is not None else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as made:
        first = task.scan or _phantom(Path(made), say)
        for count in task.scans:
            folder = Path(made, str(count))
            folder.mkdir()
            for number in range(count):
                shutil.copy(first, folder / f"scan{number}{''.join(first.suffixes[-2:])}")
            row: dict[str, Any] = {"scans": count, "precision": ready[-1], "cpus": task.cpus}
            try:
                run = bench_scan(folder, runs=1, options=options).runs[0]
                row |= {"status": "ran", "wall_s": run.wall_s, "cpu_s": run.cpu_s, "ran_in": run.scans[0].precision}
                row["scans_an_hour"] = 3600 * count / run.wall_s
                row["computed_voxels"] = sum(scan.plan.get("computed_voxels", 0) for scan in run.scans)
            except Rpn3dError as error:
                row |= {"status": "failed", "message": str(error)}
            rows.append(row)
            say(f"  {count} scans: {row.get('message') or format(row['wall_s'], '.3g') + ' s'}")
    return rows


def _phantom(folder: Path, say: Say) -> Path:
    """A phantom in one file, so that a copy is one file, too; shrunk to a child's size, so that four are soon done."""
    import SimpleITK

    from train.phantom import make_phantom, write_phantom

    say("scans: making a phantom")
    written = write_phantom(make_phantom(PHANTOM_SEED, **PHANTOM), folder / "made")
    single = folder / "phantom.mha"
    image = SimpleITK.ReadImage(str(written))
    image.SetSpacing([SHRUNK * spacing for spacing in image.GetSpacing()])
    SimpleITK.WriteImage(image, str(single), True)
    return single
