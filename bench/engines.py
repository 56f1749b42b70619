"""The same net and the same inputs through every engine and importer: how fast, and how far from PyTorch's float32.

An importer that refuses the net, dies of it or gives other numbers is a row of the table, not an error: that is what
the comparison is for. Each engine runs in a process of its own (`bench.engine_run`), all in one go.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_run import ENGINES
from bench.machine import describe
from caffe_models.atomic import replacing
from caffe_models.errors import NetError
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.net_table import table_of
from caffe_models.net_table_text import short
from caffe_models.text_format import read_text
from caffe_models.text_writer import write_text
from caffe_models.weights import write_caffemodel
from convert.build import load_net
from convert.parity import TOLERANCE, difference, random_inputs
from convert.run_net import Arrays
from convert.to_onnx import net_to_onnx, save_onnx

SCHEMA_VERSION = 1
REFERENCE = "torch f32"
FAMILIES = tuple(dict.fromkeys(name.split()[0] for name in ENGINES))
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Task:
    """What is compared."""

    net: Path
    weights: Path
    inputs: Arrays
    families: tuple[str, ...] = FAMILIES
    runs: int = 5
    threads: int = 1
    timeout_s: float = 1800.0
    """After which an engine counts as hanging; the reference may always take 1800 s."""


def bench_engines(task: Task, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure every engine of the families asked for, PyTorch's float32 first: the others are held against it.

    Raises:
        NetError: an unknown family, no runs, inputs that do not fit, a net or weights that we refuse ourselves.
    """
    unknown = [family for family in task.families if family not in FAMILIES]
    if unknown or not task.families:
        raise NetError(f"engine {', '.join(unknown) or 'none'} is not known; allowed: {', '.join(FAMILIES)}")
    if task.runs < 1:
        raise NetError(f"runs is {task.runs}; give 1 or more")
    net = load_net(task.net, task.weights)
    shapes = {blob: tuple(array.shape) for blob, array in task.inputs.items()}
    if set(shapes) != set(net.inputs):
        raise NetError(f"{task.net}: inputs are {', '.join(net.inputs)}, given are {', '.join(shapes) or 'none'}")
    net.infer(shapes)
    sized = Net.from_prototxt(task.net, input_shapes=shapes)
    work = table_of(sized).multiply_adds
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        job = _prepare(task, net, Path(folder))
        reference: Arrays | None = None
        for name in (name for name in ENGINES if name == REFERENCE or name.split()[0] in task.families):
            if name == "opencv 3-D spelling" and not job["spelled"]:
                continue
            row, outputs = _run(
                name, job, Path(folder), max(task.timeout_s, 1800.0) if name == REFERENCE else task.timeout_s
            )
            if name == REFERENCE:
                reference = outputs
            row.update(_judged(row, outputs, reference))
            if row.get("median_s"):
                row["gflop_per_s"] = 2e-9 * work / row["median_s"]
            rows.append(row)
            say(f"{name}: {_words(row)}")
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": describe().as_json(),
        "net": _shown(task.net),
        "weights": _shown(task.weights),
        "inputs": {blob: list(shape) for blob, shape in shapes.items()},
        "multiply_adds": work,
        "threads": task.threads,
        "runs": task.runs,
        "reference": REFERENCE,
        "engines": rows,
    }


