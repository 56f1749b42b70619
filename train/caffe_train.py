"""Plain Caffe training on arrays: what `rpn3d caffe train` does. Follows BVLC Caffe's `Solver::Solve` and `Step`."""

import math
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caffe_models.errors import NetError, Rpn3dError
from caffe_models.solver import Solver, StepResult
from runtime.budget import freed_memory_kept
from train.array_feed import Array, ArrayFeed
from train.step_log import StepLog
from train.step_progress import StepProgress
from train.stop_signals import StopSignals

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Trained:
    """How a run ended.

    Attributes:
        solver: as it stands.
        snapshot: the last .solverstate that this run wrote.
        stopped_by: number of the signal that ended it early.
    """

    solver: Solver
    snapshot: Path | None
    stopped_by: int | None


def train_on_arrays(
    solver_path: Path,
    feed_path: Path,
    log_path: Path,
    weights: Path | None = None,
    snapshot: Path | None = None,
    dialect: str | None = None,
    *,
    test_feeds: Sequence[Path] = (),
    seed: int | None = None,
    threads: int | None = None,
    quiet: bool = True,
) -> Trained:
    """Run a solver over fed inputs to its max_iter, or to the end of the feed where that comes first.

    Ctrl-C and SIGTERM end the run after the iteration that is being done, with a snapshot; SIGHUP has one written.

    Args:
        feed_path: .npz; each Input layer's blob as (iterations, iter_size, *shape).
        log_path: gets one JSON object a line: {"iteration", "lr", "losses": {top: mean over iter_size}}, and for each
            test {"iteration", "test": {top: mean over test_iter}} (with several test nets also "test_net", their
            number; with `test_compute_loss` also "test_loss"). "-" is standard output. A run that goes on from a
            snapshot continues the log: lines from its iteration on are replaced.
        weights: start from this caffemodel; snapshot: go on from this solverstate (iterations before it are passed
            over in the feed). Not both.
        dialect: of solver and nets; None: found out from the texts.
        test_feeds: for each test net of the solver an .npz with each of its Input blobs as (passes, *shape), of which
            every test takes the first test_iter passes. Without them nothing is tested, which is said.
        seed: of fillers and everything random; None: the solver's random_seed.
        threads: for PyTorch; None: as they are.
        quiet: no progress on standard error.

    Raises:
        NetError: a feed that cannot be read, does not fit the net, or holds NaN; found before the first iteration.
        PrototxtError, WeightsError: see `Solver.from_prototxt` and `Solver.restore`.
        OSError: log or snapshots cannot be written.
    """
    import torch

    if weights is not None and snapshot is not None:
        raise Rpn3dError("a snapshot to go on from or weights to start from, not both: a snapshot has its own weights")
    if threads is not None:
        torch.set_num_threads(threads)
    solver = Solver.from_prototxt(solver_path, weights=weights, seed=seed, dialect=dialect)
    if snapshot is not None:
        solver.restore(snapshot)
    settings = solver.settings
    if not solver.net.inputs:
        raise NetError(f"{solver_path}: net {solver.net.name} has no Input layer, there is nothing to feed")
    feed = ArrayFeed(feed_path, solver.net.inputs, (settings.iter_size,), "iterations")
    last = min(feed.count, settings.max_iter) if settings.max_iter else feed.count
    if not feed.count:
        raise NetError(f"{feed_path}: holds no iteration")
    tests = _test_feeds(solver, solver_path, test_feeds, dialect)
    start = solver.iteration
    feed.check(start, last)
    _check_writable(Path(solver.snapshot_prefix).parent)
    progress = StepProgress(start, last, settings.display, settings.average_loss, quiet)
    with (
        freed_memory_kept(),
        StopSignals() as signals,
        StepLog(log_path, None if snapshot is None else start) as log,
        progress,
    ):
        for line in _remarks(solver, feed, last, tests):
            progress.say(line)
        return _run(solver, feed, tests, last, log, progress, signals)


