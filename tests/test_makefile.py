"""The Makefile as a dependency graph: what is rebuilt, and that a second `make` does nothing."""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT

STUB = """#!/bin/sh
# stands for the virtual environment's python: notes its arguments and makes the file after -o
echo "$@" >> calls
while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then case "$2" in *.onnx|*.xml) touch "$2";; *) mkdir -p "$2"; touch "$2/annotations.csv";; esac; fi
  shift
done
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the graph depends on, with a stub for python and all environments made."""
    for name in ("Makefile", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in ("prototxt", "caffe_models", "convert"):
        shutil.copytree(
            ROOT / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__", "rpn3d.*", "*-int8.*", "*-proof.json"),
        )
    (tmp_path / "caffe_models" / "rpn3d.caffemodel").write_bytes(b"weights")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    for stamp in (".inference", ".test", ".int8", ".bench"):
        (tmp_path / ".venv" / stamp).touch()
    (tmp_path / "build").mkdir()
    return tmp_path


def make(tree: Path, *arguments: str) -> list[str]:
    """Run make; the calls of python that it made."""
    (tree / "calls").write_text("")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(["make", *arguments], cwd=tree, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return (tree / "calls").read_text().splitlines()


def touch(path: Path) -> None:
    later = time.time() + 5
    os.utime(path, (later, later))


def test_a_second_make_does_nothing(tree: Path) -> None:
    first = make(tree, "-j4", "model")
    assert [line.split()[2] for line in first] == ["convert"] * 3
    assert make(tree, "-j4", "model") == []


def test_each_file_is_rebuilt_when_what_it_comes_from_changed(tree: Path) -> None:
    make(tree, "model")
    touch(tree / "caffe_models" / "rpn3d.caffemodel")
    assert len(make(tree, "model")) == 3
    for name in ("rpn3d.onnx", "rpn3d-f32.xml", "rpn3d-bf16.xml"):
        touch(tree / "build" / name)
    (tree / "build" / "rpn3d-bf16.xml").unlink()
    (call,) = make(tree, "model")
    assert " ".join(call.split()[2:]) == (
        "convert build/rpn3d.onnx -o build/rpn3d-bf16.xml --precision bf16 --no-parity"
    )


def test_int8_is_made_when_asked_for(tree: Path) -> None:
    make(tree, "model")
    (call,) = make(tree, "int8", "CALIBRATION=a.mhd b.mhd")
    assert call.endswith("--precision int8 --calibration a.mhd --calibration b.mhd --no-parity")
    assert make(tree, "int8") == []
    assert [line.split()[2] for line in make(tree, "detect", "PRECISION=int8", "SCAN=x.mhd")] == ["detect"]


@pytest.fixture
def shipped(tree: Path) -> Path:
    """The tree with an int8 model of its weights, and the proof of it."""
    digest = hashlib.sha256(b"weights").hexdigest()
    folder = tree / "caffe_models"
    (folder / "rpn3d-int8.xml").write_text(f'<rpn3d>\n\t<caffemodel_sha256 value="{digest}" />\n</rpn3d>\n')
    (folder / "rpn3d-int8.bin").write_bytes(b"int8")
    (folder / "rpn3d-proof.json").write_text(f'{{\n "weights_sha256": "{digest}"\n}}\n')
    return tree


def test_the_int8_model_that_comes_along_is_copied(shipped: Path) -> None:
    """It takes no calibration, and stands in the folder that `make detect` hands to --model, with its proof."""
    assert [line.split()[2] for line in make(shipped, "-j4", "model")] == ["convert"] * 3
    build, ours = shipped / "build", shipped / "caffe_models"
    for name in ("rpn3d-int8.xml", "rpn3d-int8.bin", "rpn3d-proof.json"):
        assert (build / name).read_bytes() == (ours / name).read_bytes()
    assert make(shipped, "-j4", "model") == []
    assert make(shipped, "int8") == []
    (ours / "rpn3d-int8.bin").write_bytes(b"another")
    touch(ours / "rpn3d-int8.bin")
    assert make(shipped, "model") == []
    assert (build / "rpn3d-int8.bin").read_bytes() == b"another"


def test_int8_of_other_weights_is_not_copied(shipped: Path) -> None:
    (shipped / "caffe_models" / "rpn3d.caffemodel").write_bytes(b"trained anew")
    make(shipped, "model")
    assert not (shipped / "build" / "rpn3d-int8.xml").exists()
    assert not (shipped / "build" / "rpn3d-proof.json").exists()
    (call,) = make(shipped, "int8")
    assert call.endswith("--precision int8 --no-parity")


def test_named_calibration_goes_before_what_comes_along(shipped: Path) -> None:
    make(shipped, "model")
    (call,) = make(shipped, "int8", "CALIBRATION=a.mhd")
    assert call.endswith("--precision int8 --calibration a.mhd --no-parity")
    assert make(shipped, "int8", "CALIBRATION=a.mhd") == []
    (call,) = make(shipped, "int8", "CALIBRATION=b.mhd")
    assert call.endswith("--calibration b.mhd --no-parity")


def test_code_that_does_not_make_models_rebuilds_none(tree: Path) -> None:
    make(tree, "model")
    touch(tree / "caffe_models" / "solver.py")
    touch(tree / "caffe_models" / "rpn" / "targets.py")
    assert make(tree, "model") == []
    touch(tree / "convert" / "to_onnx.py")
    assert len(make(tree, "model")) == 3


def test_variables_reach_the_command(tree: Path) -> None:
    calls = make(tree, "detect", "SCAN=a scan.mhd", "OUT=some where", "CPUS=2", "MEMORY=4G", "PRECISION=f32")
    assert calls[-1] == "-m rpn3d detect a scan.mhd -o some where --model build --cpus 2 --memory 4G --precision f32"
    assert not any("phantom" in call for call in calls)


def test_without_a_scan_a_phantom_is_made_once(tree: Path) -> None:
    calls = make(tree, "detect")
    assert sum("phantom -o" in call for call in calls) == 1
    assert calls[-1].startswith("-m rpn3d detect build/phantom/ -o out")
    assert not any("phantom -o" in call for call in make(tree, "detect"))


def test_all_benchmarks_get_the_scan_the_models_and_a_set_of_scans(tree: Path) -> None:
    calls = make(tree, "bench", "SCAN=a scan.mhd", "CPUS=2")
    assert calls[-1] == (
        "-m bench.results bench/results --run a scan.mhd --scans build/bench_scans --model build "
        "--int8 build/rpn3d-int8.xml --cpus 2"
    )
    assert sum("phantom -o" in call for call in calls) == 1
    assert [line.split()[1] for line in make(tree, "bench", "SCAN=a scan.mhd")] == ["bench.results"]


def test_help_lists_every_target(tree: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=tree, capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert listed == set(phony.removeprefix(".PHONY:").split())
