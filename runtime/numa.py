"""Which cores share a memory (NUMA node), and which of them a run of so many cores takes.

A core reaches the memory of another node's at half the speed or less, and OpenVINO's fastest mode for one window keeps
to one node anyway. So what fits into one node gets cores of one node alone, and what does not gets as few nodes as can
be, each its own worker (see `nodes`). Imports little: cores are chosen before numpy is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

Node = tuple[int, ...]
"""The cores of one node that this process may use, ascending."""


def numa_nodes(root: str | Path = "/", allowed: set[int] | None = None) -> tuple[Node, ...]:
    """The nodes that this process has cores of, in the order of their numbers.

    Args:
        root: root of the file system, for tests; /sys/devices/system/node is read.
        allowed: cores that may be used; None: this process's affinity mask.

    Returns:
        One node of all cores where the system names no nodes, or leaves one of these cores out.
    """
    cores = _mask() if allowed is None else allowed
    found = []
    for folder in Path(root, "sys/devices/system/node").glob("node*"):
        if not folder.name[4:].isdecimal():
            continue
        try:
            listed = parse_list((folder / "cpulist").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        found.append((int(folder.name[4:]), tuple(sorted(cores & listed))))
    nodes = tuple(node for _, node in sorted(found) if node)  # a node may have memory alone
    return nodes if sorted(core for node in nodes for core in node) == sorted(cores) else (tuple(sorted(cores)),)


def parse_list(text: str) -> set[int]:
    """The kernel's lists: "0-3,8,10-11" is {0, 1, 2, 3, 8, 10, 11}; a node without cores has an empty one.

    Raises:
        ValueError: it is no such list.
    """
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def choose(cpus: int, nodes: Sequence[Node], busy: Mapping[int, int]) -> tuple[Node, ...]:
    """The cores to take, by node: all of one node if it has as many, else evenly from as few nodes as can be.

    Two nodes of 16 cores: 12 cores are 12 of one node, 24 are 12 of each, 32 are both whole.

    Args:
        cpus: how many cores; more than there are gives all.
        nodes: see `numa_nodes`.
        busy: core -> how busy it was lately, in any unit; the idlest are taken, of equal ones those of lower number.
    """

    def idlest(node: Node, count: int) -> Node:
        return tuple(sorted(node, key=lambda core: (busy.get(core, 0), core))[:count])

    def work(node: Node, count: int) -> int:
        return sum(busy.get(core, 0) for core in idlest(node, count))

    fitting = [node for node in nodes if len(node) >= cpus]
    if fitting:
        best = min(fitting, key=lambda node: work(node, cpus))  # the first of equal ones
        return (tuple(sorted(idlest(best, cpus))),)
    taken: list[Node] = []
    for node in sorted(nodes, key=len, reverse=True):
        if sum(map(len, taken)) < cpus:
            taken.append(node)
    counts = [0] * len(taken)
    for _ in range(min(cpus, sum(map(len, taken)))):
        free = [k for k, node in enumerate(taken) if counts[k] < len(node)]
        counts[min(free, key=lambda k: counts[k])] += 1
    return tuple(sorted(tuple(sorted(idlest(node, count))) for node, count in zip(taken, counts, strict=True)))


def _mask() -> set[int]:
    # sched_getaffinity exists on Linux only
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
