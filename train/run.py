"""The training run: crop 32, then 64 from its weights, then 128, each through the Caffe Solver from its own prototxt.

A run is a folder. Each level has its own folder in it, `crop32`, `crop64`, `crop128`, with Caffe's snapshots and a
`log.jsonl`; a run that was stopped anywhere goes on where the last whole snapshot stands. Batches depend on seed and
iteration alone, so what follows is what would have followed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from caffe_models.errors import Rpn3dError, WeightsError
from train.dataset import PreparedScan
from train.level import RunSettings as RunSettings
from train.level import Surroundings, train_level
from train.level import TrainingStopped as TrainingStopped
from train.stop_signals import StopSignals

LOCK_NAME = ".lock"


def fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; elsewhere it is emulated, many times slower than float32."""
    import torch

    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def train(
    solvers: Sequence[Path],
    scans: Sequence[PreparedScan],
    out: Path,
    settings: RunSettings,
    say: Callable[[str], None],
    weights: Path | None = None,
) -> Path:
    """Run the schedule: each solver from the weights of the one before; the path of the last weights.

    Ctrl-C and SIGTERM end it after the iteration that is being done, with a snapshot; SIGHUP has one written.

    Args:
        solvers: one solver prototxt a level, such as solver_32, solver_64, solver_128.
        out: the run's folder; a level whose folder holds its last snapshot is not run again.
        weights: to start the first level from; None: its fillers.

    Raises:
        Rpn3dError: see `train_level`; or another run is at work in `out`.
        TrainingStopped: by a signal.
    """
    with only_run(out), StopSignals() as signals:
        for solver in solvers:
            folder = out / solver.stem.replace("solver_", "crop")
            weights = train_level(solver, scans, folder, weights, settings, say, Surroundings(signals))
    if weights is None:
        raise WeightsError("no solver was given, nothing was trained")
    return weights


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold the folder for this run; the system lets go of it however the process ends.

    Raises:
        Rpn3dError: another process holds it: two runs would write over each other's snapshots.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK_NAME).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise Rpn3dError(
                f"{out}: process {lock.read().strip() or '(unknown)'} trains there already; wait for it, stop it, or "
                "give another folder"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
