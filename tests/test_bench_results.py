"""All benchmarks in one go: a failure is a section, the page comes from the JSON alone."""

import json
import sys
from pathlib import Path

import pytest

from bench.results import Benchmark, benchmarks, build_page, measure_all, view_of
from caffe_models.errors import Rpn3dError
from commands.bench import app

MODULE = """
from pathlib import Path
def markdown(figures):
    return f"| seconds | {figures['seconds']} |"
def draw_good(figures, path):
    Path(path).write_bytes(b"a picture")
"""
REPORT = """
def draw_elsewhere(figures, path):
    path.write_bytes(b"another")
"""
STAND_IN = """
import json, sys, time
from pathlib import Path
what, out = sys.argv[1], Path(sys.argv[sys.argv.index("-o") + 1])
if what == "bad":
    sys.exit("rpn3d: no such scan")
if what == "slow":
    time.sleep(60)
if what != "empty":
    (out / "bench_x.json").write_text(json.dumps({"seconds": 4.5} if what != "odd" else {}))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (tmp_path / "stand_in_bench.py").write_text(MODULE)
    (tmp_path / "stand_in_bench_report.py").write_text(REPORT)
    (tmp_path / "command.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    return (sys.executable, "-S", str(tmp_path / "command.py"))


def one(name: str, draw: str = "draw_good") -> Benchmark:
    return Benchmark(name, f"Title of {name}", (name, "scan.mhd"), "bench_x.json", "stand_in_bench", draw)


def test_each_failure_is_a_section_and_the_others_still_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "bad.json").write_text('{"seconds": 1}')  # of an earlier run
    (folder / "bad.png").write_bytes(b"old")
    every = [one("bad"), one("good"), one("empty"), one("odd"), one("other", "draw_elsewhere")]
    said: list[str] = []
    measure_all(every, folder, command=command, say=said.append)
    assert not (folder / "bad.json").exists()
    assert not (folder / "bad.png").exists()
    page = build_page(folder, tmp_path / "RESULTS.md", said.append)
    text = page.read_text()
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    assert list(sections) == [f"Title of {each.name}" for each in every]
    assert "Not measured: it ended with exit code 1: rpn3d: no such scan" in sections["Title of bad"]
    assert "    rpn3d good scan.mhd\n\n| seconds | 4.5 |" in sections["Title of good"]
    assert "![Title of good](results/good.png)" in sections["Title of good"]
    assert "Not measured: it wrote no bench_x.json" in sections["Title of empty"]
    assert "Its figures cannot be shown: KeyError: 'seconds'" in sections["Title of odd"]
    assert (folder / "other.png").read_bytes() == b"another"
    assert "- machine: " in text
    assert said[0] == "[1/5] rpn3d bad scan.mhd"
    (folder / "good.png").unlink()
    assert build_page(folder, tmp_path / "RESULTS.md").read_text() == text
    assert (folder / "good.png").read_bytes() == b"a picture"


def test_one_is_measured_anew_and_the_others_stay(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "results"
    every = [one("good"), one("other", "draw_elsewhere")]
    with pytest.raises(Rpn3dError, match=r"results.json cannot be read .*; measure everything first"):
        measure_all(every, folder, command=command, only=["good"])
    measure_all(every, folder, command=command)
    notes = json.loads((folder / "results.json").read_text())
    notes["date"] = notes["benchmarks"][1]["date"] = "long ago"
    (folder / "results.json").write_text(json.dumps(notes))
    (folder / "other.json").write_text('{"seconds": 99}')
    measure_all(every, folder, command=command, only=["good"])
    text = build_page(folder, tmp_path / "RESULTS.md").read_text()
    good, other = text.split("## Title of ")[1:]
    assert "Measured anew on 20" in good
    assert "| seconds | 4.5 |" in good
    assert "Measured anew" not in other
    assert "| seconds | 99 |" in other
    assert "- date: long ago" in text
    with pytest.raises(Rpn3dError, match='--only "worse": allowed: good, other'):
        measure_all(every, folder, command=command, only=["worse"])
    notes["machine"]["usable_cpus"] += 1
    (folder / "results.json").write_text(json.dumps(notes))
    with pytest.raises(Rpn3dError, match="is of another machine"):
        measure_all(every, folder, command=command, only=["good"])


def test_a_benchmark_that_hangs_is_ended(tmp_path: Path, command: tuple[str, ...]) -> None:
    notes = measure_all([one("slow")], tmp_path / "results", command=command, limit_s=0.5)
    assert notes["benchmarks"][0]["message"] == "it was ended after 0.5 s"


def test_a_folder_without_results_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(Rpn3dError, match=r"there is no results\.json; `make bench`"):
        build_page(tmp_path, tmp_path / "RESULTS.md")
    (tmp_path / "results.json").write_text(json.dumps({"machine": {}}))
    with pytest.raises(Rpn3dError, match="not as `make bench` writes it"):
        build_page(tmp_path, tmp_path / "RESULTS.md")


def test_each_benchmark_has_a_command_and_can_be_shown() -> None:
    commands = {command.name for command in app.registered_commands}
    for each in benchmarks("s.mhd", "scans", "build", "int8.xml", 2, bf16=True):
        assert each.arguments[0] == "bench"
        assert each.arguments[1] in commands
        assert callable(view_of(each.module, "markdown"))
        assert callable(view_of(each.module, each.draw))


def test_what_is_measured() -> None:
    every = {each.name: each for each in benchmarks("s.mhd", "scans", "build", "build/rpn3d-int8.xml", 2)}
    assert {"scan", "scan_folder", "scan_f32", "engines"} <= set(every)
    assert every["scan"].arguments == (
        *("bench", "scan", "s.mhd", "--precision", "int8", "--runs", "2", "--warm", "2", "--model", "build"),
        *("--cpus", "2"),
    )
    assert every["scan_folder"].arguments[2] == "scans"
    assert "build/rpn3d-int8.xml" in every["engines"].arguments
    assert not any("bf16" in word for each in every.values() for word in each.arguments)
    fast = {each.name: each for each in benchmarks("s.mhd", int8="rpn3d-int8.xml", bf16=True)}
    assert "data=1,1,96,96,96" in every["engines"].arguments
    assert "data=1,1,128,128,128" in fast["engines"].arguments
    assert fast["scan_bf16"].arguments[3:5] == ("--precision", "bf16")
    assert "f32,bf16,int8" in fast["naive"].arguments
    plain = {each.name: each for each in benchmarks("s.mhd")}
    assert "scan_folder" not in plain
    assert plain["scan"].arguments[3:5] == ("--precision", "auto")
    assert not any("int8" in word for each in plain.values() for word in each.arguments)
