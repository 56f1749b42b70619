"""Holds the whole process to its budget of cores, whatever threads its libraries start.

Thread counts are handed to each library (see `budget`), but several run at a time here: one scan is read while the
network runs on another. So where the budget is less than what the process may use (`--cpus`, a container's quota) its
threads are bound to as many cores, the idlest ones, and the kernel keeps the sum within the budget: no throttling.
They are cores of one NUMA node where one has as many (see `numa`).
Libraries that read the environment when they are loaded get their count there. To be called before they are.
"""

import os
import time
from pathlib import Path

from runtime.numa import Node, choose, numa_nodes

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # torch, edt and others by OpenMP
    "OPENBLAS_NUM_THREADS",  # numpy, scipy
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",  # SimpleITK
)
LOOK_S = 0.05
"""How long the cores are watched for the idlest."""


def hold_to(cpus: int, root: str | Path = "/") -> tuple[Node, ...]:
    """Let this process, its threads and its children use at most `cpus` cores.

    A smaller number that stands in the environment already is kept.

    Args:
        cpus: how many.
        root: root of the file system, for tests: nodes are read there.

    Returns:
        The cores by NUMA node: several where one node has not as many.
    """
    for name in THREAD_VARIABLES:
        given = os.environ.get(name, "")
        if not (given.isdecimal() and 0 < int(given) < cpus):
            os.environ[name] = str(cpus)
    if not hasattr(os, "sched_setaffinity"):  # Linux only
        return (tuple(range(cpus)),)
    allowed = os.sched_getaffinity(0)
    nodes = numa_nodes(root, allowed)
    if cpus >= len(allowed):
        return nodes
    before = _busy()
    time.sleep(LOOK_S)
    after = _busy()
    taken = choose(cpus, nodes, {core: after.get(core, 0) - before.get(core, 0) for core in allowed})
    os.sched_setaffinity(0, {core for node in taken for core in node})
    return taken


def _busy(stat: Path = Path("/proc/stat")) -> dict[int, int]:
    """Clock ticks that each core has worked so far; idle and waiting for the disk do not count."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            user, nice, system, _idle, _wait, *more = map(int, ticks[:8])
            found[int(name[3:])] = user + nice + system + sum(more)
    return found
