"""The training run: crop 32, then 64 from its weights, then 128, each through the Caffe Solver from its own prototxt.

A run is a folder. Each level has its own folder in it, `crop32`, `crop64`, `crop128`, with Caffe's snapshots and a
`log.jsonl`; a run that was stopped anywhere goes on where the last whole snapshot stands. Batches depend on seed and
iteration alone, so what follows is what would have followed.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from caffe_models.errors import WeightsError
from caffe_models.solver import Solver
from train.crops import CropSource, Sampling
from train.dataset import PreparedScan
from train.python_layers import Crops, set_source
from train.step_log import cut

LOG_NAME = "log.jsonl"
MEAN_OVER = 50


@dataclass(frozen=True)
class RunSettings:
    """How to run.

    Attributes:
        seed: of crops, fillers and dropout.
        autocast: forward and backward in bfloat16; weights and updates stay float32.
        threads: for PyTorch.
        iterations: stop each level after this many; None: at its solver's max_iter.
        say_every: iterations between lines of progress.
    """

    seed: int = 1
    autocast: bool = True
    threads: int = 2
    iterations: int | None = None
    say_every: int = 20


def fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; elsewhere it is emulated, many times slower than float32."""
    import torch

    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def newest(folder: Path, suffix: str) -> list[Path]:
    """Snapshots of a level by iteration, the newest first; `suffix` is .solverstate or .caffemodel."""
    found = folder.glob(f"[!.]*_iter_*{suffix}")  # a name with a dot in front was left by a run killed while writing
    return sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]), reverse=True)


def train_level(
    solver_path: Path,
    scans: Sequence[PreparedScan],
    folder: Path,
    weights: Path | None,
    settings: RunSettings,
    say: Callable[[str], None],
) -> Path:
    """Train one level in `folder`, from `weights` or from its own last snapshot.

    Returns:
        The .caffemodel of the last iteration.

    Raises:
        DatasetError, PrototxtError, WeightsError: data, net or weights that do not fit.
    """
    import torch

    torch.set_num_threads(settings.threads)
    folder.mkdir(parents=True, exist_ok=True)
    solver = Solver.from_prototxt(solver_path, weights=weights, seed=settings.seed, autocast=settings.autocast)
    solver.snapshot_prefix = str(folder / Path(solver.settings.snapshot_prefix).name)
    _resume(solver, folder, say)
    source = CropSource(scans, sampling_of(solver), settings.seed)
    set_source(solver.net, lambda: source(solver.iteration))
    last = settings.iterations or solver.settings.max_iter
    recent: deque[Mapping[str, float]] = deque(maxlen=MEAN_OVER)
    start, first = time.perf_counter(), solver.iteration
    with (folder / LOG_NAME).open("a", encoding="utf-8") as log:
        while solver.iteration < last:
            step = solver.step()
            recent.append(step.losses)
            seconds = round(time.perf_counter() - start, 3)
            line = {"iteration": step.iteration, "lr": step.lr, "losses": step.losses, "seconds": seconds}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if solver.iteration % settings.say_every == 0 or solver.iteration == last:
                left = seconds / (solver.iteration - first) * (last - solver.iteration)
                means = ", ".join(f"{name} {fmean(losses[name] for losses in recent):.4f}" for name in step.losses)
                say(f"{folder.name} {solver.iteration}/{last}: {means}, lr {step.lr:g}, {left / 60:.1f} min left")
    if not newest(folder, ".caffemodel") or not newest(folder, ".caffemodel")[0].stem.endswith(f"_{last}"):
        solver.snapshot()
    source.close()
    return newest(folder, ".caffemodel")[0]


def sampling_of(solver: Solver) -> Sampling:
    """The crop and batch that the train net's `crops` layer asks for."""
    for layer in solver.net.layers:
        held = getattr(layer, "implementation", None)
        if isinstance(held, Crops):
            return Sampling(crop=held.settings["crop"], batch=held.settings["batch"])
    raise WeightsError(f"net {solver.net.name} has no layer `crops`; it cannot be trained on scans")


def _resume(solver: Solver, folder: Path, say: Callable[[str], None]) -> None:
    """Go on from the newest snapshot that is whole; a broken one is passed over, and said."""
    for state in newest(folder, ".solverstate"):
        try:
            solver.restore(state)
        except WeightsError as error:
            say(f"passed over: {error}")
            continue
        say(f"{folder.name}: goes on from {state.name}")
        if (folder / LOG_NAME).is_file():
            cut(folder / LOG_NAME, solver.iteration)
        return


def train(
    solvers: Sequence[Path],
    scans: Sequence[PreparedScan],
    out: Path,
    settings: RunSettings,
    say: Callable[[str], None],
    weights: Path | None = None,
) -> Path:
    """Run the schedule: each solver from the weights of the one before; the path of the last weights.

    Args:
        solvers: one solver prototxt a level, such as solver_32, solver_64, solver_128.
        out: the run's folder; a level whose folder holds its last snapshot is not run again.
        weights: to start the first level from; None: its fillers.
    """
    for solver in solvers:
        folder = out / solver.stem.replace("solver_", "crop")
        weights = train_level(solver, scans, folder, weights, settings, say)
    if weights is None:
        raise WeightsError("no solver was given, nothing was trained")
    return weights
