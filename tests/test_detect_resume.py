"""`rpn3d detect --resume`: what lies in the folder is not computed again, unless it would come out otherwise."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from small_chest import write_chest
from small_onnx import write_small_detector

from runtime.budget import Budget
from runtime.detect import Detector, Settings
from runtime.find_scans import ScanSource
from runtime.outputs import ResultFolder
from runtime.pipeline import detect_all
from runtime.resume import take_up

SETTINGS = Settings(Budget(1, 8 << 30, "test"), precision="f32", threshold=0.7, pictures=False)


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    return [write_chest(tmp_path / "scans" / f"{name}.mhd", seed) for seed, name in enumerate("cab")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_small_detector(tmp_path / "small.onnx")


def left(paths: list[Path], out: Path, model: Path, settings: Settings = SETTINGS) -> list[str]:
    found, _ = take_up(paths, ResultFolder(out), model, settings)
    return [one.path.stem if isinstance(one, ScanSource) else str(one) for one in found]


def test_the_csv_is_that_of_one_run(scans: list[Path], model: Path, tmp_path: Path) -> None:
    detect_all(Detector(model, SETTINGS), scans, tmp_path / "whole")
    out = tmp_path / "out"
    detect_all(Detector(model, SETTINGS), scans[:2], out)
    written = (out / "a.json").stat().st_mtime_ns
    folder = ResultFolder(out)
    rest, before = take_up(scans, folder, model, SETTINGS)
    assert [result.seriesuid for result in before] == ["c", "a"]
    detect_all(Detector(model, SETTINGS), rest, folder)
    csv = (out / "submission.csv").read_bytes()
    assert csv == (tmp_path / "whole" / "submission.csv").read_bytes()
    assert csv.count(b"\n") > 3
    assert (out / "a.json").stat().st_mtime_ns == written
    assert left(scans, out, model) == []


def test_what_would_come_out_otherwise_is_searched_again(scans: list[Path], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    detect_all(Detector(model, SETTINGS), scans[:2], out)
    assert left(scans, out, model) == ["b"]
    assert left(scans, out, model, replace(SETTINGS, precision="auto", budget=Budget(2, 9 << 30, "test"))) == ["b"]
    for changed in (
        replace(SETTINGS, threshold=0.6),
        replace(SETTINGS, max_per_scan=5),
        replace(SETTINGS, precision="bf16"),
        replace(SETTINGS, engine="onnxruntime"),
        replace(SETTINGS, pictures=True),
    ):
        assert left(scans, out, model, changed) == ["c", "a", "b"]
    other = write_small_detector(tmp_path / "other.onnx", scale=1.5)
    assert left(scans, out, other) == ["c", "a", "b"]
    now = (out / "a.json").stat().st_mtime + 5
    os.utime(next(scans[1].parent.glob("a.*raw")), (now, now))  # the voxels, not the header
    assert left(scans, out, model) == ["a", "b"]


def test_broken_and_old_results_and_paths_that_are_no_scan_are_left(
    scans: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert left([*scans, tmp_path / "none"], out, model) == ["c", "a", "b", str(tmp_path / "none")]
    detect_all(Detector(model, SETTINGS), scans, out)
    text = (out / "c.json").read_text()
    (out / "c.json").write_text(text[: len(text) // 2])
    (out / "b.json").write_text((out / "b.json").read_text().replace('"schema_version": 1', '"schema_version": 0'))
    assert left(scans, out, model) == ["c", "b"]


def test_on_the_command_line(scans: list[Path], model: Path, tmp_path: Path) -> None:
    def run(*more: object) -> str:
        command = ["detect", *more, "-o", tmp_path / "out", "--model", model, "--no-pictures", "--resume"]
        done = subprocess.run(
            [sys.executable, "-m", "rpn3d", *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stderr

    assert "0 of 1 scans were searched before" in run(scans[0])
    said = run(scans[0].parent)
    assert "1 of 3 scans were searched before" in said
    assert "[1/2]" in said
    assert "3 of 3 scans were searched before" in run(scans[0].parent)
    rows = (tmp_path / "out" / "submission.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"a", "b", "c"}