def write_json(result: Mapping[str, Any], path: str | Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def table(result: Mapping[str, Any]) -> str:
    """The JSON's figures as text: a line for each engine; what went wrong in the importer's own words."""
    shapes = ", ".join(f"{blob} {'x'.join(map(str, shape))}" for blob, shape in result["inputs"].items())
    machine, packages = result["machine"], result["machine"]["packages"]
    lines = [
        f"machine  {machine['cpu']}, {machine['usable_cpus']} usable threads, Python {machine['python']}, "
        f"rpn3d {packages.get('rpn3d', 'source')}",
        f"net      {short(result['net'], 108)}",
        f"inputs   {short(shapes, 108)}",
        f"work     {result['multiply_adds'] / 1e9:.3g} G multiply-adds, {result['threads']} threads, medians of "
        f"{result['runs']} runs",
        "",
        f"{'engine':<25}{'version':<12}{'ran in':<7}{'median':>10}{'least - most':>22}{'GFLOP/s':>8}{'off by':>9}"
        "  verdict",
    ]
    for row in result["engines"]:
        start = f"{row['engine']:<25}{(row.get('version') or '-')[:11]:<12}{row.get('precision') or '-':<7}"
        if row["status"] == "ran":
            off = f"{row['relative']:.1e}" if row.get("relative") is not None else "-"
            spread = f"{_time(row['least_s'])} - {_time(row['most_s'])}"
            start += f"{_time(row['median_s']):>10}{spread:>22}{row['gflop_per_s']:>8.1f}{off:>9}"
        else:
            start += f"{'-':>10}{'-':>22}{'-':>8}{'-':>9}"
        lines.append(f"{start}  {row['verdict']}")
        lines += [f"    {_brief(row['message'])}"] if row.get("message") else []
    lines += ["", "off by: largest difference from torch f32, relative to the largest magnitude of that output;"]
    lines.append(f"allowed are {TOLERANCE['f32']:g} in f32 and {TOLERANCE['bf16']:g} in bf16. 2 FLOP a multiply-add.")
    return "\n".join(lines)


def inputs_for(net_path: Path, npz: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """The arrays to compare on: those of an .npz, else random ones in [-1, 1] of the shapes given or declared.

    Raises:
        NetError: the file cannot be read or lacks an input.
    """
    net = Net.from_prototxt(net_path, input_shapes=shapes)
    if npz is None:
        return random_inputs(net.inputs)
    try:
        with np.load(npz, allow_pickle=False) as stored:
            arrays = {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}
    except (OSError, ValueError) as error:
        raise NetError(f"{npz}: cannot be read as .npz ({error})") from error
    missing = sorted(set(net.inputs) - set(arrays))
    if missing:
        raise NetError(f"{npz}: has no array for input {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    return {blob: arrays[blob] for blob in net.inputs}


def spelled_for_opencv(net_path: Path, axes: int) -> str:
    """The prototxt as OpenCV 4's importer wants it: kernel, pad and stride of convolutions once for each axis, and no
    `engine`, which its schema lacks. Pooling has no form that it takes in 3-D (its kernel_size may stand only once)."""
    message = read_text(net_path, "NetParameter")
    for layer in message.get("layer"):
        if layer.has("convolution_param"):
            param = layer.get("convolution_param")
            for field in ("kernel_size", "stride", "pad", "dilation"):
                values = tuple(param.get(field))
                if len(values) == 1:
                    param.set(field, values * axes)
        _clear(layer, "engine")
        if layer.has("batch_norm_param"):
            _clear(layer.get("batch_norm_param"), "engine")
    _clear(message, "engine")
    return write_text(message)


def _shown(path: Path) -> str:
    """The path as given; one of ours without the folder it happens to be installed in."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _clear(message: Message, field: str) -> None:
    if field in message.spec.by_name:
        message.clear(field)


def _prepare(task: Task, net: Net, folder: Path) -> dict[str, Any]:
    """The files that the engines read, and what they are told."""
    np.savez(folder / "inputs.npz", allow_pickle=False, **task.inputs)
    spelled = folder / "spelled.prototxt"
    if any(len(shape) == 5 for shape in net.inputs.values()):
        spelled.write_text(spelled_for_opencv(task.net, 3), encoding="utf-8")
        write_caffemodel(folder / "plain.caffemodel", net.weights(), net.name, net.layer_types)
    problem = ""
    try:
        save_onnx(net_to_onnx(net), folder / "net.onnx")
    except NetError as error:
        problem = str(error)
    last = {top: layer.spec.name for layer in net.layers for top in layer.spec.tops}
    return {
        "net": str(task.net.resolve()),
        "weights": str(task.weights.resolve()),
        "spelled": str(spelled) if spelled.exists() else "",
        "plain": str(folder / "plain.caffemodel"),
        "onnx": str(folder / "net.onnx"),
        "onnx_problem": problem,
        "inputs": str(folder / "inputs.npz"),
        "outputs": list(net.outputs),
        "makers": {blob: last[blob] for blob in net.outputs},
        "threads": task.threads,
        "runs": task.runs,
    }


def _run(
    name: str, job: Mapping[str, Any], folder: Path, timeout_s: float
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """One engine in its process: its report, and its outputs if it ran."""
    if job["onnx_problem"] and name.split()[0] in ("onnxruntime", "openvino"):
        return {"engine": name, "status": "refused", "message": job["onnx_problem"]}, None
    own = {**job, "engine": name, "report": str(folder / "report.json"), "outputs_file": str(folder / "outputs.npz")}
    for file in ("report.json", "outputs.npz"):
        (folder / file).unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps(own), encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
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


def _time(seconds: float) -> str:
    """1.23 s, 45.6 ms or 78.9 us."""
    factor, unit = (1.0, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * factor:.3g} {unit}"


def _brief(message: str, width: int = 112) -> str:
    """A library's message without the folders it was built in and OpenCV's error numbers, cut to `width`."""
    text = re.sub(r"/[^\s:]*/", "", message)
    text = re.sub(r"^OpenCV\([^)]*\) (\S+) error: \([^)]*\) ", r"\1 ", text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _words(row: Mapping[str, Any]) -> str:
    if row["status"] != "ran":
        return f"{row['verdict']}: {row.get('message', '')[:100]}"
    return f"{row['median_s']:.3g} s, {row['verdict']}"
