"""The whole process stays within its cores: with --cpus, with an affinity mask, with a cgroup quota."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from small_onnx import write_small_detector

from runtime.cores import THREAD_VARIABLES
from train.phantom import make_phantom, write_phantom

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="core masks are Linux's")

WORK = """
import os, resource, sys, threading, time
from runtime.budget import make_budget
from runtime.cores import hold_to
hold_to(make_budget(cpus=int(sys.argv[1]) or None).cpus)
import numpy as np
wall, used = time.perf_counter(), time.process_time()
matrix = np.ones((900, 900))
def work():
    until = time.perf_counter() + 1.5
    while time.perf_counter() < until:
        matrix @ matrix
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
print((time.process_time() - used) / (time.perf_counter() - wall), *[os.environ[n] for n in sys.argv[2:]])
"""


def cores_used(cpus: int, before: Callable[[], None] | None = None) -> float:
    """Mean cores that numpy in three threads takes, in a process of its own that was told `cpus` (0: nothing)."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(cpus), *THREAD_VARIABLES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=before,
    )
    used, *settings = done.stdout.split()
    assert settings == ["1"] * len(THREAD_VARIABLES)
    return float(used)


@linux
def test_cpus_hold_every_thread() -> None:
    assert cores_used(1) <= 1.1


@linux
def test_an_affinity_mask_is_the_budget() -> None:
    first = min(os.sched_getaffinity(0))
    assert cores_used(0, lambda: os.sched_setaffinity(0, {first})) <= 1.1


@pytest.fixture
def quota_of_one() -> Iterator[Path]:
    """A cgroup with a quota of one core, of version 2 or 1."""
    name = f"rpn3d-test-{os.getpid()}"
    for top, file, text in (
        ("/sys/fs/cgroup", "cpu.max", "100000 100000"),
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "100000"),
    ):
        folder = Path(top, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / file).exists():
                (folder / file).write_text(text)
                yield folder
                return
        except OSError:
            continue
        finally:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)
    pytest.skip("no cgroup with a quota can be made here: needs root and a writable cpu controller")


@linux
def test_a_quota_is_the_budget_and_throttles_nothing(quota_of_one: Path) -> None:
    def enter() -> None:
        (quota_of_one / "cgroup.procs").write_text(str(os.getpid()))

    assert cores_used(0, enter) <= 1.1


@linux
@pytest.mark.parametrize("how", ["cpus", "affinity"])
def test_detect_stays_within_one_core(how: str, tmp_path: Path) -> None:
    """The real command, two scans, pictures and all: CPU seconds over wall seconds, and the threads that ran."""
    phantom = make_phantom(
        11, size=130, spacing_mm=(2.7, 2.7, 2.5), step_mm=2.5, nodules=1, diameters_mm=(24.0,), reoriented=False
    )
    scans = [str(write_phantom(phantom, tmp_path / name)) for name in ("a", "b")]
    model = write_small_detector(tmp_path / "small.onnx")
    options = ["--cpus", "1"] if how == "cpus" else []
    first = min(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "rpn3d", "detect", *scans[:1], "-o", str(tmp_path / "out"), "--model", str(model)]
    start = time.perf_counter()
    child = subprocess.Popen(
        [*command, "--precision", "f32", "--threshold", "0.999", "--quiet", *options],
        cwd=ROOT,
        preexec_fn=(lambda: os.sched_setaffinity(0, {first})) if how == "affinity" else None,
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    assert status == 0
    assert (tmp_path / "out" / "submission.csv").exists()
    assert (usage.ru_utime + usage.ru_stime) / wall <= 1.1
