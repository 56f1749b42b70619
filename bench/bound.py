"""OpenVINO's own benchmark_app on a model: the bound that whatever feeds the same network can be held against.

It runs in a process of its own, held to its cores by affinity (it takes no number of threads beside a hint), with the
shapes fixed: the model is compiled for them alone, which our runtime, whose windows differ, cannot do. What it measured
is read from the JSON report that it writes; it ends with exit code 0 even where it failed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APP = "import sys; from runtime.cores import hold_to; hold_to(int(sys.argv.pop(1))); " + (
    "from openvino.tools.benchmark.main import main; main()"
)


def run_app(
    model: str | Path,
    shapes: Mapping[str, Sequence[int]],
    *,
    hint: str,
    precision: str,
    threads: int,
    iterations: int,
    timeout_s: float,
) -> dict[str, Any]:
    """Measure one model under one hint.

    Args:
        model: .xml or .onnx.
        shapes: of each input.
        hint: latency (one inference at a time) or throughput (several streams).
        precision: f32 or bf16, pinned; an int8 model computes the rest of its layers in it.
        threads: cores.
        iterations: timed inferences, at least; a first one is not counted.
        timeout_s: after which it counts as hanging.

    Returns:
        "status": "ran", with "per_s" (inferences), "latency_s" (median), "first_s", "iterations" and "requests"; else
        "not installed", "refused" or "crashed", with a "message".
    """
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        sized = ",".join(f"{blob}[{','.join(map(str, shape))}]" for blob, shape in shapes.items())
        options = ["-m", str(model), "-d", "CPU", "-hint", hint, "-shape", sized, "-niter", str(iterations)]
        options += ["-infer_precision", precision, "-json_stats", "-report_type", "no_counters"]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            done = subprocess.run(
                [sys.executable, "-c", APP, str(threads), *options, "-report_folder", folder],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"status": "crashed", "message": f"no result after {timeout_s:g} s"}
        report = Path(folder, "benchmark_report.json")
        if report.is_file():
            return read_report(report.read_text(encoding="utf-8"))
        return _failed(done.stdout, done.returncode)


def read_report(text: str) -> dict[str, Any]:
    """The figures of a benchmark_report.json; its own throughput has too few decimals for slow inferences."""
    try:
        content = json.loads(text)
        found = content["execution_results"]
        count = int(found["total number of iterations"])
        return {
            "status": "ran",
            "per_s": count / (float(found["total execution time (ms)"]) / 1e3),
            "latency_s": float(found["latency (ms)"]) / 1e3,
            "first_s": float(found["first inference time (ms)"]) / 1e3,
            "iterations": count,
            "requests": int(content["configuration_setup"]["number of parallel infer requests"]),
        }
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        return {"status": "refused", "message": f"its report is not as expected: {type(error).__name__} {error}"}


def _failed(said: str, code: int) -> dict[str, Any]:
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it wrote nothing"]
    if lines[-1].startswith("ModuleNotFoundError"):
        return {"status": "not installed", "message": lines[-1]}
    wrong = [line for line in lines if line.startswith("[ ERROR ]")]
    message = wrong[0].removeprefix("[ ERROR ]").strip() if wrong else lines[-1]
    return {"status": "crashed" if code < 0 else "refused", "message": message}
