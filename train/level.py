"""One level of the training run: the Caffe Solver over crops, with its log, its snapshots and its progress.

What a level leaves in its folder is made so that a kill at any moment loses nothing but the iterations since the last
snapshot: snapshots appear whole or not at all, and a run that goes on cuts from every log what it will do again.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.net import Net
from caffe_models.solver import Solver
from runtime.budget import freed_memory_kept
from train.board import TRAINING, Board, Picture
from train.crop_pictures import draw_crops
from train.crops import CropSource, Sampling
from train.dataset import PreparedScan
from train.device import net_on
from train.disk import naming, remove_leftovers
from train.level_validation import LevelValidation
from train.pace import Pace
from train.python_layers import CropBatch, Crops, set_source
from train.run_settings import RunSettings, Say, Surroundings, TrainingStopped
from train.snapshots import Snapshots
from train.step_log import StepLog
from train.step_progress import StepProgress

LOG_NAME = "log.jsonl"
MEAN_OVER = 50
SHOWN = ("data", "nodules", "head")
"""Blobs that pictures are drawn from."""


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
    net = net_on(settings.device, solver_path, settings.seed)
    solver = Solver.from_prototxt(solver_path, weights, net, seed=settings.seed, autocast=settings.autocast)
    solver.snapshot_prefix = str(folder / Path(solver.settings.snapshot_prefix).name)
    snapshots = Snapshots(folder, Path(solver.snapshot_prefix).name, settings.keep)
    if around.leads:
        remove_leftovers(folder)
    snapshots.resume(solver, say)
    sampling = sampling_of(solver.net)
    source = CropSource(scans, sampling, settings.seed, around.hard)
    pace = Pace(source, sampling)
    draw: Callable[[int], CropBatch] = pace
    if around.share is not None:
        from train.distributed import rows_of, share_batch

        share_batch(solver, around.share)
        draw = rows_of(pace, around.share)
    set_source(solver.net, lambda: draw(solver.iteration), settings.device)
    try:
        with freed_memory_kept():
            _Level(solver, snapshots, pace, settings, around, around.later_voxels / pace.voxels, say).run()
    finally:
        source.close()
    if around.share is not None:
        around.share.wait()  # the last snapshot is there then
    return snapshots.newest(".caffemodel")[0]


class _Level:
    """A level at work: what is done round each iteration of its solver."""

    def __init__(
        self,
        solver: Solver,
        snapshots: Snapshots,
        pace: Pace,
        settings: RunSettings,
        around: Surroundings,
        later: float,
        say: Say,
    ) -> None:
        self.solver, self.snapshots, self.pace, self.settings = solver, snapshots, pace, settings
        self.signals, self.folder = around.signals, snapshots.folder
        self.share, self.leads = around.share, around.leads
        self.last = settings.iterations or solver.settings.max_iter
        self.every = solver.settings.snapshot
        solver.settings = replace(solver.settings, snapshot=0)  # they are written here, after whatever else is
        validation = around.validation if self.leads else None
        self.validation = LevelValidation(
            validation, self.folder, solver.iteration, self.last, pace.voxels, writes=self.leads
        )
        self.losses: deque[Mapping[str, float]] = deque(maxlen=MEAN_OVER)
        self.progress = StepProgress(
            solver.iteration,
            self.last,
            settings.say_every,
            MEAN_OVER,
            settings.quiet or not self.leads,
            name=self.folder.name,
            later=later,
            say=say,
        )
        self.board: Board | None = None
        self.written = -1
        """Iteration of the last snapshot."""

    def run(self) -> None:
        """From where the solver stands to the last iteration, or to a signal."""
        solver, signals, log_path = self.solver, self.signals, self.folder / LOG_NAME
        with ExitStack() as open_files:
            open_files.enter_context(naming(log_path))
            log = open_files.enter_context(StepLog(log_path, solver.iteration)) if self.leads else None
            open_files.enter_context(self.progress)
            if self.settings.tensorboard and self.leads:
                done = self.validation.has(solver.iteration)
                board = Board(self.folder.parent, self.folder.name, solver.iteration, done, self.progress.say)
                self.board = open_files.enter_context(board)
            self.written = solver.iteration if self.snapshots.has(solver.iteration) else -1
            while True:
                self.validation.run_if_due(
                    solver.net, solver.iteration, self.board, self.progress.say, lambda: signals.stop is not None
                )
                if self.share is not None:  # what one was told, all do, after the same iteration
                    stop, snapshot = self.share.highest([signals.stop or 0, signals.snapshot])
                    signals.stop, signals.snapshot = stop or None, bool(snapshot)
                if solver.iteration >= self.last or signals.stop is not None:
                    break
                self._step(log)
                due = self.every and solver.iteration % self.every == 0
                if due or signals.snapshot or signals.stop is not None or solver.iteration == self.last:
                    self._snapshot()
            self._snapshot()
            if share := self.validation.share():
                self.progress.say(f"{self.folder.name}: validation took {share:.1%} of the time")
        if signals.stop is not None:
            name = signal.Signals(signals.stop).name
            raise TrainingStopped(
                signals.stop,
                f"{name}: stopped after iteration {solver.iteration} of {self.folder.name}, which is in its snapshot; "
                "run the same command again to go on",
            )

    def _step(self, log: StepLog | None) -> None:
        solver, settings = self.solver, self.settings
        start = time.perf_counter()
        draws = self.board is not None and self.board.is_open and solver.iteration % settings.pictures_every == 0
        solver.keep = SHOWN if draws else ()
        step = solver.step()
        seconds = time.perf_counter() - start
        waited = self.pace.step(seconds)
        times = {"seconds": round(seconds, 4), "waited_seconds": round(waited, 4)}
        if log is not None:
            log.write({"iteration": step.iteration, "lr": step.lr, "losses": step.losses, **times})
        if not math.isfinite(step.total_loss):
            raise Rpn3dError(_diverged(step.iteration, step.total_loss, self.snapshots))
        self.losses.append(step.losses)
        means = ", ".join(f"{name} {fmean(losses[name] for losses in self.losses):.4f}" for name in step.losses)
        self.progress.step(step, f"{means}, {self.pace.wait_share:.1%} waiting for data")
        if self.board is not None:
            figures = {**step.losses, "loss": step.total_loss, "lr": step.lr}
            figures |= {"crops_per_s": self.pace.crops_per_s, "share_of_time_waiting_for_data": self.pace.wait_share}
            self.board.write(TRAINING, solver.iteration, figures, {"crops": self._picture()} if draws else {})

    def _picture(self) -> Picture:
        data, nodules, head = (self.solver.kept[blob].float().cpu().numpy() for blob in SHOWN)
        self.solver.kept = {}
        return draw_crops(data, nodules, head)

    def _snapshot(self) -> None:
        """Write one, if this process is to and there is none of this iteration yet."""
        self.signals.snapshot = False
        if not self.leads or self.written == self.solver.iteration:
            return
        if self.board is not None:
            self.board.flush()
        self.snapshots.write(self.solver)
        self.written = self.solver.iteration


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
