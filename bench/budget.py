"""Scans an hour for each budget: cores x memory x precision, each cell the real `rpn3d detect` held to its budget.

A cell is a process of its own. Its cores are held by affinity, its memory by a hard limit (see `held`); `--cpus` and
`--memory` tell it what it has, so it plans its windows for that. A cell that is killed, or that refuses, is a row.

Start-up is told apart from what each scan takes, by the times at which results appear where a cell has several scans,
by the seconds of its stages where it has one. Scans an hour are 3600 / each; n scans are taken to need
start + n x each. With one scan that is on the safe side, since in a set one scan is read while the network runs on
another.

Before the first cell of each precision and number of cores the model is built and compiled, not measured, so that no
cell pays for it. The first cell of all may find the scans not yet in the page cache. Cells take turns: the second round
runs in the reverse order, the third as the first; medians are over the rounds.
"""

import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.held import Usage, run_held
from bench.machine import Machine, describe
from bench.scan import DETECT, shown
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from runtime.budget import parse_memory
from runtime.duration import parse_duration
from runtime.outputs import ScanResult, read_results, safe_name

SCHEMA_VERSION = 1
MEMORY = ("1G", "2G", "4G")
PRECISIONS = ("f32", "bf16", "int8")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        scans: whatever `rpn3d detect` takes; every cell runs all of them.
        cpus: numbers of cores; (): 1, 2, 4, ... and all that this process may use.
        memory: sizes such as "2G".
        precisions: of `PRECISIONS`; (): all, bf16 only where the processor has it.
        options: more of them for every cell, such as ("--model", "folder").
        rounds: runs of each cell.
        asked: (scans, seconds) that the answers are about; None: no question.
        command: stands before the scans; anything that writes results as `runtime.outputs` does.
    """

    scans: tuple[str, ...]
    cpus: tuple[int, ...] = ()
    memory: tuple[str, ...] = MEMORY
    precisions: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    rounds: int = 1
    asked: tuple[int, float] | None = None
    command: tuple[str, ...] = DETECT


@dataclass(frozen=True)
class Cell:
    """One budget."""

    cpus: int
    memory: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.cpus} core{'s' * (self.cpus > 1)}, {self.memory}, {self.precision}"


@dataclass(frozen=True)
class Run:
    """One process of a cell.

    Attributes:
        status: completed, killed (for its memory), refused (exit code 2) or failed; message: why, unless completed.
        scans: results written; windows: the most that one of them took; precision: that really ran.
        start_s, each_s: of the time on the clock, what is paid once and what each scan takes; None unless completed.
    """

    status: str
    message: str
    usage: Usage
    scans: int = 0
    windows: int = 0
    precision: str = ""
    start_s: float | None = None
    each_s: float | None = None


def ask(scans: int | None, within: str | None) -> tuple[int, float] | None:
    """The question of `--scans N --within TIME`.

    Raises:
        Rpn3dError: one without the other, no scans, or no time.
    """
    if scans is None and within is None:
        return None
    if scans is None or within is None:
        raise Rpn3dError("--scans and --within belong together, such as --scans 200 --within 60m")
    if scans < 1:
        raise Rpn3dError(f"--scans is {scans}; give 1 or more")
    return scans, parse_duration(within)


def bench_budget(task: Task, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure all cells; what bench_budget.json holds.

    Raises:
        Rpn3dError: an unknown precision, a memory that is none, numbers below 1, or a command that cannot be started.
    """
    machine = describe()
    cells, left_out = _cells(task, machine)
    usable = _usable()
    runs: dict[Cell, list[Run]] = {cell: [] for cell in cells}
    warm: set[tuple[int, str]] = set()
    for number in range(task.rounds):
        for cell in cells[:: -1 if number % 2 else 1]:
            if any(run.status != "completed" for run in runs[cell]):
                continue  # it would end the same way
            cores = usable[: cell.cpus]
            if len(cores) == cell.cpus and (cell.cpus, cell.precision) not in warm:
                warm.add((cell.cpus, cell.precision))
                _warm(task, cell, cores)
            run = _run(task, cell, cores)
            runs[cell].append(run)
            say(f"{cell.name}: {run.message or f'{run.usage.wall_s:.1f} s'} ({run.status})")
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine.as_json(),
        "command": [*shown(task.command), *task.scans, *task.options],
        "rounds": task.rounds,
        "left_out": left_out,
        "asked": None if task.asked is None else {"scans": task.asked[0], "within_s": task.asked[1]},
        "rows": [_row(cell, usable[: cell.cpus], runs[cell]) for cell in cells],
    }


