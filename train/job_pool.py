"""Runs the jobs of preparing, in other processes if more than one may work, with progress and time left.

Ctrl-C ends everything at once, and so may a kill: what was being made vanishes, what is made stays.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from caffe_models.errors import Rpn3dError
from runtime.duration import format_duration
from train.prepare_jobs import Job
from train.prepared_scan import DatasetError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Failure:
    """A scan that could not be prepared: why, in one line, and the traceback if it is a defect of ours."""

    seriesuid: str
    why: str
    trace: str = ""


class JobProgress:
    """Counts jobs: a bar with the time left on a terminal, else a line after each; a context manager."""

    def __init__(self, total: int, say: Say, bar: bool = False) -> None:
        """Args: say: takes a line; bar: draw a bar on standard error instead of saying what is done."""
        self.done, self.total, self._say = 0, total, say
        self._bar: Any = None
        self._task: Any = None
        self._wanted = bar and total > 0
        self._began = time.monotonic()

    def __enter__(self) -> "JobProgress":
        if self._wanted:
            from rich import progress
            from rich.console import Console

            columns = (
                "preparing",
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                "{task.fields[text]}",
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def ready(self, seriesuid: str, failure: Failure | None) -> None:
        """A job has ended."""
        self.done += 1
        if failure is not None:
            self._say(f"not prepared: {seriesuid}: {failure.why}")
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, text=seriesuid)
        elif failure is None:
            left = (time.monotonic() - self._began) / self.done * (self.total - self.done)
            self._say(f"prepared {self.done}/{self.total}: {seriesuid}, {format_duration(left)} left")

    def pass_over(self, count: int) -> None:
        """Jobs that will not be run, since what they need could not be prepared."""
        self.total -= count


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, progress: JobProgress) -> list[Failure]:
    """Prepare `jobs` into `folder`; those that fail are named and the rest goes on.

    Raises:
        DatasetError: a process was killed from outside, as when memory runs out.
        OSError: the folder cannot be written, or the disk is full.
        KeyboardInterrupt: Ctrl-C; the other processes have ended.
    """
    if workers < 2 or len(jobs) < 2:
        return [failure for job in jobs if (failure := _run_here(job, folder, progress)) is not None]
    failures: list[Failure] = []
    # spawned, not forked: a fork copies the locks of whatever threads PyTorch, ITK and the bar have running
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_start_worker, initargs=(os.getpid(),))
    waiting: dict[Future[Failure | None], Job] = {}
    try:
        # blocked here, Ctrl-C is blocked in the processes that start now: it is for this one to end them
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            waiting.update({pool.submit(_run, job, folder, 1): job for job in jobs})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while waiting:
            ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for one in ended:
                failure = one.result()
                if failure is not None:
                    failures.append(failure)
                progress.ready(waiting.pop(one).seriesuid, failure)
    except BrokenProcessPool:
        raise DatasetError(
            f"a process that prepares was killed from outside, most likely because memory ran out; {progress.done} of "
            f"{progress.total} are prepared; the same command goes on from there, with fewer --cpus it needs less"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            if waiting:
                process.kill()
            process.join()
    return failures


def _run_here(job: Job, folder: Path, progress: JobProgress) -> Failure | None:
    failure = _run(job, folder, 2)
    progress.ready(job.seriesuid, failure)
    return failure


def _run(job: Job, folder: Path, threads: int) -> Failure | None:
    try:
        job.make(folder, threads)
    except Rpn3dError as error:
        return Failure(job.seriesuid, str(error))
    except OSError:
        raise  # a full disk fails every scan
    except Exception as error:  # a defect that one scan shows must not cost the night's work on the others
        return Failure(job.seriesuid, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None


def _start_worker(parent: int) -> None:
    """End when the parent has ended: a killed parent cannot tell."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
