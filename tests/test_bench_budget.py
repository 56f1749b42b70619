"""The benchmark of budgets, with a stand-in for the command that it drives; its reports from figures typed by hand."""

import copy
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.budget import Task, ask, bench_budget, start_and_each, write_json
from bench.budget_report import answers, draw_budget, duration, markdown, table
from caffe_models.errors import Rpn3dError
from commands.bench import app

STAND_IN = """
import os, sys, time
from pathlib import Path
from runtime.outputs import ResultFolder, ScanResult
scans = sys.argv[1 : sys.argv.index("-o")]
out = sys.argv[sys.argv.index("-o") + 1]
def given(name):
    return sys.argv[sys.argv.index(name) + 1]
with open(Path(__file__).with_name("log"), "a") as log:
    cores = sorted(os.sched_getaffinity(0))
    print(Path(scans[0]).name, given("--cpus"), given("--memory"), given("--precision"), cores, file=log)
if scans[0].endswith("none.mhd"):
    sys.exit(2)
if given("--precision") == "int8" and given("--memory") == "80M":
    print("rpn3d: memory of 80 MiB is too little; 90 MiB at least", file=sys.stderr)
    sys.exit(2)
if given("--precision") == "f32" and given("--memory") == "80M":
    held = [b"x" * (150 << 20)]
    time.sleep(30)
folder = ResultFolder(out)
for scan in scans:
    time.sleep(0.1)
    folder.add(ScanResult(scan, scan, engine="openvino", precision=given("--precision"), cpus=1,
                          seconds={"read": 0.02, "network": 0.03}, plan={"windows": 4}))
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return (sys.executable, str(path))


def log(command: tuple[str, ...]) -> list[str]:
    return Path(command[1]).with_name("log").read_text().splitlines()


def test_killed_refused_and_completed_cells_are_rows(tmp_path: Path, command: tuple[str, ...]) -> None:
    said: list[str] = []
    task = Task(("a", "b", "c"), (1,), ("80M", "300M"), ("f32", "int8"), rounds=2, asked=(10, 60.0), command=command)
    figures = json.loads(write_json(bench_budget(task, said.append), tmp_path / "bench_budget.json").read_text())
    killed, refused, plain, int8 = figures["rows"]
    assert (killed["status"], refused["status"], plain["status"]) == ("killed", "refused", "completed")
    assert killed["message"].startswith("held ")
    assert refused["message"] == "memory of 80 MiB is too little; 90 MiB at least"
    assert [len(row["runs"]) for row in figures["rows"]] == [1, 1, 2, 2]  # what did not complete is not run again
    assert (plain["scans"], plain["windows"], plain["ran"], int8["ran"]) == (3, 4, "f32", "int8")
    assert 0.1 <= plain["each_s"] < plain["wall_s"] / 3
    assert plain["start_s"] + 3 * plain["each_s"] == pytest.approx(plain["wall_s"], rel=0.2)  # medians of two
    assert plain["scans_an_hour"] == pytest.approx(3600 / plain["each_s"])
    assert 0 < plain["busy_share"] < 1
    assert plain["peak_rss_bytes"] < 300 << 20
    core = sorted(os.sched_getaffinity(0))[0]
    assert log(command) == [
        f"none.mhd 1 80M f32 [{core}]",  # not measured: has the model built
        f"a 1 80M f32 [{core}]",
        f"none.mhd 1 80M int8 [{core}]",
        f"a 1 80M int8 [{core}]",
        f"a 1 300M f32 [{core}]",
        f"a 1 300M int8 [{core}]",
        f"a 1 300M int8 [{core}]",
        f"a 1 300M f32 [{core}]",
    ]
    assert len(said) == 6
    assert "killed: " in table(figures)


def test_more_cores_than_there_are_is_a_row(command: tuple[str, ...]) -> None:
    usable = len(os.sched_getaffinity(0))
    (row,) = bench_budget(Task(("a",), (usable + 1,), ("1G",), ("f32",), command=command))["rows"]
    assert (row["status"], row["message"]) == (
        "refused",
        f"{usable + 1} cores asked for, {usable} may be used",
    )


def test_start_and_each_by_hand() -> None:
    # results after 5, 8 and 11 s, the end after 11.5 s: 3 s each, and 2.5 s that are paid once
    assert start_and_each(11.5, [5.0, 8.0, 11.0], 99.0) == (2.5, 3.0)
    # one scan of 4 s of stages in a process of 5 s
    assert start_and_each(5.0, [4.8], 4.0) == (1.0, 4.0)
    assert start_and_each(5.0, [4.8], 5.5) == (0.0, 5.0)  # the model was loaded meanwhile


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Task(("a",), (0,)), "cpus 0"),
        (Task(("a",), (1,), rounds=0), "runs 0"),
        (Task(("a",), (1,), ()), "no memory given"),
        (Task(("a",), (1,), ("much",)), '"much" is no size'),
        (Task(("a",), (1,), ("1G",), ("f64",)), 'precision "f64" is not known; allowed: f32, bf16, int8'),
    ],
)
def test_what_cannot_be_measured_is_refused(task: Task, words: str) -> None:
    with pytest.raises(Rpn3dError, match=words):
        bench_budget(task)


def test_the_question_by_words() -> None:
    assert ask(None, None) is None
    assert ask(200, "60m") == (200, 3600.0)
    for scans, within in ((200, None), (None, "1h"), (0, "1h"), (1, "soon")):
        with pytest.raises(Rpn3dError):
            ask(scans, within)


def row(cpus: int, memory: str, precision: str, each_s: float | None, **more: Any) -> dict[str, Any]:
    found = {
        "cpus": cpus,
        "memory": memory,
        "memory_bytes": int(memory[:-1]) << 30,
        "precision": precision,
        "status": "refused",
        "message": "too little",
        "held_by": "watcher",
        "ran": precision,
        "windows": 2,
        "peak_rss_bytes": 900 << 20,
    }
    if each_s is not None:
        found |= {"status": "completed", "message": "", "start_s": 60.0, "each_s": each_s, "busy_share": 0.94}
        found |= {"scans_an_hour": 3600 / each_s, "wall_s": 60 + each_s}
    return {**found, **more}


FIGURES: dict[str, Any] = {
    "schema_version": 1,
    "machine": {
        "cpu": "Xeon X",
        "flags": ["avx2"],
        "sockets": 1,
        "cores": 2,
        "threads": 2,
        "usable_cpus": 2,
        "usable_reason": "the affinity mask",
        "memory_bytes": 8 << 30,
        "system": "Linux",
        "python": "3.12",
        "packages": {},
    },
    "command": ["rpn3d", "detect", "scan"],
    "rounds": 1,
    "left_out": "bf16 left out",
    "asked": {"scans": 200, "within_s": 3600.0},
    "rows": [
        row(1, "1G", "f32", None, status="killed", message="held 1.1 GiB"),
        row(1, "1G", "int8", None),
        row(1, "2G", "f32", 60.0),
        row(1, "2G", "int8", 24.0, windows=1),
        row(2, "1G", "f32", 30.0),
        row(2, "1G", "int8", 17.0),
        row(2, "2G", "f32", 15.0),
        row(2, "2G", "int8", 12.0, windows=1),
    ],
}


def test_the_answer_by_hand() -> None:
    # 60 s + 200 x 24 s = 81 minutes; 60 s + 200 x 17 s = 57.7 minutes
    assert answers(FIGURES) == [
        "200 scans in 60 minutes on 1 core: no: the fastest cell needs 81 minutes (int8 at 2G)",
        "200 scans in 60 minutes on 2 cores: yes, with int8 at 1G (58 minutes)",
    ]
    quiet = {**FIGURES, "asked": None}
    assert answers(quiet) == []
    nothing = {**FIGURES, "rows": FIGURES["rows"][:2]}
    assert answers(nothing) == ["200 scans in 60 minutes on 1 core: no: no cell completed"]
    assert [duration(s) for s in (45, 90, 150, 240, 5700)] == [
        "45 seconds",
        "90 seconds",
        "2.5 minutes",
        "4 minutes",
        "95 minutes",
    ]


def test_the_table_by_hand() -> None:
    lines = table(FIGURES).splitlines()
    assert lines[5] == "1     1G      f32    killed: held 1.1 GiB"
    assert " ".join(lines[-5].split()) == "2 2G int8 int8 1 60.0 s 12.0 s 300 94% 900 MiB watcher"
    assert lines[-4] == "bf16 left out"
    assert lines[-1] == answers(FIGURES)[-1]


def test_the_markdown_by_hand() -> None:
    lines = markdown(FIGURES).splitlines()
    assert lines[0] == "| cores | memory | f32, scans an hour | int8, scans an hour |"
    assert lines[2] == "| 1 | 1G | killed | refused |"
    assert lines[5] == "| 2 | 2G | 240 (900 MiB, 2 windows) | 300 (900 MiB, 1 window) |"
    assert lines[-1] == f"- {answers(FIGURES)[-1]}"
    assert "memory held by a watcher" in markdown(FIGURES)


def test_the_picture_has_every_kind_of_cell(tmp_path: Path) -> None:
    before = copy.deepcopy(FIGURES)
    path = draw_budget(FIGURES, tmp_path / "bench_budget.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 5000
    assert before == FIGURES
    nothing = {**FIGURES, "rows": FIGURES["rows"][:2], "asked": None}
    assert draw_budget(nothing, tmp_path / "nothing.png").stat().st_size > 2000


def test_the_command(tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bench.budget.bench_budget", lambda task, say: bench_budget(replace(task, command=command), say)
    )
    arguments = ["budget", "scan", "-o", str(tmp_path / "out"), "--cpus", "1", "--memory", "300M", "--precision"]
    done = CliRunner().invoke(app, [*arguments, "f32", "--scans", "10", "--within", "2h", "--model", "x"])
    assert done.exit_code == 0, done.output
    assert "10 scans in 120 minutes on 1 core: yes, with f32 at 300M" in done.stdout
    figures = json.loads((tmp_path / "out/bench_budget.json").read_text())
    assert figures["command"][-4:] == ["scan", "--no-pictures", "--model", "x"]
    assert (tmp_path / "out/bench_budget.png").is_file()
