"""A command held to cores and memory: what the watcher kills and what it lets through; the cgroup that is made."""

import os
import sys
import time
from pathlib import Path

import pytest

from bench import launcher
from bench.held import memory_group, run_held
from caffe_models.errors import Rpn3dError

MIB = 1 << 20

TAKES = """
import sys, time
held = []
for _ in range(int(sys.argv[1])):
    held.append(b"x" * (20 << 20))
    time.sleep(0.03)
print("done", file=sys.stderr)
"""

CHILDREN = """
import subprocess, sys, time
held = [b"x" * (20 << 20)]
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "3"], start_new_session=True)
print(child.pid, file=sys.stderr, flush=True)
child.wait()
time.sleep(60)
"""

CORES = "import os, sys; print(sorted(os.sched_getaffinity(0)), file=sys.stderr)"


def test_what_goes_above_its_memory_is_killed() -> None:
    usage = run_held([sys.executable, "-c", TAKES, "400"], memory_bytes=150 * MIB)
    assert usage.held_by in ("watcher", "cgroup")
    assert usage.code < 0
    assert usage.wall_s < 10  # of at least 12, had it gone on
    assert 150 * MIB <= usage.killed_at_bytes < 400 * MIB
    assert usage.over(150 * MIB).startswith("held ")


def test_what_stays_below_is_let_through() -> None:
    usage = run_held([sys.executable, "-c", TAKES, "3"], memory_bytes=150 * MIB)
    assert (usage.code, usage.said, usage.killed_at_bytes, usage.over(150 * MIB)) == (0, "done", 0, "")
    assert 60 * MIB < usage.peak_rss_bytes < 150 * MIB
    assert usage.wall_s > 0.09
    assert abs(usage.started - time.time()) < 60


def test_a_peak_that_nobody_saw_counts_too() -> None:
    quick = "held = b'x' * (90 << 20)"
    usage = run_held([sys.executable, "-c", quick])
    assert (usage.code, usage.held_by) == (0, "nothing")
    assert usage.over(50 * MIB).endswith(" between two looks of the watcher")
    assert usage.over(None) == ""


def test_children_count_and_die_with_it() -> None:
    usage = run_held([sys.executable, "-c", CHILDREN, TAKES.replace("0.03", "60")], memory_bytes=50 * MIB)
    assert usage.killed_at_bytes > 50 * MIB > usage.peak_rss_bytes  # neither of the two alone
    assert usage.wall_s < 30
    child = int(usage.said)
    for _ in range(100):
        if launcher.resident(child) == 0:
            return
        time.sleep(0.05)
    pytest.fail("the child of the command that was killed lives on")


@pytest.mark.parametrize("number", [0, -1])
def test_cores_are_those_that_were_named(number: int) -> None:
    core = sorted(os.sched_getaffinity(0))[number]
    assert run_held([sys.executable, "-c", CORES], cores=[core]).said == f"[{core}]"


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(Rpn3dError, match=r"no-such-program cannot be started: .*No such file"):
        run_held(["no-such-program"])


def cgroup_tree(root: Path, above: str, controllers: str) -> Path:
    """A cgroup v2 as far as it matters: the process is in a/b, and `above` hands `controllers` to its children."""
    mount = root / "sys/fs/cgroup"
    (mount / "a/b").mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/a/b\n")
    (mount / "cgroup.controllers").write_text("cpu memory\n")
    (mount / above / "cgroup.subtree_control").write_text(controllers)
    return mount


@pytest.mark.parametrize("above", ["a", "a/b"])
def test_a_group_beside_or_below_our_own(above: str, tmp_path: Path) -> None:
    mount = cgroup_tree(tmp_path, above, "cpu memory\n")
    with memory_group(1 << 30, tmp_path) as group:
        assert group is not None
        assert group.parent == mount / above
        assert (group / "memory.max").read_text() == str(1 << 30)
        (group / "memory.max").unlink()  # the kernel's own files do not keep a group
    assert not group.exists()


@pytest.mark.parametrize(("above", "controllers"), [("a", "cpu\n"), (".", "memory\n")])
def test_no_group_where_children_cannot_be_limited(above: str, controllers: str, tmp_path: Path) -> None:
    cgroup_tree(tmp_path, above, controllers)
    with memory_group(1 << 30, tmp_path) as group:
        assert group is None


def test_no_group_without_a_limit_or_with_cgroup_v1(tmp_path: Path) -> None:
    mount = cgroup_tree(tmp_path, "a", "memory\n")
    with memory_group(None, tmp_path) as group:
        assert group is None
    (mount / "cgroup.controllers").unlink()
    with memory_group(1 << 30, tmp_path) as group:
        assert group is None
