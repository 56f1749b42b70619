"""Cores and memory, from made-up /proc and /sys trees of both cgroup versions."""

import os
from pathlib import Path

import pytest

from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory, make_budget, parse_memory, resident_bytes, throttled_periods

GIB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


V2 = {"proc/self/cgroup": "0::/pod/box", "sys/fs/cgroup/pod/box/cgroup.procs": ""}
V1 = {"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc"}


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),  # 2.5 cores: rounded down
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),  # half a core: one thread still
        ({"sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),  # more than there are
        ({**V2, "sys/fs/cgroup/pod/cpu.max": "300000 100000"}, 3),  # the limit is the parent's
        ({**V2, "sys/fs/cgroup/pod/cpu.max": "300000 100000", "sys/fs/cgroup/pod/box/cpu.max": "200000 50000"}, 3),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        # inside a container the named folder is not there; its own group is the top
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_cores(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert make_budget(root=machine(tmp_path, files)).cpus == cpus


def test_what_is_asked_for_counts_up_to_what_there_is(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sys/fs/cgroup/cpu.max": "450000 100000"})
    assert make_budget(2, root=root).cpus == 2
    assert "asked for" in make_budget(2, root=root).why
    more = make_budget(6, root=root)
    assert more.cpus == 4
    assert "quota of 4.5 cores (6 asked for)" in more.why


def test_affinity_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert make_budget(root=machine(tmp_path, {})).why.startswith("1 core by the affinity mask")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 16 * GIB),
        ({"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "99"}, 16 * GIB),
        ({"sys/fs/cgroup/memory.max": str(4 * GIB), "sys/fs/cgroup/memory.current": str(GIB)}, 3 * GIB),
        (  # file pages that can be dropped are not in use
            {
                "sys/fs/cgroup/memory.max": str(4 * GIB),
                "sys/fs/cgroup/memory.current": str(2 * GIB),
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}",
            },
            3 * GIB,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "0",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            2 * GIB,
        ),
    ],
)
def test_memory_by_default_is_nine_tenths_of_what_is_free(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert make_budget(root=machine(tmp_path, files)).memory_bytes == int(free * 0.9)


def test_memory_asked_for_is_bounded_by_the_container(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sys/fs/cgroup/memory.max": str(4 * GIB)})
    assert make_budget(memory="3G", root=root).memory_bytes == 3 * GIB
    assert make_budget(memory="6G", root=root).memory_bytes == 4 * GIB
    assert "6.0 GiB asked for" in make_budget(memory="6G", root=root).why


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * GIB),
        ("512m", GIB // 2),
        ("1.5GiB", GIB * 3 // 2),
        (" 800 MB ", 800 << 20),
        ("1T", GIB << 10),
        (str(GIB), GIB),
        (2 * GIB, 2 * GIB),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no size"),
        ("much", 'memory "much" is no size; write a number and a unit'),
        ("4X", "no size"),
        ("-4G", "no size"),
        ("nan", "no size"),
        ("4", "did you mean 4G"),
        ("1M", "at least 64 MiB"),
    ],
)
def test_sizes_that_are_none(text: str, says: str) -> None:
    with pytest.raises(Rpn3dError, match=says):
        parse_memory(text)


def test_no_cores_at_all_is_an_error() -> None:
    with pytest.raises(Rpn3dError, match="cpus is 0; give 1 or more"):
        make_budget(0)


def test_throttling_count(tmp_path: Path) -> None:
    assert throttled_periods(machine(tmp_path, {})) is None
    root = machine(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 7\nnr_periods 9\nnr_throttled 4"})
    assert throttled_periods(root) == 4


def test_format() -> None:
    assert format_memory(3.5 * GIB) == "3.5 GiB"
    assert format_memory(GIB // 2) == "512 MiB"


def test_this_process_is_resident() -> None:
    assert 10 << 20 < resident_bytes() < 64 * GIB
