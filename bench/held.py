"""A command in a process of its own, held to cores and memory, and measured.

Cores are held by affinity, set before the command begins. Memory is held by a cgroup v2 of its own (memory.max, no
swap) where this process can make one, and else by a watcher that looks at what the command and its children hold every
20 ms and kills them if that is too much. RLIMIT_AS would limit addresses, of which libraries take far more than memory.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import launcher
from caffe_models.errors import Rpn3dError
from caffe_models.free_memory import format_memory, read_words

ROOT = Path(__file__).resolve().parent.parent

_number = itertools.count()


@dataclass(frozen=True)
class Usage:
    """What became of the command.

    Attributes:
        code: exit code, below 0 for a signal.
        said: the last line that it wrote to standard error.
        started: time of day in seconds, as files have it.
        wall_s, cpu_s: on the clock, and of all cores together.
        peak_rss_bytes: the largest resident set of any one process of it.
        held_by: what held its memory: cgroup, watcher or nothing.
        killed_at_bytes: what it held when it was killed for its memory, 0 if it was not.
        watch_cpu_s: what launching and watching took of the cores, in a process of its own.
    """

    code: int
    said: str
    started: float
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    held_by: str
    killed_at_bytes: int
    watch_cpu_s: float

    def over(self, memory_bytes: int | None) -> str:
        """In what way it broke its limit; "" where it did not."""
        if memory_bytes is None:
            return ""
        if self.killed_at_bytes:
            return f"held {format_memory(self.killed_at_bytes)}"
        if self.peak_rss_bytes > memory_bytes:
            return f"held {format_memory(self.peak_rss_bytes)} between two looks of the watcher"
        return ""


def run_held(command: Sequence[str], *, cores: Sequence[int] | None = None, memory_bytes: int | None = None) -> Usage:
    """Run a command to its end, its standard output thrown away.

    Args:
        command: program and arguments; modules of this repository can be imported.
        cores: numbers of the cores it may use; None: those of this process.
        memory_bytes: that it may hold; None: any.

    Raises:
        Rpn3dError: it could not be started.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder, memory_group(memory_bytes) as group:
        job, report, errors = Path(folder, "job"), Path(folder, "report"), Path(folder, "errors")
        content = {
            "command": list(command),
            "cores": None if cores is None else list(cores),
            "memory_bytes": memory_bytes,
            "group": None if group is None else str(group),
            "report": str(report),
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        with errors.open("w", encoding="utf-8") as stream:
            starter = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher.__file__, str(job)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
            try:
                starter.wait()
            finally:
                starter.terminate()  # it takes the command with it
                starter.wait()
        said = (errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
        if not report.exists():
            raise Rpn3dError(f"bench: {' '.join(command)} cannot be started: {said}")
        return Usage(said=said, **json.loads(report.read_text(encoding="utf-8")))


@contextmanager
def memory_group(memory_bytes: int | None, root: str | Path = "/") -> Iterator[Path | None]:
    """A new cgroup v2 with this limit and without swap, beside or below our own; None where none can be made.

    It takes a group whose children may be limited (`memory` in its cgroup.subtree_control) and that we may write to:
    a delegated one, as systemd gives to users, or all of them, for root outside of a container.

    Args:
        memory_bytes: None: no group.
        root: root of the file system, for tests.
    """
    made = None if memory_bytes is None else _make_group(memory_bytes, Path(root))
    try:
        yield made
    finally:
        if made is not None:
            with suppress(OSError):
                made.rmdir()


def _make_group(memory_bytes: int, root: Path) -> Path | None:
    lines = (read_words(root / "proc/self/cgroup") or "").splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    mount = root / "sys/fs/cgroup"
    if own is None or not (mount / "cgroup.controllers").is_file():  # v1, or v2 without the memory
        return None
    for above in dict.fromkeys((mount / own, (mount / own).parent)):
        inside = above == mount or mount in above.parents
        if not inside or "memory" not in (read_words(above / "cgroup.subtree_control") or "").split():
            continue
        group = above / f"rpn3d-bench-{os.getpid()}-{next(_number)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "memory.max").write_text(str(memory_bytes), encoding="ascii")
            if (group / "memory.swap.max").exists():  # not where the kernel has no swap
                (group / "memory.swap.max").write_text("0", encoding="ascii")
            return group
        except OSError:
            with suppress(OSError):
                group.rmdir()
    return None
