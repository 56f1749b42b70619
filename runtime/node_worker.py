"""One worker of `on_nodes`: `python -m runtime.node_worker 0-15` takes its job from standard input, as a pickle.

It binds itself to its cores before any library is loaded, and writes no results but pictures: what it finds goes to the
parent, as pickles on standard output. The parent holds the other end of its standard input: when that is closed,
because the parent was interrupted or is gone, the worker ends.
"""

import _thread
import os
import pickle
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runtime.cores import hold_to
from runtime.numa import parse_list

if TYPE_CHECKING:
    from runtime.detect import Settings
    from runtime.find_scans import ScanSource

GRACE_S = 5.0
"""A worker that was told to stop has so long to end what it is writing."""


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        model, settings: for its detector, with the worker's own part of cores and memory.
        explain: whether to tell the plans.
        sources: its part of the scans.
        out: folder for the pictures.
        until_s: deadline as `time.monotonic()` of this machine has it.
    """

    model: Path
    settings: "Settings"
    explain: bool
    sources: "tuple[ScanSource, ...]"
    out: Path
    until_s: float


class Channel:
    """Sends (kind, content) to the parent; any thread may."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        with self._lock:
            pickle.dump((kind, content), self._stream)
            self._stream.flush()


def work(job: Job, channel: Channel) -> None:
    """Detect in every scan of the job."""
    from caffe_models.errors import Rpn3dError
    from runtime.detect import Detector
    from runtime.outputs import ResultFolder, ScanResult
    from runtime.pipeline import detect_all

    class Sent(ResultFolder):
        """A folder whose JSON and CSV the parent writes: it alone knows all scans."""

        def add(self, result: ScanResult) -> Path:
            channel.send("result", result)
            return self.file(result.seriesuid)

        def write_csv(self) -> Path:
            return self.path

    settings = job.settings
    if job.explain:
        settings = replace(settings, explain=lambda line: channel.send("say", line))
    try:
        outcome = detect_all(
            Detector(job.model, settings),
            job.sources,
            Sent(job.out),
            say=lambda text: channel.send("say", text),
            complain=lambda text: channel.send("complain", text),
            failed=lambda source, error: channel.send("failed", (source, error)),
            deadline_s=job.until_s - time.monotonic(),
        )
    except (Rpn3dError, OSError) as error:
        channel.send("fatal", error)
        return
    channel.send("done", (outcome.unfinished, outcome.given_up))


def _watch() -> None:
    os.read(0, 1)  # returns when the other end is closed
    _thread.interrupt_main()
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    """Bind, take the job, do it."""
    cores = parse_list(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, cores)
    hold_to(len(cores))
    channel = Channel(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what a library prints must not get among the pickles
    with os.fdopen(os.dup(0), "rb") as stream:
        job = pickle.load(stream)
    threading.Thread(target=_watch, daemon=True).start()
    try:
        work(job, channel)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
