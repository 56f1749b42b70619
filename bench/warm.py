"""A scan from file to CSV in a warm process: libraries and model are there, and nothing runs beside it.

`rpn3d detect` reads one scan while the network runs on another, so the CPU seconds of its stages cannot be told apart.
Here the same stages run one after the other, in a process of its own (`python -m bench.warm JOB.json`), and the CPU
seconds of the process during a stage are that stage's, whatever threads its libraries start. Their sum over all cores
is the bound for a folder: no overlap can be faster.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class WarmTask:
    """What is measured.

    Attributes:
        scan: as for `rpn3d detect`; of a folder its scans take turns.
        model, precision: as for `Detector`.
        cpus, memory_bytes: the budget.
        pictures: whether to draw them.
        repeats: scans that count; one more before them does not.
        cache_folder: where compiled models are kept; "": nowhere.
    """

    scan: str
    model: str
    precision: str
    cpus: int
    memory_bytes: int
    pictures: bool = False
    repeats: int = 2
    cache_folder: str = ""


def measure_warm(task: WarmTask) -> dict[str, Any]:
    """Measure in a process of its own, and sum up.

    Raises:
        Rpn3dError: that process failed, with the last line it wrote.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        job, report = Path(folder, "job.json"), Path(folder, "report.json")
        job.write_text(json.dumps({**asdict(task), "folder": folder, "report": str(report)}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "bench.warm", str(job)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
            raise Rpn3dError(f"bench: {task.scan} in a warm process ended with exit code {done.returncode}: {last}")
        runs = json.loads(report.read_text(encoding="utf-8"))
    return summed_up(runs, task.cpus)


def summed_up(runs: Sequence[Mapping[str, Any]], cpus: float) -> dict[str, Any]:
    """Medians over all runs but the first, and the bound they set.

    Args:
        runs: {"seriesuid", "wall_s", "seconds", "cpu_seconds"} of each scan, in order.
        cpus: cores that share the work.

    Returns:
        "median_s", "least_s", "most_s" from file to CSV; "stages_s" and "stages_cpu_s", medians by stage; "bound_s",
        the sum of the latter over `cpus`; "runs", all of them.
    """
    counted = runs[1:]
    walls = [run["wall_s"] for run in counted]
    stages = {
        kind: {name: statistics.median(run[kind].get(name, 0.0) for run in counted) for name in counted[0][kind]}
        for kind in ("seconds", "cpu_seconds")
    }
    return {
        "median_s": statistics.median(walls),
        "least_s": min(walls),
        "most_s": max(walls),
        "stages_s": stages["seconds"],
        "stages_cpu_s": stages["cpu_seconds"],
        "bound_s": sum(stages["cpu_seconds"].values()) / cpus,
        "runs": list(runs),
    }


def run(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Take the scans through the chain, in this process: one that does not count, then `repeats`.

    Raises:
        Rpn3dError: no scan there, or the chain fails.
    """
    from runtime.cores import hold_to

    hold_to(job["cpus"])  # before numpy and the engines are loaded
    from runtime.budget import Budget
    from runtime.detect import Detector, Settings
    from runtime.find_scans import find_scans
    from runtime.outputs import ResultFolder
    from runtime.scan_stages import prepare

    settings = Settings(
        Budget(job["cpus"], job["memory_bytes"], "the benchmark"),
        precision=job["precision"],
        threshold=0.01,
        pictures=job["pictures"],
        cache_folder=Path(job["cache_folder"]) if job["cache_folder"] else None,
    )
    sources = find_scans([job["scan"]])
    detector = Detector(job["model"], settings)
    detector.wait()
    found = []
    for number in range(job["repeats"] + 1):
        source = sources[max(0, number - 1) % len(sources)]
        results = ResultFolder(Path(job["folder"], f"run{number}"))
        start, cpu = time.perf_counter(), time.process_time()
        scan = prepare(source, job["cpus"])
        plan = detector.plan(scan, more=True)
        detector.finish(scan, plan, detector.run(scan, plan), results, job["pictures"])
        found.append(
            {
                "seriesuid": scan.volume.seriesuid,
                "wall_s": time.perf_counter() - start,
                "cpu_s": time.process_time() - cpu,
                "seconds": scan.watch.seconds,
                "cpu_seconds": scan.watch.cpu_seconds,
            }
        )
    return found


def main(path: str) -> None:
    """Do the job in the JSON file `path`, and write the report where it says; a user's mistake is one line."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        report = run(job)
    except Rpn3dError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    with replacing(job["report"]) as temporary:
        temporary.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
