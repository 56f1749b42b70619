"""What bench scan makes of the results: start-up and pace by hand, a warm process, and the page from typed figures."""

import os
from pathlib import Path

import pytest
from test_detect import Brightness

from bench import warm
from bench.machine import describe
from bench.scan import draw_scan, markdown, table
from bench.scan_rates import first_window_s, steady
from caffe_models.errors import Rpn3dError
from runtime.outputs import ScanResult, read_results
from train.phantom import make_phantom, write_phantom


def result(name: str, pid: int, first_window_s: float, done_s: float, done_cpu_s: float) -> ScanResult:
    process = {"pid": pid, "first_window_s": first_window_s, "done_s": done_s, "done_cpu_s": done_cpu_s}
    return ScanResult(name, name, process=process)


def test_the_pace_leaves_the_start_out() -> None:
    scans = [result("a", 7, 9.0, 18.0, 30.0), result("b", 7, 2.0, 10.0, 16.0), result("c", 7, 5.0, 14.0, 23.0)]
    pace = steady(scans, 2)
    assert pace is not None
    assert pace["seconds_a_scan"] == pytest.approx(4.0)  # done after 10, 14, 18 s
    assert pace["scans_per_hour"] == pytest.approx(900.0)
    assert pace["cores_busy"] == pytest.approx(14 / (8 * 2))
    assert pace["first_done_s"] == 10.0
    assert first_window_s(scans) == 2.0


def test_processes_that_share_the_scans_add_up() -> None:
    scans = [result(name, pid, 1.0, 5.0 + 4 * k, 8.0 + 4 * k) for pid in (1, 2) for k, name in enumerate("ab")]
    pace = steady(scans, 2)
    assert pace is not None
    assert pace["scans_per_hour"] == pytest.approx(1800.0)
    assert pace["cores_busy"] == pytest.approx(1.0)


def test_one_scan_has_no_pace_and_old_results_no_start() -> None:
    assert steady([result("a", 7, 2.0, 10.0, 16.0)], 2) is None
    assert steady([ScanResult("a", "a"), ScanResult("b", "b")], 2) is None
    assert first_window_s([ScanResult("a", "a")]) is None


RUNS = [
    {"wall_s": 9.0, "seconds": {"read": 4.0, "network": 5.0}, "cpu_seconds": {"read": 1.0, "network": 9.0}},
    {"wall_s": 5.0, "seconds": {"read": 1.0, "network": 4.0}, "cpu_seconds": {"read": 1.0, "network": 7.0}},
    {"wall_s": 7.0, "seconds": {"read": 2.0, "network": 5.0}, "cpu_seconds": {"read": 2.0, "network": 8.0}},
]


def test_the_bound_is_the_stages_cpu_over_the_cores_and_the_first_run_does_not_count() -> None:
    found = warm.summed_up(RUNS, 2)
    assert (found["median_s"], found["least_s"], found["most_s"]) == (6.0, 5.0, 7.0)
    assert found["stages_s"] == {"read": 1.5, "network": 4.5}
    assert found["stages_cpu_s"] == {"read": 1.5, "network": 7.5}
    assert found["bound_s"] == 4.5
    assert len(found["runs"]) == 3


def test_a_warm_process_takes_the_whole_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = make_phantom(
        11, size=96, spacing_mm=(3.6, 3.6, 3.0), step_mm=3, nodules=1, diameters_mm=(24.0,), reoriented=False
    )
    scan = write_phantom(phantom, tmp_path / "scans")
    monkeypatch.setattr("runtime.detect.load_engine", lambda *_: Brightness())
    monkeypatch.setattr("runtime.cores.hold_to", lambda cpus: None)
    (tmp_path / "model.xml").write_text("stands for a model")
    job = {
        "scan": str(scan),
        "model": str(tmp_path / "model.xml"),
        "precision": "auto",
        "cpus": 1,
        "memory_bytes": 8 << 30,
        "pictures": False,
        "repeats": 1,
        "cache_folder": "",
        "folder": str(tmp_path),
    }
    runs = warm.run(job)
    assert len(runs) == 2
    for run in runs:
        assert set(run["seconds"]) == {"read", "mask", "resample", "network", "decode", "write"}
        assert sum(run["seconds"].values()) <= run["wall_s"]
        assert 0 < sum(run["cpu_seconds"].values()) <= run["cpu_s"]
    (stored,) = read_results(tmp_path / "run1")
    assert stored.process["pid"] == os.getpid()
    assert 0 < stored.process["first_window_s"] < stored.process["done_s"]
    assert stored.process["done_cpu_s"] > 0
    (before,) = read_results(tmp_path / "run0")
    assert before.process["done_s"] < stored.process["first_window_s"]
    assert (tmp_path / "run1" / "submission.csv").read_bytes() == (tmp_path / "run0" / "submission.csv").read_bytes()


def test_a_warm_process_that_fails_is_told_in_its_words(tmp_path: Path) -> None:
    task = warm.WarmTask(str(tmp_path / "nowhere.mhd"), str(tmp_path / "m.xml"), "f32", 1, 8 << 30)
    with pytest.raises(Rpn3dError, match=r"in a warm process ended with exit code 2: .*nowhere\.mhd"):
        warm.measure_warm(task)


def figures(several: bool = True) -> dict[str, object]:
    scan = {
        "seriesuid": "a",
        "engine": "openvino",
        "precision": "int8",
        "cpus": 2,
        "plan": {"windows": 1},
        "findings": 3,
        "median_s": {"read": 1.0, "network": 6.0},
    }
    other = {**scan, "seriesuid": "b", "median_s": {"read": 2.0, "network": 8.0}}
    pace = {"scans_per_hour": 720.0, "seconds_a_scan": 5.0, "cores_busy": 0.93, "first_done_s": 8.25}
    return {
        "schema_version": 1,
        "machine": describe().as_json(),
        "command": ["rpn3d", "detect", "scans"],
        "cpus": 2,
        "median": {
            "wall_s": 20.0,
            "cpu_s": 36.0,
            "peak_rss_bytes": 2 << 30,
            "cores_busy": 0.9,
            "first_window_s": 1.23,
        },
        "steady": pace if several else None,
        "warm": warm.summed_up(RUNS, 2),
        "scans": [scan, other] if several else [scan],
        "runs": [{}],
    }


def test_figures_in_words() -> None:
    text = table(figures())
    assert "1.23 s from the start of the process to the network's first window" in text
    assert "5.00 s a scan, 720 an hour, cores busy 93% of the time; 90% of the bound" in text
    assert "6.00 s a scan (5.00 to 7.00); bound by the stages' CPU seconds over all cores: 4.50 s, 800 scans" in text
    lines = markdown(figures()).splitlines()
    assert "| read | 1.50 | 1.50 | 1.50 |" in lines
    assert "| network | 7.00 | 4.50 | 7.50 |" in lines
    assert "| sum | 8.50 | 6.00 | 9.00 |" in lines
    assert "after the first of" not in table(figures(several=False))
    without = {**figures(), "warm": None, "steady": None}
    assert "| read | 1.50 |  |  |" in markdown(without)


def test_the_picture_is_a_small_png(tmp_path: Path) -> None:
    path = draw_scan(figures(), tmp_path / "scan.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 150_000
    draw_scan({**figures(), "warm": None}, tmp_path / "without.png")
