"""How fast training is: crops a second of `rpn3d train`'s own step against a plain PyTorch loop of the same net.

Each loop is a process of its own (`bench.training_loop`), built and warmed up before anything counts. Then they take
turns, a step each, the order reversed every time, so that a machine that slows down slows all of them; all but one are
stopped (`bench.turns`). Times are medians over the steps, and the ratio is that of the medians.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import Machine, describe
from bench.turns import Loop
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory
from train.dataset import Annotation, load_folder, prepare, save
from train.phantom import make_phantom

SCHEMA_VERSION = 1
CROPS = (32, 64, 128)
PRECISIONS = ("f32", "bf16")
STEPS, WARMUP = 8, 2
OURS, PLAIN, CONTIGUOUS = "rpn3d train", "plain", "plain contiguous"
RATIO_WANTED, WAIT_WANTED = 1.0, 0.03
"""What is aimed at: at least as many crops a second as the plain loop, and at most this share of time without data."""

PHANTOM_SEEDS = (1, 2)
PHANTOM: dict[str, Any] = {
    "size": 160,
    "spacing_mm": (2.2, 2.2, 2.5),
    "step_mm": 2.5,
    "diameters_mm": (5.0, 6.0, 8.0, 8.0, 10.0, 12.0, 16.0, 20.0),
    "nodules": 8,
    "reoriented": False,
}
"""Coarse, so that making and preparing two takes ten seconds; prepared they are as large as any lungs at 1 mm."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timings:
    """The counted steps of one loop, in order: seconds on the clock, waiting for crops, and of all cores; its peak
    memory."""

    loop: str
    batch: int
    seconds: tuple[float, ...]
    wait_s: tuple[float, ...] = field(repr=False)
    cpu_s: tuple[float, ...] = field(repr=False)
    peak_rss_bytes: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "median_s": self.median_s,
            "least_s": min(self.seconds),
            "most_s": max(self.seconds),
            "mean_s": statistics.fmean(self.seconds),
            "median_cpu_s": statistics.median(self.cpu_s),
            "crops_per_s": self.batch / self.median_s,
            "wait_share": sum(self.wait_s) / sum(self.seconds),
        }


@dataclass(frozen=True)
class Comparison:
    """The loops at one crop size in one precision; the first is ours."""

    crop: int
    precision: str
    loops: tuple[Timings, ...]

    def as_json(self) -> dict[str, Any]:
        ours, plain = self.loops[:2]
        ratio = plain.median_s / ours.median_s
        means = statistics.fmean(plain.seconds) / statistics.fmean(ours.seconds)
        loops = [one.as_json() for one in self.loops]
        head = {"crop": self.crop, "precision": self.precision, "batch": ours.batch}
        return {**head, "ratio": ratio, "ratio_of_means": means, "loops": loops}


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        data: folder of prepared scans, and `data_is`, what they are in words.
        nets: folder with a solver_<crop>.prototxt and its net for each crop.
        weights: .caffemodel that all loops start from.
        precisions: of `PRECISIONS`; left_out: why one was left out, "" where none was.
        steps: counted steps of each loop; warmup: steps before them.
        contiguous: run the plain loop in PyTorch's default memory format, too.
    """

    data: Path
    data_is: str
    nets: Path
    weights: Path
    threads: int
    crops: tuple[int, ...] = CROPS
    precisions: tuple[str, ...] = PRECISIONS
    left_out: str = ""
    steps: int = STEPS
    warmup: int = WARMUP
    contiguous: bool = False
    seed: int = 1


def bench_training(task: Task, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure; what bench_train.json holds.

    Raises:
        Rpn3dError: a crop without a solver, an unknown precision, no steps, or a loop that fails (in its last words).
        DatasetError: the data cannot be read.
    """
    solvers = {crop: solver_of(task.nets, crop) for crop in task.crops}
    if unknown := [name for name in task.precisions if name not in PRECISIONS]:
        raise Rpn3dError(f'bench: precision "{unknown[0]}" is not known; allowed: {", ".join(PRECISIONS)}')
    if task.steps < 1 or task.warmup < 0:
        raise Rpn3dError(f"bench: steps {task.steps}, warmup {task.warmup}; give 1 or more, and 0 or more")
    scans = len(load_folder(task.data))
    rows = []
    for crop, solver in solvers.items():
        for precision in task.precisions:
            rows.append(_compare(task, solver, crop, precision).as_json())
            say("\n".join(_row_lines(rows[-1])))
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": describe().as_json(),
        "threads": task.threads,
        "steps": task.steps,
        "warmup": task.warmup,
        "data": task.data_is,
        "scans": scans,
        "left_out": task.left_out,
        "rows": rows,
    }


