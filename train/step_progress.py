"""How far a training run is: a bar with the time left on a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections import deque
from statistics import fmean
from types import TracebackType
from typing import Any

from caffe_models.solver import StepResult

SECONDS_BETWEEN = 10.0
"""Between two plain lines where the solver has no `display`."""


class StepProgress:
    """Writes to standard error; a context manager."""

    def __init__(self, start: int, last: int, display: int, average_loss: int, quiet: bool = False) -> None:
        """Args: the run goes from iteration `start` to `last`; a plain line comes every `display` iterations."""
        self._start, self._last, self._display, self._quiet = start, last, display, quiet
        self._losses: deque[float] = deque(maxlen=average_loss)
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "StepProgress":
        if not self._quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                "{task.fields[text]}",
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._last, completed=self._start, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, result: StepResult) -> None:
        """One iteration is done."""
        self._losses.append(result.total_loss)
        if self._quiet:
            return
        text = f"loss {fmean(self._losses):.6g}, lr {result.lr:g}"
        done = result.iteration + 1
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
            return
        now = time.monotonic()
        due = done % self._display == 0 if self._display else now - self._said >= SECONDS_BETWEEN
        if due or done == self._last:
            self._said = now
            left = (now - self._began) / (done - self._start) * (self._last - done)
            self.say(f"iteration {done}/{self._last}: {text}, {_duration(left)} left")

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
