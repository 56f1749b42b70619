"""How long a scan takes from file to CSV, and how much memory: the real command, each run in a process of its own.

A run pays everything a user pays: starting Python, loading the libraries and the model. What a fresh process does not
repeat is reading the disk: from the second run on the scan lies in the page cache, so the first run is told apart in
the JSON (all runs are there, in order) and the medians are over all of them. What a process that is warm already
takes is measured beside it, see `warm`.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.held import run_held
from bench.machine import Machine, describe
from bench.scan_rates import first_window_s, steady
from bench.scan_views import draw_scan as draw_scan
from bench.scan_views import markdown as markdown
from bench.scan_views import table as table
from bench.warm import WarmTask, measure_warm
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory
from runtime.outputs import ScanResult, read_results

SCHEMA_VERSION = 1
RUNS = 3
DETECT = (sys.executable, "-m", "rpn3d", "detect")


@dataclass(frozen=True)
class Run:
    """One run of the command: seconds on the clock and of all cores together, and the largest resident set."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    scans: tuple[ScanResult, ...] = field(repr=False)


@dataclass(frozen=True)
class ScanBench:
    """All runs on one machine.

    Attributes:
        command: that was run, without the folder for its results.
        runs: in order.
        warm: what `measure_warm` found; None: not measured.
    """

    machine: Machine
    command: tuple[str, ...]
    runs: tuple[Run, ...]
    warm: Mapping[str, Any] | None = None

    @property
    def cpus(self) -> float:
        """Cores that the runs were allowed."""
        return self.runs[0].scans[0].cpus or 1

    def stages(self) -> dict[str, dict[str, float]]:
        """Median seconds of each stage, by seriesuid."""
        found = {}
        for index, scan in enumerate(self.runs[0].scans):
            every = [run.scans[index].seconds for run in self.runs]
            found[scan.seriesuid] = {name: statistics.median(s.get(name, 0.0) for s in every) for name in scan.seconds}
        return found

    def as_json(self) -> dict[str, Any]:
        """What bench_scan.json holds: machine, command, medians, every run."""
        first = self.runs[0].scans
        stages = self.stages()
        starts = [start for run in self.runs if (start := first_window_s(run.scans)) is not None]
        paces = [pace for run in self.runs if (pace := steady(run.scans, self.cpus)) is not None]
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": self.machine.as_json(),
            "command": list(self.command),
            "median": {
                "wall_s": statistics.median(run.wall_s for run in self.runs),
                "cpu_s": statistics.median(run.cpu_s for run in self.runs),
                "peak_rss_bytes": statistics.median(run.peak_rss_bytes for run in self.runs),
                "cores_busy": statistics.median(run.cpu_s / (run.wall_s * self.cpus) for run in self.runs),
                "first_window_s": statistics.median(starts) if starts else None,
            },
            "cpus": self.cpus,
            "steady": {name: statistics.median(pace[name] for pace in paces) for name in paces[0]} if paces else None,
            "warm": self.warm,
            "scans": [
                {
                    "seriesuid": scan.seriesuid,
                    "engine": scan.engine,
                    "precision": scan.precision,
                    "cpus": scan.cpus,
                    "model_sha256": scan.model_sha256,
                    "plan": dict(scan.plan),
                    "versions": dict(scan.versions),
                    "findings": len(scan.findings),
                    "median_s": stages[scan.seriesuid],
                }
                for scan in first
            ],
            "runs": [
                {
                    **{k: v for k, v in asdict(run).items() if k != "scans"},
                    "seconds": {scan.seriesuid: dict(scan.seconds) for scan in run.scans},
                    "process": {scan.seriesuid: dict(scan.process) for scan in run.scans},
                }
                for run in self.runs
            ],
        }


def bench_scan(
    scan: str | Path,
    *,
    runs: int = RUNS,
    options: Sequence[str] = (),
    command: Sequence[str] = DETECT,
    warm: WarmTask | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ScanBench:
    """Run `rpn3d detect SCAN -o (a temporary folder) --json OPTIONS` several times and measure it.

    Args:
        scan: whatever `rpn3d detect` takes; a folder of scans is one run.
        runs: processes, one after the other.
        options: for `rpn3d detect`, such as ("--cpus", "2", "--memory", "4G").
        command: stands before SCAN; anything that writes results as `runtime.outputs` does.
        warm: what to measure in a warm process, too.
        say: takes one line of progress at a time.

    Raises:
        Rpn3dError: runs below 1, a run that fails (with the last line it wrote), or one that finds no scan.
    """
    if runs < 1:
        raise Rpn3dError(f"bench: runs is {runs}; give 1 or more")
    measured = []
    for number in range(1, runs + 1):
        run = _run(str(scan), tuple(options), tuple(command))
        measured.append(run)
        say(f"run {number}/{runs}: {run.wall_s:.2f} s, peak memory {format_memory(run.peak_rss_bytes)}")
    found = None
    if warm is not None:
        found = measure_warm(warm)
        say(f"warm process: {found['median_s']:.2f} s a scan")
    return ScanBench(describe(), (*shown(command), str(scan), *options), tuple(measured), found)


def shown(command: Sequence[str]) -> tuple[str, ...]:
    """A command as one would type it: no path of this machine's interpreter belongs in a report."""
    own = DETECT[:3]
    return ("rpn3d", *command[3:]) if tuple(command[:3]) == own else tuple(command)


def write_json(bench: ScanBench, path: str | Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(bench.as_json(), indent=1) + "\n", encoding="utf-8")
    return Path(path)


def _run(scan: str, options: tuple[str, ...], command: tuple[str, ...]) -> Run:
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        full = [*command, scan, "-o", folder, "--json", *options]
        usage = run_held(full)
        if usage.code:
            raise Rpn3dError(f"bench: {' '.join(full)} ended with exit code {usage.code}: {usage.said}")
        scans = tuple(read_results(folder))
        if not scans:
            raise Rpn3dError(f"bench: {' '.join(full)} wrote no result of a scan; does {scan} hold one?")
        return Run(usage.wall_s, usage.cpu_s, usage.peak_rss_bytes, scans)
