"""One engine on one net, in a process of its own: `python -m bench.engine_run JOB.json` writes what it measured.

A process each, because libraries that share one share threads and memory, and because a library may die: an importer
that aborts is a result of the comparison and must not end it.
"""

import json
import os
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_kinds import ENGINES, Job
from caffe_models.atomic import replacing
from runtime.budget import peak_resident_bytes

PACKAGES = {"opencv": ("opencv-python-headless", "opencv-python"), "benchmark_app": ("openvino",)}
"""Family -> the packages that it may come in, where they are named otherwise."""


def measure(job: Job) -> dict[str, Any]:
    """Run one engine: a first run apart (it may compile), then `runs` timed ones; outputs go to `job["outputs_file"]`.

    What the engine raises is the result "refused", with its message.
    """
    with np.load(job["inputs"], allow_pickle=False) as stored:
        inputs = {blob: np.ascontiguousarray(stored[blob], np.float32) for blob in stored.files}
    report: dict[str, Any] = {"engine": job["engine"], "version": package_version(job["engine"].split()[0])}
    start = time.perf_counter()
    try:
        run, report["precision"] = ENGINES[job["engine"]](job, inputs)
        report["load_s"] = time.perf_counter() - start
        found = run()
        report["first_s"] = time.perf_counter() - start - report["load_s"]
        seconds = []
        for _ in range(job["runs"]):
            start = time.perf_counter()
            found = run()
            seconds.append(time.perf_counter() - start)
    except ModuleNotFoundError as error:
        return {**report, "status": "not installed", "message": f"pip install {_package(error.name or '')}"}
    except Exception as error:  # whatever a foreign library raises is what is to be reported
        return {**report, "status": "refused", "message": " ".join(str(error).split()) or type(error).__name__}
    np.savez(job["outputs_file"], allow_pickle=False, **{blob: np.asarray(array) for blob, array in found.items()})
    times = {"median_s": statistics.median(seconds), "least_s": min(seconds), "most_s": max(seconds)}
    return {**report, "status": "ran", **times, "seconds": seconds, "peak_rss_bytes": peak_resident_bytes()}


def _package(module: str) -> str:
    return {"cv2": "opencv-python-headless==4.*"}.get(module, module)


def package_version(family: str) -> str | None:
    """Version of the library of a family of engines; None where it is not installed."""
    for package in PACKAGES.get(family, (family,)):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def main(path: str) -> None:
    """Do the job in the JSON file `path`, and write its report where it says."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    os.environ.setdefault("OMP_NUM_THREADS", str(job["threads"]))
    report = measure(job)
    with replacing(job["report"]) as temporary:
        temporary.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
