"""The benchmark of whole scans, with a stand-in for the command that it drives."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.machine import describe
from bench.scan import DETECT, bench_scan, shown, table, write_json
from caffe_models.errors import Rpn3dError

STAND_IN = """
import sys, time
from pathlib import Path
from runtime.outputs import ResultFolder, ScanResult
scan, out = sys.argv[1], sys.argv[3]
assert sys.argv[2] == "-o" and sys.argv[4] == "--json", sys.argv
count = Path(scan)
number = int(count.read_text()) + 1
count.write_text(str(number))
if "--fail" in sys.argv:
    print("first line", file=sys.stderr)
    print("rpn3d: it went wrong", file=sys.stderr)
    sys.exit(2)
held = bytearray(80 << 20)
if "--nothing" not in sys.argv:
    seconds = {"read": [3.0, 1.0, 2.0][number - 1], "network": [0.1, 0.2, 0.9][number - 1]}
    ResultFolder(out).add(ScanResult("uid", scan, engine="openvino", precision="f32", cpus=2, seconds=seconds,
                                     plan={"windows": 3}))
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    (tmp_path / "scan").write_text("0")
    return (sys.executable, str(path))


def test_medians_of_stages_and_memory_of_the_child_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    held = np.ones(300 << 20, dtype=np.uint8)  # must not be counted to the children
    said: list[str] = []
    bench = bench_scan(tmp_path / "scan", command=command, say=said.append)
    assert held[-1] == 1
    figures = json.loads(write_json(bench, tmp_path / "out" / "bench_scan.json").read_text())
    assert figures["scans"][0]["median_s"] == {"read": 2.0, "network": 0.2}
    assert [run["seconds"]["uid"]["read"] for run in figures["runs"]] == [3.0, 1.0, 2.0]
    assert 80 << 20 < figures["median"]["peak_rss_bytes"] < 260 << 20
    assert figures["median"]["wall_s"] > 0
    assert figures["machine"]["usable_cpus"] >= 1
    assert len(said) == 3
    lines = table(figures).splitlines()
    assert "  read             2.00 s" in lines
    assert "  stages           2.20 s" in lines
    assert any(line.startswith("process, median of 3: ") for line in lines)


def test_options_reach_the_command_and_a_failure_is_told_in_its_words(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(Rpn3dError, match="exit code 2: rpn3d: it went wrong"):
        bench_scan(tmp_path / "scan", runs=1, options=("--fail",), command=command)


def test_a_run_without_a_scan_is_an_error(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(Rpn3dError, match="wrote no result of a scan"):
        bench_scan(tmp_path / "scan", runs=1, options=("--nothing",), command=command)


def test_a_report_names_the_command_without_the_path_of_the_interpreter() -> None:
    assert shown((*DETECT, "scan")) == ("rpn3d", "detect", "scan")
    assert shown(("other", "detect")) == ("other", "detect")


def test_less_than_one_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rpn3dError, match="runs is 0"):
        bench_scan(tmp_path, runs=0)


CPUINFO = "\n\n".join(
    f"processor\t: {i}\nmodel name\t: Xeon X\nphysical id\t: {i // 4}\ncore id\t\t: {i % 4 // 2}\n"
    "flags\t\t: fpu avx2 avx512f amx_tile sse\npower management:"
    for i in range(8)
)


def test_machine_by_hand() -> None:
    found = describe(CPUINFO)
    assert (found.cpu, found.sockets, found.cores, found.threads) == ("Xeon X", 2, 4, 8)
    assert found.flags == ("avx2", "avx512f", "amx_tile")
    assert found.memory_bytes > 1 << 28
    assert "numpy" in found.packages


def test_a_machine_without_cpuinfo_is_described_too() -> None:
    found = describe("")
    assert found.cpu
    assert found.threads >= 1
