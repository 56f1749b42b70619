"""One level of the training run: the Caffe Solver over crops, with its log, its snapshots and its progress.

What a level leaves in its folder is made so that a kill at any moment loses nothing but the iterations since the last
snapshot: snapshots appear whole or not at all, and a run that goes on cuts from every log what it will do again.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.net import Net
from caffe_models.solver import Solver
from train.crops import CropSource, Sampling
from train.dataset import PreparedScan
from train.python_layers import Crops, set_source
from train.snapshots import Snapshots
from train.step_log import StepLog
from train.stop_signals import StopSignals

LOG_NAME = "log.jsonl"

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunSettings:
    """How to run.

    Attributes:
        seed: of crops, fillers and dropout.
        autocast: forward and backward in bfloat16; weights and updates stay float32.
        threads: for PyTorch.
        iterations: stop each level after this many; None: at its solver's max_iter.
        say_every: iterations between lines of progress.
        keep: snapshots of each level that are kept, the last ones; 0: all.
    """

    seed: int = 1
    autocast: bool = True
    threads: int = 2
    iterations: int | None = None
    say_every: int = 20
    keep: int = 3


@dataclass(frozen=True)
class Surroundings:
    """What a level finds around it.

    Attributes:
        signals: who asks to stop; entered by the caller.
    """

    signals: StopSignals = field(default_factory=StopSignals)


class TrainingStopped(Exception):
    """A signal ended the run after an iteration, with a snapshot; `number` is the signal's."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def train_level(
    solver_path: Path,
    scans: Sequence[PreparedScan],
    folder: Path,
    weights: Path | None,
    settings: RunSettings,
    say: Say,
    around: Surroundings | None = None,
) -> Path:
    """Train one level in `folder`, from `weights` or from its own last snapshot.

    Returns:
        The .caffemodel of the last iteration.

    Raises:
        DatasetError, PrototxtError, WeightsError: data, net or weights that do not fit.
        Rpn3dError: log or snapshot cannot be written, or the loss is no number any more.
        TrainingStopped: by a signal.
    """
    import torch

    around = around or Surroundings()
    torch.set_num_threads(settings.threads)
    folder.mkdir(parents=True, exist_ok=True)
    solver = Solver.from_prototxt(solver_path, weights=weights, seed=settings.seed, autocast=settings.autocast)
    solver.snapshot_prefix = str(folder / Path(solver.settings.snapshot_prefix).name)
    every = solver.settings.snapshot
    solver.settings = replace(solver.settings, snapshot=0)  # they are written here, after the log and whatever else
    snapshots = Snapshots(folder, Path(solver.snapshot_prefix).name, settings.keep)
    snapshots.resume(solver, say)
    source = CropSource(scans, sampling_of(solver.net), settings.seed)
    set_source(solver.net, lambda: source(solver.iteration))
    try:
        _run(solver, settings.iterations or solver.settings.max_iter, every, snapshots, settings, say, around)
    finally:
        source.close()
    return snapshots.newest(".caffemodel")[0]


def _run(
    solver: Solver,
    last: int,
    every: int,
    snapshots: Snapshots,
    settings: RunSettings,
    say: Say,
    around: Surroundings,
) -> None:
    folder, signals = snapshots.folder, around.signals
    written = solver.iteration if snapshots.has(solver.iteration) else -1
    log_path = folder / LOG_NAME
    with naming(log_path), StepLog(log_path, solver.iteration) as log:
        while solver.iteration < last and signals.stop is None:
            start = time.perf_counter()
            step = solver.step()
            seconds = round(time.perf_counter() - start, 4)
            log.write({"iteration": step.iteration, "lr": step.lr, "losses": step.losses, "seconds": seconds})
            if not math.isfinite(step.total_loss):
                raise Rpn3dError(_diverged(step.iteration, step.total_loss, snapshots))
            if (every and solver.iteration % every == 0) or signals.snapshot:
                snapshots.write(solver)
                written, signals.snapshot = solver.iteration, False
    if solver.iteration != written:
        snapshots.write(solver)
    if signals.stop is not None:
        name = signal.Signals(signals.stop).name
        raise TrainingStopped(
            signals.stop,
            f"{name}: stopped after iteration {solver.iteration} of {folder.name}, which is in its snapshot; run the "
            "same command again to go on",
        )


def _diverged(iteration: int, loss: float, snapshots: Snapshots) -> str:
    """Going on would push the last good snapshots out by bad ones."""
    held = snapshots.newest(".solverstate")
    state = f"the last snapshot, {held[0]}, is from before" if held else "there is no snapshot yet"
    return (
        f"{snapshots.folder.name}, iteration {iteration}: the loss is {loss}; training has diverged ({state}): lower "
        "base_lr, or set clip_gradients"
    )


def sampling_of(net: Net) -> Sampling:
    """The crop and batch that the train net's `crops` layer asks for."""
    for layer in net.layers:
        held = getattr(layer, "implementation", None)
        if isinstance(held, Crops):
            return Sampling(crop=held.settings["crop"], batch=held.settings["batch"])
    raise WeightsError(f"net {net.name} has no layer `crops`; it cannot be trained on scans")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise Rpn3dError with the file's name for an OSError of writing it: a full disk does not say which file it was."""
    try:
        yield
    except OSError as error:
        raise Rpn3dError(
            f"{error.filename or path}: cannot be written ({error.strerror or error}); make room, then run the same "
            "command again: it goes on from the last snapshot"
        ) from error
