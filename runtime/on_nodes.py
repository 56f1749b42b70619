"""Many scans on a machine of several memories: one worker process on each NUMA node, with that node's cores alone.

The scans are dealt out beforehand. Workers compute; this process writes every JSON and the CSV, as results come, so
that the folder looks as it does after `pipeline.detect_all`, at every moment. A worker that dies takes only its own
scans along: those of it that were not ready are listed as failed.
"""

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from typing import Any, TextIO

from caffe_models.errors import Rpn3dError
from runtime.detect import Detector, Settings
from runtime.find_scans import ScanSource
from runtime.node_worker import GRACE_S, Job
from runtime.numa import Node
from runtime.outputs import ResultFolder, ScanResult
from runtime.pipeline import Outcome, Say, detect_all, find_all
from runtime.report_table import print_report

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "runtime.node_worker")


@dataclass
class _Worker:
    """One process. `settled`: how many of its scans, in their order, are done or failed; `ended`: it said so itself."""

    name: str
    share: list[int]
    process: "subprocess.Popen[bytes]"
    settled: int = 0
    ended: bool = False
    listener: threading.Thread = field(default_factory=threading.Thread)


@dataclass
class _Collected:
    """What all workers have told so far; scans by their place in the work."""

    results: dict[int, ScanResult] = field(default_factory=dict)
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)


def detect_on_nodes(
    model: Path,
    settings: Settings,
    paths: Sequence[str | Path | ScanSource],
    out: str | Path | ResultFolder,
    nodes: Sequence[Node],
    *,
    report: TextIO | None = None,
    say: Say = lambda text: None,
    complain: Say = lambda text: None,
    deadline_s: float = float("inf"),
    command: Sequence[str] = COMMAND,
) -> Outcome:
    """As `pipeline.detect_all`, with a worker on each node; without workers for one scan, or one node.

    Each worker gets its node's cores and an even part of the memory. With less memory a scan may be cut into windows
    that it would not be cut into otherwise; all else being equal the results are the same.

    Args:
        model, settings: of the detector.
        nodes: cores of each, see `runtime.cores.hold_to`.
        command: starts a worker, for tests.

    Raises:
        NetError: the model cannot be loaded.
        OSError: the results cannot be written.
    """
    until_s = time.monotonic() + deadline_s
    unfound: list[tuple[str, str]] = []
    several = len(nodes) > 1
    sources = find_all(paths, lambda path, error: unfound.append((str(path), str(error)))) if several else []
    if len(sources) < 2:
        return detect_all(
            Detector(model, settings), paths, out, report=report, say=say, complain=complain, deadline_s=deadline_s
        )
    for _, error in unfound:
        complain(f"rpn3d: {error}")
    folder, found = out if isinstance(out, ResultFolder) else ResultFolder(out), _Collected()
    messages: queue.Queue[tuple[_Worker, str, Any]] = queue.Queue()
    workers: list[_Worker] = []

    def take(worker: _Worker, kind: str, content: Any) -> None:
        """Take in one message of a worker."""
        if kind == "say":
            say(f"{worker.name}: {content}")
        elif kind == "complain":
            complain(content)
        elif kind == "failed":
            found.failures[worker.share[worker.settled]] = content
            worker.settled += 1
        elif kind == "result":
            number = worker.share[worker.settled]
            worker.settled += 1
            try:
                folder.add(content)
            except Rpn3dError as error:
                found.failures[number] = (str(sources[number].path), str(error))
                complain(f"rpn3d: {error}")
                return
            found.results[number] = content
            if report is not None:
                print_report(content, stream=report)
        elif kind == "done":
            worker.ended = True
            found.unfinished += content[0]
            found.given_up += [f"{worker.name}: {text}" for text in content[1]]
        elif kind == "fatal":
            raise content
        elif kind == "gone" and not worker.ended:
            why = f"{worker.name} of {len(workers)} ended before this scan was done ({_end(worker.process)})"
            for number in worker.share[worker.settled :]:
                found.failures[number] = (str(sources[number].path), why)
                complain(f"rpn3d: {sources[number]}: {why}")

    try:
        shares = [(share, node) for share, node in zip(deal(len(sources), nodes), nodes, strict=True) if share]
        for number, (share, node) in enumerate(shares, 1):
            job = _job(model, settings, [sources[k] for k in share], folder.path, until_s, node, len(shares))
            workers.append(_start(f"worker {number}", share, node, job, command, messages))
        running = len(workers)
        while running:
            worker, kind, content = messages.get()
            take(worker, kind, content)
            running -= kind == "gone"
    finally:
        _stop(workers)
        while not messages.empty():  # what was computed before they were stopped
            worker, kind, content = messages.get()
            if kind in ("result", "failed"):
                take(worker, kind, content)
    folder.write_csv()
    failures = (*unfound, *(found.failures[k] for k in sorted(found.failures)))
    results = tuple(found.results[k] for k in sorted(found.results))
    return Outcome(results, failures, tuple(found.unfinished), tuple(found.given_up))


def deal(scans: int, nodes: Sequence[Node]) -> list[list[int]]:
    """The numbers of the scans for each node, in order, so that each has about as many for each of its cores."""
    shares: list[list[int]] = [[] for _ in nodes]
    for number in range(scans):
        best = min(range(len(nodes)), key=lambda k: (len(shares[k]) + 1) / len(nodes[k]))
        shares[best].append(number)
    return shares


def _job(
    model: Path, settings: Settings, sources: list[ScanSource], out: Path, until_s: float, node: Node, count: int
) -> Job:
    budget = settings.budget
    why = f"{budget.why}; shared by {count} workers"
    own = replace(budget, cpus=len(node), memory_bytes=budget.memory_bytes // count, why=why)
    plain = replace(settings, budget=own, explain=None)  # a function does not travel
    return Job(model, plain, settings.explain is not None, tuple(sources), out, until_s)


def _start(
    name: str,
    share: list[int],
    node: Node,
    job: Job,
    command: Sequence[str],
    messages: "queue.Queue[tuple[_Worker, str, Any]]",
) -> _Worker:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [*command, ",".join(map(str, node))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C reaches this process alone, which then stops them
    )
    worker = _Worker(name, share, process)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has died; that is told when its messages end
        pickle.dump(job, process.stdin)
        process.stdin.flush()
    worker.listener = threading.Thread(target=_listen, args=(worker, messages), daemon=True)
    worker.listener.start()
    return worker


def _listen(worker: _Worker, messages: "queue.Queue[tuple[_Worker, str, Any]]") -> None:
    assert worker.process.stdout is not None
    with suppress(EOFError, pickle.UnpicklingError):  # it died, perhaps in the middle of one
        while True:
            kind, content = pickle.load(worker.process.stdout)
            messages.put((worker, kind, content))
    worker.process.wait()
    messages.put((worker, "gone", None))


def _stop(workers: Sequence[_Worker]) -> None:
    """End all that still run: a closed input tells them."""
    for worker in workers:
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
    until = time.monotonic() + 2 * GRACE_S
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
        worker.listener.join()


def _end(process: "subprocess.Popen[bytes]") -> str:
    code = process.returncode
    if code == -9:
        return "SIGKILL; often the system's answer to too little memory: allow less with --memory"
    return Signals(-code).name if code < 0 else f"exit code {code}"
