"""How far a training run is: a bar with the time left on a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean
from types import TracebackType
from typing import Any

from caffe_models.solver import StepResult
from runtime.duration import format_duration

SECONDS_BETWEEN = 10.0
"""Between two plain lines where the solver has no `display`."""


class StepProgress:
    """Writes to standard error; a context manager."""

    def __init__(
        self,
        start: int,
        last: int,
        display: int,
        average_loss: int,
        quiet: bool = False,
        *,
        name: str = "",
        later: float = 0.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """The run goes from iteration `start` to `last`.

        Args:
            display: a plain line comes every so many iterations; 0: every ten seconds.
            average_loss: iterations that the loss shown is the mean of.
            name: of the part of a schedule that this is.
            later: what comes after this part, in iterations of this part; it counts in the time left.
            say: takes the plain lines; None: standard error.
        """
        self._start, self._last, self._display, self._quiet = start, last, display, quiet
        self._name, self._later, self._print = name, later, say or _to_stderr
        self._losses: deque[float] = deque(maxlen=average_loss)
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "StepProgress":
        if not self._quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns: list[str | progress.ProgressColumn] = [
                *([self._name] if self._name else []),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                *([] if self._name else [progress.TimeRemainingColumn()]),
                "{task.fields[text]}",
            ]
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._last, completed=self._start, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, result: StepResult, more: str = "") -> None:
        """One iteration is done; `more` is put behind loss and rate."""
        self._losses.append(result.total_loss)
        if self._quiet:
            return
        text = f"loss {fmean(self._losses):.6g}, lr {result.lr:g}{more and f', {more}'}"
        done = result.iteration + 1
        now = time.monotonic()
        pace = (now - self._began) / (done - self._start)
        left = f"{format_duration(pace * (self._last - done + self._later))} left{' in all' if self._later else ''}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=f"{text}, {left}" if self._name else text)
            return
        due = done % self._display == 0 if self._display else now - self._said >= SECONDS_BETWEEN
        if due or done == self._last:
            self._said = now
            self.say(f"{self._name}{self._name and ' '}iteration {done}/{self._last}: {text}, {left}")

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            self._print(text)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
