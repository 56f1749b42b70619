"""How much memory this process may still take: the machine's, within its control groups."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2^63."""


def free_memory(root: str | Path = "/") -> int:
    """Bytes that are free now: what the system has available, or less where a control group allows less.

    `root` is the root of the file system, for tests.
    """
    top = Path(root)
    left = (_memory_free(folder) for folder in cgroup_folders(top))
    return min([_memory_available(top), *(size for size in left if size is not None)])


def format_memory(size_bytes: float) -> str:
    """Bytes as people write them: "3.5 GiB", "512 MiB"."""
    return f"{size_bytes / (1 << 30):.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / (1 << 20):.0f} MiB"


def read_words(path: Path) -> str | None:
    """The text of a system file, None where there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """The whole number in a system file, None where there is none."""
    text = read_words(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def cgroup_folders(root: Path) -> Iterator[Path]:
    """The process's own cgroup folders and all above them: any of them may hold the limit.

    Inside a container the folder that /proc/self/cgroup names often does not exist, since the container sees its own
    group as the top of /sys/fs/cgroup; the walk up ends there, so it is found all the same.
    """
    mount = root / "sys/fs/cgroup"
    seen = set()
    for line in (read_words(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        # v2 has one tree and no controller names; v1 a tree per controller
        tops = [mount] if not controllers else [mount / name for name in {controllers, *controllers.split(",")}]
        for top in tops:
            folder = top / path.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_dir() and group not in seen:
                    seen.add(group)
                    yield group
                if group == top:
                    break


def memory_limit(folder: Path) -> int | None:
    """The limit that a cgroup folder states, None where there is none."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        size = read_number(folder / name)
        if size is not None and size < UNLIMITED:
            return size
    return None


def _memory_free(folder: Path) -> int | None:
    """What a cgroup has left: its limit less what is used, file pages that can be dropped not counted as used."""
    limit = memory_limit(folder)
    used = next(
        (n for f in ("memory.current", "memory.usage_in_bytes") if (n := read_number(folder / f)) is not None), 0
    )
    cached = 0
    for line in (read_words(folder / "memory.stat") or "").splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            cached = max(cached, int(line.split()[1]))
    return None if limit is None else max(0, limit - max(0, used - cached))


def _memory_available(root: Path) -> int:
    """MemAvailable of /proc/meminfo; where there is none, the machine's memory by sysconf."""
    for line in (read_words(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
