"""Cores by NUMA node, from made-up /sys trees, and the workers on them, on two "nodes" of one core of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from small_chest import write_chest
from small_onnx import write_small_detector

from caffe_models.errors import NetError
from runtime import cores, on_nodes
from runtime.budget import Budget
from runtime.detect import Settings
from runtime.numa import choose, numa_nodes, parse_list
from runtime.on_nodes import deal, detect_on_nodes
from runtime.pipeline import Outcome

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="core masks are Linux's")


def tree(root: Path, lists: dict[str, str]) -> Path:
    for name, text in lists.items():
        (root / "sys/devices/system/node" / name).mkdir(parents=True)
        (root / "sys/devices/system/node" / name / "cpulist").write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("lists", "allowed", "nodes"),
    [
        ({"node0": "0-3", "node1": "4-7"}, range(8), ((0, 1, 2, 3), (4, 5, 6, 7))),
        ({"node0": "0-1,4-5", "node1": "2-3,6-7"}, range(8), ((0, 1, 4, 5), (2, 3, 6, 7))),  # hyper-threads
        ({"node0": "0-3", "node1": "4-7"}, (1, 2, 6), ((1, 2), (6,))),  # taskset
        ({"node0": "0-3", "node1": "4-7"}, (5, 6), ((5, 6),)),
        ({"node2": "2-3", "node10": "0-1"}, range(4), ((2, 3), (0, 1))),  # by number, not by name
        ({"node0": "0-3", "node1": ""}, range(4), ((0, 1, 2, 3),)),  # memory alone
        ({"node0": "0-1"}, range(4), ((0, 1, 2, 3),)),  # a tree that leaves cores out is not believed
        ({"node0": "rubbish"}, range(2), ((0, 1),)),
        ({}, range(2), ((0, 1),)),
    ],
)
def test_nodes(tmp_path: Path, lists: dict[str, str], allowed: range, nodes: tuple[tuple[int, ...], ...]) -> None:
    assert numa_nodes(tree(tmp_path, lists), set(allowed)) == nodes


def test_the_kernels_lists() -> None:
    assert parse_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert parse_list("\n") == set()


TWO = ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize(
    ("cpus", "nodes", "busy", "taken"),
    [
        (4, TWO, {}, ((0, 1, 2, 3),)),  # fits: one node, not two halves
        (4, TWO, {0: 9}, ((4, 5, 6, 7),)),  # the idler one
        (2, TWO, {0: 9, 4: 1, 5: 1, 6: 1}, ((1, 2),)),
        (2, TWO, {0: 9, 1: 9, 2: 9, 5: 1}, ((4, 6),)),
        (5, TWO, {1: 1}, ((0, 2, 3), (4, 5))),  # evenly, the idlest of each
        (8, TWO, {}, TWO),
        (9, TWO, {}, TWO),
        (5, (*TWO, (8, 9, 10, 11)), {}, ((0, 1, 2), (4, 5))),  # as few nodes as can be
        (5, ((0,), (1, 2, 3), (4, 5)), {}, ((1, 2, 3), (4, 5))),
        (2, ((4, 5, 6),), {}, ((4, 5),)),
    ],
)
def test_cores_that_are_taken(
    cpus: int, nodes: tuple[tuple[int, ...], ...], busy: dict[int, int], taken: tuple[tuple[int, ...], ...]
) -> None:
    assert choose(cpus, nodes, busy) == taken


@linux
@pytest.mark.parametrize(
    ("cpus", "taken"), [(2, ((0, 1),)), (6, ((0, 1, 2), (4, 5, 6))), (8, ((0, 1, 2, 3), (4, 5, 6, 7)))]
)
def test_the_process_is_held_to_one_node_where_that_is_enough(
    cpus: int, taken: tuple[tuple[int, ...], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[set[int]] = []
    for name in cores.THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")  # and restored
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, mask: held.append(mask))
    monkeypatch.setattr(cores, "_busy", dict)
    assert cores.hold_to(cpus, tree(tmp_path, {"node0": "0-3", "node1": "4-7"})) == taken
    assert held == ([] if cpus == 8 else [{core for node in taken for core in node}])


def test_scans_are_dealt_out_by_cores() -> None:
    assert deal(5, ((0, 1), (2, 3))) == [[0, 2, 4], [1, 3]]
    assert deal(6, ((0, 1, 2, 3), (4, 5))) == [[0, 1, 3, 4], [2, 5]]
    assert deal(1, ((0,), (1,))) == [[0], []]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small chests; the names are not in the order of the work."""
    folder = tmp_path_factory.mktemp("scans")
    return [write_chest(folder / f"{name}.mhd", seed) for seed, name in enumerate("cab")]


Detect = Callable[..., Outcome]


@pytest.fixture
def detect(tmp_path: Path) -> Detect:
    """`detect_on_nodes` with a small real net, on as many "nodes" as asked for, each of one core."""
    model = write_small_detector(tmp_path / "small.onnx")

    def run(scans: list[Path], out: str, nodes: int, **more: object) -> Outcome:
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        settings = Settings(Budget(1, 8 << 30, "test"), precision="f32", threshold=0.7, pictures=False)
        chosen = [(mine[k % len(mine)],) for k in range(nodes)]
        return detect_on_nodes(model, settings, list(scans), tmp_path / out, chosen, **more)  # type: ignore[arg-type]

    return run