def _run(
    solver: Solver,
    feed: ArrayFeed,
    tests: Sequence[ArrayFeed],
    last: int,
    log: StepLog,
    progress: StepProgress,
    signals: StopSignals,
) -> Trained:
    written: Path | None = None
    written_at, diverged = solver.iteration, False  # nothing new to write before the first iteration
    for arrays in feed.steps(solver.iteration, last):
        _test(solver, tests, log)
        result = solver.step(_passes(arrays, solver.settings.iter_size))
        log.write({"iteration": result.iteration, "lr": result.lr, "losses": result.losses})
        progress.step(result)
        diverged = diverged or _say_if_diverged(result, progress)
        if result.snapshot is not None or signals.snapshot:
            written = result.snapshot or solver.snapshot()
            written_at, signals.snapshot = solver.iteration, False
        if signals.stop is not None:
            break
    asked = signals.stop is not None or solver.settings.snapshot_after_train
    if asked and solver.iteration != written_at:
        written = solver.snapshot()
    if signals.stop is None:
        _test(solver, tests, log)
    else:
        progress.say(f"{signal.Signals(signals.stop).name}: stopped after {solver.iteration} iterations")
    return Trained(solver, written, signals.stop)


def _passes(arrays: Mapping[str, Array], count: int) -> "list[dict[str, torch.Tensor]]":
    import torch

    return [{blob: torch.from_numpy(array[k]) for blob, array in arrays.items()} for k in range(count)]


def _test(solver: Solver, feeds: Sequence[ArrayFeed], log: StepLog) -> None:
    """Test every test net if it is time to."""
    import torch

    if not feeds or not solver.test_is_due:
        return

    def tensors(feed: ArrayFeed, passes: int) -> "Iterator[dict[str, torch.Tensor]]":
        for arrays in feed.steps(0, passes):
            yield {blob: torch.from_numpy(array) for blob, array in arrays.items()}

    for index, (feed, passes) in enumerate(zip(feeds, solver.settings.test_iter, strict=True)):
        found = solver.test(index, tensors(feed, passes))
        number = {"test_net": index} if len(feeds) > 1 else {}
        loss = {} if found.loss is None else {"test_loss": found.loss}
        log.write({"iteration": solver.iteration, "test": found.scores, **number, **loss})


def _test_feeds(solver: Solver, solver_path: Path, paths: Sequence[Path], dialect: str | None) -> list[ArrayFeed]:
    """The feeds of the test nets, which are read here; none without `paths`."""
    if not paths:
        return []
    wanted = solver.settings.test_iter
    if len(paths) != len(wanted):
        raise NetError(f"{solver_path}: {len(paths)} test feeds for {len(wanted)} test nets (test_iter); give one each")
    feeds = []
    for net, path, passes in zip(solver.add_test_nets(solver_path, dialect), paths, wanted, strict=True):
        feed = ArrayFeed(path, net.inputs, (), "passes")
        if feed.count < passes:
            raise NetError(f"{path}: holds {feed.count} passes, test_iter is {passes}")
        feed.check(0, passes)
        feeds.append(feed)
    return feeds


def _remarks(solver: Solver, feed: ArrayFeed, last: int, tests: Sequence[ArrayFeed]) -> Iterator[str]:
    """What the user should know before the first iteration."""
    settings = solver.settings
    if settings.max_iter > feed.count:
        yield f"{feed.path}: holds {feed.count} of max_iter {settings.max_iter} iterations; the run ends with them"
    for one in (feed, *tests):
        if one.unused:
            yield f"{one.path}: no input of the net takes {', '.join(one.unused)}"
    if settings.test_iter and not tests:
        yield f"the solver asks for tests, but there is no test feed: {len(settings.test_iter)} test nets are left out"
    if solver.iteration >= last:
        yield f"{solver.iteration} iterations are done already, nothing is left to do"


def _say_if_diverged(result: StepResult, progress: StepProgress) -> bool:
    if math.isfinite(result.total_loss):
        return False
    progress.say(
        f"iteration {result.iteration}: the loss is {result.total_loss}; training has diverged: lower base_lr, or set "
        "clip_gradients"
    )
    return True


def _check_writable(folder: Path) -> None:
    """Raises OSError now rather than at the first snapshot."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
