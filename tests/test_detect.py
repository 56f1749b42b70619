"""The chain from file to findings, and the command line above it, on small synthetic scans."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from runtime.budget import Budget
from runtime.detect import Detector, Settings
from runtime.find_scans import find_scans
from runtime.network_input import STRIDE, to_input
from runtime.pipeline import detect_all
from runtime.scan_stages import prepare
from train.phantom import Phantom, make_phantom, write_phantom


class Brightness:
    """Stands for a network: the 20 mm anchor of a cell is as likely as the cell's 4 mm cube is bright."""

    name = "openvino"
    precision = "f32"
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.said: list[str] = []

    def release(self) -> None:
        self.said.append("release")

    def keep_memory(self, on: bool) -> None:
        self.said.append(f"keep {on}")

    def __call__(self, data: np.ndarray, coord: np.ndarray) -> np.ndarray:
        cells = [extent // STRIDE for extent in data.shape[2:]]
        mean = to_input(data)[0, 0].reshape(cells[0], 4, cells[1], 4, cells[2], 4).mean(axis=(1, 3, 5))
        head = np.zeros((1, 15, *cells), dtype=np.float32)
        head[0, [0, 5]] = -20
        head[0, 10] = 40 * (mean - 0.35)
        return head


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(
        11, size=160, spacing_mm=(2.2, 2.2, 2.5), step_mm=2.5, nodules=1, diameters_mm=(24.0,), reoriented=False
    )


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    model = tmp_path / "model.xml"
    model.write_text("stands for a model")
    monkeypatch.setattr("runtime.detect.load_engine", lambda *_: Brightness())
    budget = Budget(cpus=1, memory_bytes=8 * 2**30, why="test")
    return Detector(model, Settings(budget=budget, threshold=0.5))


def test_from_file_to_csv_json_and_pictures(phantom: Phantom, detector: Detector, tmp_path: Path) -> None:
    scan = write_phantom(phantom, tmp_path / "scans")
    out = tmp_path / "out"
    outcome = detect_all(detector, [scan], out)
    (result,) = outcome.results
    assert outcome.failures == ()
    names = {path.name.removeprefix(result.seriesuid) for path in out.iterdir()}
    assert names == {"submission.csv", ".json", "_findings.png", "_mask.png"}
    rows = list(csv.DictReader((out / "submission.csv").open()))
    assert len(rows) == len(result.findings) > 0
    assert {row["seriesuid"] for row in rows} == {phantom.volume.seriesuid}
    content = json.loads((out / f"{result.seriesuid}.json").read_text())
    assert content["precision"] == "f32"
    assert content["fallbacks"] == []
    assert 1500 < content["mask_volume_ml"] < 9000
    assert list(content["seconds"]) == ["read", "mask", "resample", "network", "decode", "pictures"]
    assert content["plan"]["windows"] == 1
    assert content["peak_memory_bytes"] > 50e6


def test_two_runs_give_the_same_csv(phantom: Phantom, detector: Detector, tmp_path: Path) -> None:
    scan = write_phantom(phantom, tmp_path / "scans")
    for name in ("one", "two"):
        detect_all(detector, [scan], tmp_path / name)
    assert (tmp_path / "one" / "submission.csv").read_bytes() == (tmp_path / "two" / "submission.csv").read_bytes()


def test_where_a_finding_is_does_not_depend_on_the_threshold(
    phantom: Phantom, detector: Detector, tmp_path: Path
) -> None:
    """Cells below it have a say where a nodule is, too."""
    scan = write_phantom(phantom, tmp_path / "scans")
    low = detect_all(detector, [scan], tmp_path / "low").results[0].findings
    first = low[0].probability
    assert 0.5 < low[-1].probability < first
    detector.settings = replace(detector.settings, threshold=first)
    high = detect_all(detector, [scan], tmp_path / "high").results[0].findings
    assert high == tuple(one for one in low if one.probability >= first)


def test_the_engine_keeps_its_memory_for_several_scans_where_there_is_room(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_phantom(phantom, tmp_path / "scans")
    second = write_phantom(replace(phantom, volume=replace(phantom.volume, seriesuid="1.2.3")), tmp_path / "scans")
    model = tmp_path / "model.xml"
    model.write_text("stands for a model")
    said = {}
    memory = {"one": 64 * 2**30, "two": 64 * 2**30}
    for name, scans in (("one", [first]), ("two", [first, second]), ("short", [first, second])):
        engine = Brightness()
        monkeypatch.setattr("runtime.detect.load_engine", lambda *_, engine=engine: engine)
        detector = Detector(model, Settings(budget=Budget(1, memory[name], "test"), threshold=0.5))
        outcome = detect_all(detector, scans, tmp_path / name)
        assert len(outcome.results) == len(scans)
        said[name] = engine.said
        # enough for the windows, whatever this process holds, and not enough to keep anything
        memory["short"] = int(1.5 * outcome.results[0].plan["predicted_peak_bytes"])
    assert said == {"one": ["keep False"], "two": ["keep True", "keep True"], "short": ["keep False", "keep False"]}


def test_what_was_kept_is_given_back_where_a_scan_needs_the_room(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.xml"
    model.write_text("stands for a model")
    engine = Brightness()
    monkeypatch.setattr("runtime.detect.load_engine", lambda *_: engine)
    detector = Detector(model, Settings(budget=Budget(1, 64 * 2**30, "test")))
    (source,) = find_scans([write_phantom(phantom, tmp_path / "scans")])
    scan = prepare(source, 1)
    roomy = detector.plan(scan, more=True)
    detector.settings = replace(detector.settings, budget=Budget(1, 2 * roomy.predicted_peak_bytes - 2**26, "test"))
    short = detector.plan(scan, more=True)
    assert engine.said == ["keep True", "release", "keep False"]
    assert (roomy.keeps_memory, short.keeps_memory) == (True, False)
    assert short.windows == roomy.windows


def test_a_broken_scan_is_named_and_the_others_still_run(phantom: Phantom, detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    scan = Path(write_phantom(phantom, folder))
    broken = folder / "a_broken.mhd"
    shutil.copy(scan, broken)
    broken.write_text(broken.read_text().replace(scan.with_suffix(".zraw").name, "missing.zraw"))
    said: list[str] = []
    outcome = detect_all(detector, [folder, tmp_path / "nowhere"], tmp_path / "out", complain=said.append)
    assert [result.seriesuid for result in outcome.results] == [phantom.volume.seriesuid]
    assert len(outcome.failures) == len(said) == 2
    assert any("a_broken.mhd" in line and "missing.zraw" in line for line in said)
    assert any("nowhere" in line for line in said)
    assert all("\n" not in line for line in said)


def test_memory_too_small_for_any_window_says_the_least(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.xml"
    model.write_text("stands for a model")
    monkeypatch.setattr("runtime.detect.load_engine", lambda *_: Brightness())
    detector = Detector(model, Settings(budget=Budget(1, 50 * 2**20, "test")))
    outcome = detect_all(detector, [write_phantom(phantom, tmp_path)], tmp_path / "out")
    ((_, message),) = outcome.failures
    assert "memory of 50 MiB is too little" in message
    assert "at least" in message


def rpn3d(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rpn3d", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('name: "n"\nlayer { name: "a" type: "Convolutoin" top: "a" }\n')
    (tmp_path / "w.caffemodel").write_bytes(b"")
    done = rpn3d("convert", tmp_path / "net.prototxt", tmp_path / "w.caffemodel", "-o", tmp_path / "x.onnx")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("rpn3d: ")
    assert "net.prototxt:2:" in line
    assert 'unknown type "Convolutoin"' in line
    assert not (tmp_path / "x.onnx").exists()


def test_every_command_has_help_with_an_example() -> None:
    for command in ("detect", "convert", "phantom", "train", "evaluate", "caffe run", "caffe inspect", "bench scan"):
        done = rpn3d(*command.split(), "--help")
        assert done.returncode == 0
        assert f"Example: rpn3d {command}" in " ".join(done.stdout.split())
