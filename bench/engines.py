"""The same net and the same inputs through every engine and importer: how fast, and how far from PyTorch's float32.

An importer that refuses the net, dies of it or gives other numbers is a row of the table, not an error: that is what
the comparison is for. Each engine runs in a process of its own (`bench.engine_run`), all in one go: half of the runs in
order, the other half backwards, so that a machine that grows slower or faster favours none.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import engine_kinds
from bench.bound import run_app
from bench.engine_job import ROOT, Task, prepare_job, shown
from bench.engine_kinds import BOUNDS, chosen
from bench.engine_run import package_version
from bench.engine_views import draw_engines as draw_engines
from bench.engine_views import markdown as markdown
from bench.engine_views import table as table
from bench.machine import describe
from caffe_models.atomic import replacing
from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.net_table import table_of
from convert.build import load_net
from convert.parity import TOLERANCE, difference
from convert.run_net import Arrays

SCHEMA_VERSION = 1
REFERENCE = "torch f32"
EMULATED_WORK = 10_000_000_000
"""Multiply-adds above which emulated bfloat16 takes minutes and is left out unless it is named."""

Row = dict[str, Any]


def bench_engines(task: Task, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure every engine asked for, PyTorch's float32 first: the others are held against it.

    Raises:
        NetError: an unknown engine, no runs, inputs that do not fit, a net or weights that we refuse ourselves.
    """
    named = chosen(task.families)
    if task.runs < 1 or task.rounds < 1:
        raise NetError(f"runs is {task.runs} in {task.rounds} rounds; give 1 or more")
    net = load_net(task.net, task.weights)
    shapes = {blob: tuple(array.shape) for blob, array in task.inputs.items()}
    if set(shapes) != set(net.inputs):
        raise NetError(f"{task.net}: inputs are {', '.join(net.inputs)}, given are {', '.join(shapes) or 'none'}")
    net.infer(shapes)
    work = table_of(Net.from_prototxt(task.net, input_shapes=shapes)).multiply_adds
    voxels = max(int(np.prod((shape[0], *shape[2:]))) for shape in shapes.values())
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        job = prepare_job(task, net, Path(folder))
        has_bf16 = any(flag.endswith("_bf16") for flag in machine.flags)
        names = [REFERENCE] if REFERENCE in engine_kinds.ENGINES else []
        names += [name for name in named if name != REFERENCE and _offered(name, job, has_bf16)]
        emulated = set() if has_bf16 else {name for name in names if name.startswith("torch") and "bf16" in name}
        left_out = {name for name in emulated if work > EMULATED_WORK and not named[name]}
        found = _measure(task, job, Path(folder), names, left_out, say)
    bound = [row for row in found if row["engine"] in BOUNDS]
    rows = [row for row in found if row["engine"] not in BOUNDS]
    for row in found:
        if row["engine"] in emulated:
            row["emulated"] = True
        if row["status"] == "ran":
            speed = row["per_s"] if row["engine"] in BOUNDS else 1 / row["median_s"]
            row.update(voxels_per_s=voxels * speed, gflop_per_s=2e-9 * work * speed)
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine.as_json(),
        "net": shown(task.net),
        "weights": shown(task.weights),
        "int8": shown(task.int8) if task.int8 else None,
        "inputs": {blob: list(shape) for blob, shape in shapes.items()},
        "inputs_are": task.inputs_are,
        "multiply_adds": work,
        "threads": task.threads,
        "runs": task.runs,
        "rounds": min(task.rounds, task.runs),
        "reference": REFERENCE,
        "engines": rows,
        "bound": bound,
        "share_of_bound": share_of_bound(rows, bound),
    }


def share_of_bound(rows: Sequence[Row], bound: Sequence[Row]) -> dict[str, Row]:
    """By precision: voxels a second of our runtime (else of the plain model in OpenVINO) over benchmark_app's best."""
    speed = {row["engine"]: row["voxels_per_s"] for row in (*rows, *bound) if row["status"] == "ran"}
    shares: dict[str, Row] = {}
    for precision in ("f32", "bf16", "int8"):
        ours = next((n for n in (f"rpn3d runtime {precision}", f"openvino {precision}") if n in speed), None)
        bounds = [name for name in speed if name.startswith(f"benchmark_app {precision} ")]
        if ours is not None and bounds:
            best = max(bounds, key=lambda name: speed[name])
            share = speed[ours] / speed[best]
            shares[precision] = {"engine": ours, "bound": best, "bound_voxels_per_s": speed[best], "share": share}
    return shares