def write_json(figures: Mapping[str, Any], path: str | Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def start_and_each(wall_s: float, ready_s: Sequence[float], stages_s: float) -> tuple[float, float]:
    """Seconds that a process takes once, and for each scan, such that their sum is `wall_s` for the scans it had.

    Args:
        wall_s: from its start to its end.
        ready_s: from its start to each result, in order.
        stages_s: of one scan, where there is only one.
    """
    count = len(ready_s)
    each = stages_s if count == 1 else (ready_s[-1] - ready_s[0]) / (count - 1)
    each = min(each, wall_s / count)
    return wall_s - count * each, each


def _cells(task: Task, machine: Machine) -> tuple[list[Cell], str]:
    """All cells in order, and why a precision is not among them."""
    precisions, left_out = task.precisions, ""
    if not precisions:
        has = bool(BF16_FLAGS & set(machine.flags))
        precisions = tuple(name for name in PRECISIONS if has or name != "bf16")
        left_out = "" if has else "bf16 left out: this processor does not have it (--precision bf16 measures what runs)"
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise Rpn3dError(f'bench: precision "{unknown[0]}" is not known; allowed: {", ".join(PRECISIONS)}')
    if not task.memory:
        raise Rpn3dError("bench: no memory given; give sizes such as 1G,2G")
    for text in task.memory:
        parse_memory(text)
    cpus = task.cpus or _doubling(len(_usable()))
    if min(cpus) < 1 or task.rounds < 1:
        raise Rpn3dError(f"bench: cpus {min(cpus)}, runs {task.rounds}; give 1 or more of both")
    return [Cell(*each) for each in itertools.product(dict.fromkeys(cpus), task.memory, precisions)], left_out


def _doubling(count: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `count` itself."""
    return tuple(sorted({*(1 << k for k in range(count.bit_length()) if 1 << k <= count), count}))


def _usable() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _options(task: Task, cell: Cell) -> list[str]:
    budget = ["--cpus", str(cell.cpus), "--memory", cell.memory, "--precision", cell.precision]
    return ["--json", *budget, *task.options]


def _warm(task: Task, cell: Cell, cores: Sequence[int]) -> None:
    """Have the model built, compiled and kept: a run without a scan does that, and then says that there is none."""
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        run_held([*task.command, str(Path(folder, "none.mhd")), "-o", folder, *_options(task, cell)], cores=cores)


def _run(task: Task, cell: Cell, cores: Sequence[int]) -> Run:
    if len(cores) < cell.cpus:
        few = f"{cell.cpus} cores asked for, {len(cores)} may be used"
        return Run("refused", few, Usage(2, few, 0.0, 0.0, 0.0, 0, "nothing", 0, 0.0))
    limit = parse_memory(cell.memory)
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        command = [*task.command, *task.scans, "-o", folder, *_options(task, cell)]
        usage = run_held(command, cores=cores, memory_bytes=limit)
        if over := usage.over(limit):
            return Run("killed", over, usage)
        if usage.code:
            said = usage.said.removeprefix("rpn3d: ")
            return Run("refused" if usage.code == 2 else "failed", said or f"exit code {usage.code}", usage)
        results = read_results(folder)
        if not results:
            return Run("failed", f"no result of a scan; does {', '.join(task.scans)} hold one?", usage)
        ready = sorted(_written(folder, result) - usage.started for result in results)
    start, each = start_and_each(usage.wall_s, ready, results[0].total_seconds)
    windows = max(int(result.plan.get("windows", 0)) for result in results)
    ran = "+".join(dict.fromkeys(result.precision for result in results))
    return Run("completed", "", usage, len(results), windows, ran, start, each)


def _written(folder: str, result: ScanResult) -> float:
    return Path(folder, f"{safe_name(result.seriesuid)}.json").stat().st_mtime


def _row(cell: Cell, cores: Sequence[int], runs: Sequence[Run]) -> dict[str, Any]:
    last = runs[-1]
    row: dict[str, Any] = {
        **asdict(cell),
        "memory_bytes": parse_memory(cell.memory),
        "cores": list(cores),
        "status": last.status,
        "message": last.message,
        "held_by": last.usage.held_by,
        "ran": last.precision,
        "windows": last.windows,
        "scans": last.scans,
        "peak_rss_bytes": max(run.usage.peak_rss_bytes for run in runs),
        "runs": [asdict(run) for run in runs],
    }
    if last.status == "completed":
        walls = [run.usage.wall_s for run in runs]
        each = statistics.median(run.each_s for run in runs if run.each_s is not None)
        row |= {
            "wall_s": statistics.median(walls),
            "least_wall_s": min(walls),
            "most_wall_s": max(walls),
            "cpu_s": statistics.median(run.usage.cpu_s for run in runs),
            "busy_share": statistics.median(run.usage.cpu_s / (run.usage.wall_s * cell.cpus) for run in runs),
            "start_s": statistics.median(run.start_s for run in runs if run.start_s is not None),
            "each_s": each,
            "scans_an_hour": 3600 / each,
        }
    return row