def solver_of(nets: Path, crop: int) -> Path:
    """The solver prototxt for crops of this size. Raises Rpn3dError if there is none."""
    path = nets / f"solver_{crop}.prototxt"
    if not path.is_file():
        names = [found.stem.removeprefix("solver_") for found in nets.glob("solver_*.prototxt")]
        known = sorted(int(name) for name in names if name.isdecimal())  # solver_level2 has the crops of solver_128
        raise Rpn3dError(f"bench: there is no {path.name} for crop {crop}; crops are {', '.join(map(str, known))}")
    return path


def make_data(folder: Path, say: Say = lambda text: None) -> str:
    """Make and prepare small phantoms in `folder`; what they are, in words."""
    for seed in PHANTOM_SEEDS:
        say(f"making phantom {seed}")
        made = make_phantom(seed, **PHANTOM)
        nodules = [Annotation(n.x_mm, n.y_mm, n.z_mm, n.diameter_mm) for n in made.nodules]
        save(prepare(made.volume, nodules, (), mining=True).scan, folder)
    seeds = ", ".join(map(str, PHANTOM_SEEDS))
    return f"{len(PHANTOM_SEEDS)} phantoms of {PHANTOM['size']} pixels made for this run (seeds {seeds})"


def write_json(figures: Mapping[str, Any], path: Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return path


def table(figures: Mapping[str, Any]) -> str:
    """The JSON's figures as text: a block for each crop size and precision, a line in it for each loop."""
    lines = [
        f"machine   {Machine(**figures['machine']).line()}",
        f"torch     {figures['machine']['packages'].get('torch', '?')}, {figures['threads']} threads, medians of "
        f"{figures['steps']} steps that take turns, after {figures['warmup']}",
        f"data      {figures['data']}",
        "",
        f"{'crop':<6}{'in':<6}{'batch':<7}{'loop':<18}{'crops/s':>8}{'median':>11}{'least - most':>20}{'all cores':>12}"
        f"{'waits':>7}{'memory':>10}",
    ]
    for row in figures["rows"]:
        lines += _row_lines(row)
    lines += [figures["left_out"]] if figures["left_out"] else []
    lines += [
        "",
        "ratio: crops a second of rpn3d train by those of plain, which has no data to read and its targets ready;",
        f"at least {RATIO_WANTED:g} is aimed at, and waits (between asking for a batch and having it) of at most "
        f"{WAIT_WANTED:.0%}.",
    ]
    return "\n".join(lines)


def _row_lines(row: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in row["loops"]:
        start = f"{row['crop']:<6}{row['precision']:<6}{row['batch']:<7}{one['loop']:<18}"
        spread = f"{one['least_s']:.3f} - {one['most_s']:.3f} s"
        lines.append(
            f"{start}{one['crops_per_s']:>8.3f}{one['median_s']:>9.3f} s{spread:>20}{one['median_cpu_s']:>10.3f} s"
            f"{one['wait_share']:>7.1%}{format_memory(one['peak_rss_bytes']):>10}"
        )
    lines.append(f"{'':<19}ratio {row['ratio']:.3f} (of the means {row['ratio_of_means']:.3f})")
    return lines


def _compare(task: Task, solver: Path, crop: int, precision: str) -> Comparison:
    names = (OURS, PLAIN, CONTIGUOUS) if task.contiguous else (OURS, PLAIN)
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder, ExitStack() as stack:
        loops: list[Loop] = []
        for name in names:
            job = {
                "loop": name,
                "solver": str(solver.resolve()),
                "weights": str(task.weights.resolve()),
                "data": str(task.data.resolve()),
                "crop": crop,
                "batch": loops[0].batch if loops else 0,  # the train net says how many crops; the others take as many
                "bf16": precision == "bf16",
                "threads": task.threads,
                "seed": task.seed,
            }
            loops.append(stack.enter_context(Loop(job, Path(folder, name.replace(" ", "_")))))
            loops[-1].turn(task.warmup)
        counted: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(task.steps):
            for loop in loops[:: -1 if number % 2 else 1]:
                counted[loop.name] += loop.turn(1)
        batch = loops[0].batch
    return Comparison(crop, precision, tuple(_timings(name, batch, steps) for name, steps in counted.items()))


def _timings(name: str, batch: int, steps: Sequence[Mapping[str, float]]) -> Timings:
    seconds, wait_s, cpu_s = (tuple(step[key] for step in steps) for key in ("seconds", "wait_s", "cpu_s"))
    return Timings(name, batch, seconds, wait_s, cpu_s, int(steps[-1]["peak_rss_bytes"]))
