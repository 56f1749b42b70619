"""Ctrl-C, SIGTERM and SIGHUP during a training run, as Caffe takes them: stop with a snapshot, or a snapshot alone."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While entered: SIGINT (Ctrl-C) and SIGTERM set `stop` to their number, SIGHUP sets `snapshot`.

    Nothing is cut off: the run asks after each iteration. A second SIGINT or SIGTERM acts as it always does. Outside
    the main thread, where Python takes no signals, nothing is ever set.
    """

    _stopping = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stop: int | None = None
        self.snapshot = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (*self._stopping, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in list(self._before):
            self._give_back(number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number not in self._stopping:
            self.snapshot = True
            return
        self.stop = number
        for one in self._stopping:
            self._give_back(one)

    def _give_back(self, number: int) -> None:
        if number in self._before:
            signal.signal(number, self._before.pop(number))
