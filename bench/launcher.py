"""Runs one command, holds it to cores and memory and measures it: `python -I -S launcher.py JOB.json`.

It stands between a benchmark and what that measures because Linux counts into a child's `ru_maxrss` what its parent
held when it was started: measured from a large process, a small one would look as large. So it imports the standard
library alone and holds about 12 MB. `bench.held` writes the job and reads the report.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

LOOK_MS = 20
"""Between two looks at the memory of the command."""

LOOKS_A_TREE = 10
"""Looks before children are looked for anew: that takes 1 ms where there are 16 threads, a look 0.03 ms."""

PAGE = os.sysconf("SC_PAGE_SIZE")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with suppress(OSError):  # it has ended meanwhile
            for task in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{task}/children").read_text("ascii").split())
    return found


def resident(pid: int) -> int:
    """Bytes that a process holds; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def kill(pid: int) -> None:
    """The process group that `pid` leads, and what of its descendants has left that group."""
    for one in tree(pid):
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def watch(pid: int, limit: int) -> int:
    """Look at the memory of the process and its descendants until it ends; kill them if together they hold more.

    Pages that several of them share count for each.

    Returns:
        What they held when they were killed; 0 if nobody had to be.
    """
    parent = os.getppid()
    ended = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        looks, family = 0, [pid]
        while not poll.poll(LOOK_MS):
            family = family if looks % LOOKS_A_TREE else tree(pid)
            looks += 1
            held = sum(map(resident, family))
            if held > limit or os.getppid() != parent:  # nobody is left who would read the report
                kill(pid)
                return held
        return 0
    finally:
        os.close(ended)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run `job["command"]`.

    Job: command; cores, a list of their numbers or None; memory_bytes or None; group, a cgroup v2 folder or None.
    """
    start, started = time.perf_counter(), time.time()
    child = subprocess.Popen(job["command"], process_group=0, preexec_fn=_begin(job))
    try:
        in_group = job["group"] is not None and _is_in(child.pid, Path(job["group"]))
        limit = job["memory_bytes"]
        watched = limit is not None and hasattr(os, "pidfd_open")  # Linux only
        killed = watch(child.pid, limit) if watched else 0
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        kill(child.pid)
    return {
        "code": child.returncode,
        "started": started,
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * RSS_UNIT,
        "held_by": "cgroup" if in_group else "watcher" if watched else "nothing",
        "killed_at_bytes": killed or (limit if in_group and _out_of_memory(Path(job["group"])) else 0),
        "watch_cpu_s": sum(os.times()[:2]),
    }


def _begin(job: dict[str, Any]) -> Callable[[], None]:
    """What the child does before it becomes the command; this process has one thread, so that is safe."""

    def begin() -> None:
        if job["cores"] is not None:
            os.sched_setaffinity(0, job["cores"])
        if job["group"] is not None:
            with suppress(OSError):  # then the watcher alone holds it
                descriptor = os.open(Path(job["group"], "cgroup.procs"), os.O_WRONLY)
                os.write(descriptor, b"0")
                os.close(descriptor)

    return begin


def _is_in(pid: int, group: Path) -> bool:
    with suppress(OSError):
        return any(line.endswith(f"/{group.name}") for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return False


def _out_of_memory(group: Path) -> bool:
    with suppress(OSError):
        words = (group / "memory.events").read_text("ascii").split()
        return int(dict(zip(words[::2], words[1::2], strict=True)).get("oom_kill", 0)) > 0
    return False


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of `finally`, which kills the command


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    Path(given["report"]).write_text(json.dumps(measure(given)), "utf-8")
