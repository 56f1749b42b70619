"""How many cores and how much memory this process may really use.

No inference library sees a container's CPU quota (docker --cpus, Kubernetes limits): each starts a thread per core of
the host and is throttled, up to 45 times slower. So the budget is computed once, here, and handed to every engine.
"""

import ctypes
import math
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from caffe_models.errors import Rpn3dError
from caffe_models.free_memory import cgroup_folders, free_memory, memory_limit, read_number, read_words
from caffe_models.free_memory import format_memory as format_memory

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LEAST_MEMORY = 64 << 20
USABLE_SHARE = 0.9
"""Part of the memory that is free now which a run takes for itself when nobody says how much."""

RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Budget:
    """What one run may use.

    Attributes:
        cpus: threads to compute with, at least 1.
        memory_bytes: peak memory of the process.
        why: one sentence that says where the two figures come from.
    """

    cpus: int
    memory_bytes: int
    why: str


def make_budget(cpus: int | None = None, memory: str | int | None = None, root: str | Path = "/") -> Budget:
    """The budget of this process: what is asked for, within what affinity, cgroup and free memory allow.

    Args:
        cpus: the most cores to use; None: all allowed. See `cpu_budget`.
        memory: the most memory, as bytes or as text such as "4G"; None: 90 % of what is free. Memory that is asked
            for is taken at its word, up to the cgroup's limit.
        root: root of the file system, for tests.

    Raises:
        Rpn3dError: cpus below 1, or a memory that is no size or too small.
    """
    cores, core_reason = cpu_budget(cpus, root)
    size, memory_reason = memory_budget(memory, root)
    why = f"{cores} core{'s' * (cores != 1)} by {core_reason}, {format_memory(size)} by {memory_reason}"
    return Budget(cores, size, why)


def cpu_budget(requested: int | None = None, root: str | Path = "/") -> tuple[int, str]:
    """Cores to use, and what decided.

    The smaller of the affinity mask (taskset, cpusets) and the cgroup's quota rounded down: a quota of 2.5 cores gives
    2 threads, since a third would only be throttled; 0.5 gives 1. Asking for more cores than there are gives those.
    """
    if requested is not None and requested < 1:
        raise Rpn3dError(f"cpus is {requested}; give 1 or more, or leave it out to use what this process may")
    cores, reason = _affinity(), "the affinity mask"
    quota = min((q for folder in cgroup_folders(Path(root)) if (q := _cpu_quota(folder)) is not None), default=None)
    if quota is not None and max(1, math.floor(quota)) < cores:
        cores, reason = max(1, math.floor(quota)), f"a cgroup quota of {quota:g} cores"
    if requested is None:
        return cores, reason
    return (requested, "the cpus asked for") if requested <= cores else (cores, f"{reason} ({requested} asked for)")


def memory_budget(requested: str | int | None = None, root: str | Path = "/") -> tuple[int, str]:
    """Bytes of memory to use, and what decided."""
    top = Path(root)
    if requested is None:
        free = free_memory(top)
        return int(free * USABLE_SHARE), f"{USABLE_SHARE:.0%} of the {format_memory(free)} that are free"
    size = parse_memory(requested)
    limit = min((m for folder in cgroup_folders(top) if (m := memory_limit(folder)) is not None), default=None)
    if limit is not None and limit < size:
        return limit, f"the cgroup's memory limit ({format_memory(size)} asked for)"
    return size, "the memory asked for"


def parse_memory(text: str | int) -> int:
    """Bytes of "4G", "512M", "1.5GiB", "800 MB" or a plain number of bytes; units are powers of 1024.

    Raises:
        Rpn3dError: no size, or less than 64M.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", str(text).upper())
    if match is None:
        raise Rpn3dError(f'memory "{text}" is no size; write a number and a unit K, M, G or T, such as 4G or 512M')
    size = int(float(match[1]) * UNITS[match[2]])
    if size < LEAST_MEMORY:
        hint = "; did you mean " + match[1] + "G?" if not match[2] else ""
        raise Rpn3dError(f'memory "{text}" is {size} bytes; at least {format_memory(LEAST_MEMORY)} are needed{hint}')
    return size


def resident_bytes() -> int:
    """Memory that this process holds now (resident set); 0 where the system does not say."""
    text = read_words(Path("/proc/self/statm"))
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") if text else 0


def give_back_free_memory() -> None:
    """Return to the system what the C library keeps of freed memory, where it is glibc.

    After a scan of 261 x 512 x 512 was read and masked, 18 to 44 MiB, in less than a millisecond.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Settings of glibc's `mallopt`, as malloc.h numbers them, and below what it starts with."""
DEFAULT_TRIM_BYTES, DEFAULT_MMAPS = 128 * 1024, 65536


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within it the C library keeps all freed memory for what this process asks for next; whether it does (glibc can).

    By default glibc gets large blocks from the system one by one and gives each back when it is freed, and the system
    zeroes every page anew. An iteration of training at crop 64 touches 270,000 new pages so, a fifth of its time; none
    with its memory kept. The process holds its peak meanwhile, or what it needs after `give_back_free_memory`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    try:
        yield mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
    finally:
        if mallopt is not None:
            mallopt(M_MMAP_MAX, DEFAULT_MMAPS)
            mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_BYTES)
        give_back_free_memory()


def peak_resident_bytes() -> int:
    """The most that this process has held so far, since it was started as a program.

    Not `ru_maxrss`, which on Linux begins with what the parent held when it started this process.
    """
    text = read_words(Path("/proc/self/status")) or ""
    found = re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def throttled_periods(root: str | Path = "/") -> int | None:
    """How often the cgroup was throttled so far (nr_throttled); None where there is no such count."""
    counts = []
    for folder in cgroup_folders(Path(root)):
        for line in (read_words(folder / "cpu.stat") or "").splitlines():
            if line.startswith("nr_throttled "):
                counts.append(int(line.split()[1]))
    return max(counts, default=None)


def _affinity() -> int:
    # sched_getaffinity exists on Linux only
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quota(folder: Path) -> float | None:
    """Cores that a cgroup folder allows, or None: v2 `cpu.max` "quota period" or "max period"; v1 two files."""
    text = read_words(folder / "cpu.max")
    if text is not None:
        parts = text.split()
        if not parts or parts[0] == "max":
            return None
        return int(parts[0]) / (int(parts[1]) if len(parts) > 1 else 100_000)
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None