def write_json(result: Mapping[str, Any], path: str | Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def _offered(name: str, job: Mapping[str, Any], has_bf16: bool) -> bool:
    """Whether there is such a row at all for this net and this machine."""
    if name.startswith(("openvino", "rpn3d", "benchmark_app")) and "bf16" in name and not has_bf16:
        return False
    if "int8" in name and not job["int8"]:
        return False
    if name.startswith("rpn3d"):
        return bool(job["detector"])
    return bool(job["spelled"]) if name == "opencv 3-D spelling" else True


def _measure(
    task: Task,
    job: Mapping[str, Any],
    folder: Path,
    names: Sequence[str],
    left_out: set[str],
    say: Callable[[str], None],
) -> list[Row]:
    """A row for each name, put together from all rounds."""
    rounds = min(task.rounds, task.runs)
    parts: dict[str, list[Row]] = {name: [] for name in names}
    reference: Arrays | None = None
    for number in range(rounds):
        runs = task.runs // rounds + (number < task.runs % rounds)
        for name in names if number % 2 == 0 else reversed(names):
            if name in left_out:
                message = "this processor emulates bf16, which takes minutes; --engines torch-bf16,torch-compile-bf16"
                part: Row = {"status": "left out", "verdict": "left out", "message": f"{message} measures it"}
                parts[name] = [{"engine": name, **part}]
                continue
            if any(part["status"] != "ran" for part in parts[name]):
                continue
            if name in BOUNDS:
                part = _bound(name, job, task, runs)
            else:
                limit = max(task.timeout_s, 1800.0) if name == REFERENCE else task.timeout_s
                part, outputs = _run(name, {**job, "runs": runs}, folder, limit)
                reference = outputs if name == REFERENCE and reference is None else reference
                part.update(_judged(part, outputs, reference))
            parts[name].append(part)
            say(f"{name}: {_words(part)}" + (f" (round {number + 1} of {rounds})" if rounds > 1 else ""))
    return [_together(each) for each in parts.values()]


def _together(parts: Sequence[Row]) -> Row:
    """One row of an engine's rounds: the first one's, with the times of all; a round that failed is the row."""
    failed = next((part for part in parts if part["status"] != "ran"), None)
    if failed is not None:
        return failed
    row = dict(parts[0])
    if "per_s" in row:
        row["rounds_per_s"] = [part["per_s"] for part in parts]
        row.update({key: statistics.median(part[key] for part in parts) for key in ("per_s", "latency_s")})
        row["iterations"] = sum(part["iterations"] for part in parts)
        return row
    seconds = [second for part in parts for second in part["seconds"]]
    row.update(seconds=seconds, median_s=statistics.median(seconds), least_s=min(seconds), most_s=max(seconds))
    row["peak_rss_bytes"] = max(part["peak_rss_bytes"] for part in parts)
    return row


def _bound(name: str, job: Mapping[str, Any], task: Task, runs: int) -> Row:
    _, precision, hint = name.split()
    start = {"engine": name, "version": package_version("benchmark_app"), "precision": precision}
    if job["onnx_problem"]:
        return {**start, "status": "refused", "message": job["onnx_problem"]}
    found = run_app(
        job["int8"] if precision == "int8" else job["ir"],
        {blob: array.shape for blob, array in task.inputs.items()},
        hint=hint,
        precision="bf16" if precision == "bf16" else "f32",
        threads=task.threads,
        iterations=runs,
        timeout_s=task.timeout_s,
    )
    return {**start, **found}


def _run(
    name: str, job: Mapping[str, Any], folder: Path, timeout_s: float
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """One engine in its process: its report, and its outputs if it ran."""
    if job["onnx_problem"] and name.split()[0] in ("onnxruntime", "openvino", "rpn3d"):
        return {"engine": name, "status": "refused", "message": job["onnx_problem"]}, None
    own = {**job, "engine": name, "report": str(folder / "report.json"), "outputs_file": str(folder / "outputs.npz")}
    for file in ("report.json", "outputs.npz"):
        (folder / file).unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps(own), encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),  # cold in the first round, whatever ran before
    }
    command = [sys.executable, "-m", "bench.engine_run", str(folder / "job.json")]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"engine": name, "status": "crashed", "message": f"no result after {timeout_s:g} s"}, None
    if not Path(own["report"]).is_file():
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        return {"engine": name, "status": "crashed", "message": f"{how}: {last}"}, None
    report: dict[str, Any] = json.loads(Path(own["report"]).read_text(encoding="utf-8"))
    if report["status"] != "ran":
        return report, None
    with np.load(own["outputs_file"], allow_pickle=False) as stored:
        return report, {blob: stored[blob] for blob in stored.files}


def _judged(row: Mapping[str, Any], outputs: Arrays | None, reference: Arrays | None) -> dict[str, Any]:
    """The verdict on an engine, and how far it is off."""
    if outputs is None:
        return {"verdict": row["status"]}
    if row["engine"] == REFERENCE:
        return {"verdict": "the reference"}
    if reference is None:
        return {"verdict": "ran (no reference)"}
    tolerance = TOLERANCE.get(row["precision"], TOLERANCE["f32"])
    try:
        found = difference(reference, outputs, tolerance)
    except NetError as error:
        return {"verdict": "silently wrong", "message": str(error)}
    figures = {"blob": found.blob, "largest": found.largest, "magnitude": found.magnitude, "relative": found.relative}
    return {**figures, "verdict": "agrees" if found.relative <= tolerance else "silently wrong"}


def _words(row: Mapping[str, Any]) -> str:
    if row["status"] != "ran":
        return f"{row['status']}: {row.get('message', '')[:100]}"
    if "per_s" in row:
        return f"{row['per_s']:.3g} inferences a second"
    return f"{row['median_s']:.3g} s, {row['verdict']}"
