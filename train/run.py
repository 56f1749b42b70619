"""The training run: crop 32, then 64 from its weights, then 128, each through the Caffe Solver from its own prototxt.

A run is a folder. Each level has its own folder in it, `crop32`, `crop64`, `crop128`, with Caffe's snapshots and a
`log.jsonl`; a run that was stopped anywhere goes on where the last whole snapshot stands. Batches depend on seed and
iteration alone, so what follows is what would have followed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.solver_nets import read_net
from caffe_models.solver_settings import read_settings
from caffe_models.text_format import read_text
from train.dataset import PreparedScan
from train.disk import remove_leftovers
from train.level import sampling_of, train_level
from train.mine import Hard
from train.pace import voxels
from train.run_settings import RunSettings as RunSettings
from train.run_settings import Surroundings
from train.run_settings import TrainingStopped as TrainingStopped
from train.stop_signals import StopSignals
from train.validation import Validation

if TYPE_CHECKING:
    from train.distributed import ProcessShare

LOCK_NAME = ".lock"


def fast_bf16(device: str = "cpu") -> bool:
    """Whether the device multiplies bfloat16 itself; elsewhere it is emulated, many times slower than float32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def train(
    solvers: Sequence[Path],
    scans: Sequence[PreparedScan],
    out: Path,
    settings: RunSettings,
    say: Callable[[str], None],
    weights: Path | None = None,
    *,
    hard: Sequence[Hard] = (),
    validation: Validation | None = None,
    later: Sequence[Path] = (),
    share: "ProcessShare | None" = None,
) -> Path:
    """Run the schedule: each solver from the weights of the one before; the path of the last weights.

    Ctrl-C and SIGTERM end it after the iteration that is being done, with a snapshot; SIGHUP has one written.

    Args:
        solvers: one solver prototxt a level, such as solver_32, solver_64, solver_128.
        out: the run's folder; a level whose folder holds its last snapshot is not run again.
        weights: to start the first level from; None: its fillers.
        hard: what a model got wrong on the scans, to draw crops from (`train.mine`).
        validation: on what, and how often, the weights are tried; the best are kept as `best.caffemodel`.
        later: solvers that other calls will run after these; they count in the time left.
        share: this process's place among those that train together; all give the same arguments.

    Raises:
        Rpn3dError: see `train_level`; or another run is at work in `out`.
        TrainingStopped: by a signal.
    """
    work = [_voxels(solver, settings, 1 if share is None else share.processes) for solver in (*solvers, *later)]
    leads = share is None or share.leads
    with only_run(out) if leads else nullcontext(), StopSignals() as signals:
        if leads:
            remove_leftovers(out)
        for number, solver in enumerate(solvers):
            around = Surroundings(signals, hard, validation, sum(work[number + 1 :]), share)
            weights = train_level(solver, scans, out / level_name(solver), weights, settings, say, around)
    if weights is None:
        raise WeightsError("no solver was given, nothing was trained")
    return weights


@dataclass(frozen=True)
class TrainingJob:
    """`train` with all that it needs, so that other processes can be given it. Scans on disk weigh nothing in it."""

    solvers: tuple[Path, ...]
    scans: tuple[PreparedScan, ...]
    out: Path
    settings: RunSettings
    weights: Path | None = None
    hard: tuple[Hard, ...] = ()
    validation: Validation | None = None
    later: tuple[Path, ...] = ()

    def __call__(self, share: "ProcessShare | None", say: Callable[[str], None]) -> Path:
        return train(
            self.solvers,
            self.scans,
            self.out,
            self.settings,
            say,
            self.weights,
            hard=self.hard,
            validation=self.validation,
            later=self.later,
            share=share,
        )


def level_name(solver: Path) -> str:
    """Name of a level, and of its folder: crop32 for solver_32.prototxt, level2 for solver_level2.prototxt."""
    name = solver.stem.removeprefix("solver_")
    return f"crop{name}" if name.isdigit() else name


def _voxels(solver: Path, settings: RunSettings, processes: int) -> int:
    """That a level goes through, as its texts say. Raises NetError if its batch cannot be shared evenly: now, not after
    days in the level before."""
    message = read_text(solver, "SolverParameter")
    sampling = sampling_of(read_net(message, None))
    if processes > 1:
        from train.distributed import check_batch

        check_batch(solver, sampling.batch, processes)
    return voxels(sampling) * (settings.iterations or read_settings(message).max_iter)


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