def test_two_workers_write_what_one_process_writes(scans: list[Path], detect: Detect, tmp_path: Path) -> None:
    """Real workers, a small real net, a broken scan and a path that is none."""
    said: list[str] = []
    alone = detect(scans[:2], "alone", 1)
    broken = tmp_path / "broken.mhd"
    broken.write_text("no header")
    work = [*scans[:2], broken, tmp_path / "none"]
    shared = detect(work, "shared", 2, say=said.append, complain=said.append)
    csvs = [(tmp_path / name / "submission.csv").read_bytes() for name in ("alone", "shared")]
    assert csvs[0] == csvs[1]
    assert {line.split(b",")[0] for line in csvs[0].splitlines()} == {b"seriesuid", b"c", b"a"}
    assert [r.seriesuid for r in shared.results] == [r.seriesuid for r in alone.results] == ["c", "a"]
    assert [source for source, _ in shared.failures] == [str(tmp_path / "none"), str(broken)]
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "shared").iterdir()} == names
    one, two = (json.loads((tmp_path / name / "c.json").read_text()) for name in ("alone", "shared"))
    assert one["findings"] == two["findings"]
    assert two["cpus"] == 1
    assert f"worker 2: [1/1] {scans[1]}" in said
    assert len([line for line in said if line.startswith("rpn3d: ")]) == 2


STUB = """
import os, time
import runtime.node_worker as worker
worker.GRACE_S = 0.2
def work(job, channel):
    from runtime.outputs import ScanResult
    assert os.environ["OMP_NUM_THREADS"] == "1" and len(os.sched_getaffinity(0)) == 1
    assert (job.settings.budget.cpus, job.settings.budget.memory_bytes) == (1, 4 << 30)
    for number, source in enumerate(job.sources):
        {before}
        channel.send("result", ScanResult(source.seriesuid, str(source.path)))
        {after}
    channel.send("done", ((), ()))
worker.work = work
worker.main()
"""
"""A worker that finds nothing, at once; what it does otherwise is put in."""


def stub(before: str = "pass", after: str = "pass") -> tuple[str, ...]:
    return sys.executable, "-c", STUB.format(before=before, after=after)


@linux
def test_a_worker_that_dies_takes_its_own_scans_alone(scans: list[Path], detect: Detect, tmp_path: Path) -> None:
    """The first worker has two scans and is killed after one; the second is killed when its only one is done."""
    said: list[str] = []
    command = stub(after="os.kill(os.getpid(), 9)")
    outcome = detect(scans, "out", 2, command=command, complain=said.append)
    assert [result.seriesuid for result in outcome.results] == ["c", "a"]
    ((source, why),) = outcome.failures
    assert source == str(scans[2])
    assert why.startswith("worker 1 of 2 ended before this scan was done (SIGKILL")
    assert said == [f"rpn3d: {scans[2]}: {why}"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"submission.csv", "c.json", "a.json"}


@linux
def test_the_deadline_reaches_every_worker(scans: list[Path], detect: Detect) -> None:
    late = """assert 50 < job.until_s - time.monotonic() <= 60
        channel.send("done", ((str(source),), ("pictures",)))
        return"""
    outcome = detect(scans[:2], "out", 2, command=stub(before=late), deadline_s=60)
    assert sorted(outcome.unfinished) == sorted(map(str, scans[:2]))
    assert sorted(outcome.given_up) == ["worker 1: pictures", "worker 2: pictures"]
    assert outcome.failures == ()


def test_a_model_that_cannot_be_loaded_ends_all(scans: list[Path], tmp_path: Path) -> None:
    settings = Settings(Budget(1, 8 << 30, "test"))
    with pytest.raises(NetError, match="no such model file"):
        detect_on_nodes(tmp_path / "none.xml", settings, list(scans), tmp_path / "out", ((0,), (0,)))


INTERRUPTED = """
import sys
from pathlib import Path
from runtime.budget import Budget
from runtime.detect import Settings
from runtime.on_nodes import detect_on_nodes
out, core, worker, *scans = sys.argv[1:]
def say(text):
    print(text, flush=True)
nodes, command = ((int(core),),) * 2, (sys.executable, "-c", worker)
detect_on_nodes(Path("none"), Settings(Budget(1, 8 << 30, "test")), scans, out, nodes, say=say, command=command)
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_of_the_parent_ends_the_workers_and_keeps_results(
    number: signal.Signals, scans: list[Path], tmp_path: Path
) -> None:
    core = str(min(os.sched_getaffinity(0)))
    worker = stub(after='channel.send("say", f"pid {os.getpid()}"); time.sleep(600)')[-1]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "out"), core, worker, *map(str, scans[:2])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    workers: list[int] = []
    while len(workers) < 2:
        line = process.stdout.readline()
        assert line, "it ended before both workers had a result"
        workers += [int(line.split()[-1])] if "pid " in line else []
    process.send_signal(number)
    process.communicate(timeout=20)
    until = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in workers)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"submission.csv", "c.json", "a.json"} <= names


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_one_scan_needs_no_worker(scans: list[Path], detect: Detect, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(on_nodes, "_start", lambda *_: pytest.fail("a worker was started"))
    monkeypatch.setattr(on_nodes, "detect_all", lambda _detector, paths, *_, **__: calls.append(list(paths)))
    detect(scans[:1], "out", 2)
    assert calls == [scans[:1]]
