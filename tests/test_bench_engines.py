"""Engines and importers side by side: that wrong, refused and crashed are told apart, and none ends the rest."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_golden import net_folder, op_folders

from bench.engines import FAMILIES, Task, bench_engines, inputs_for, spelled_for_opencv, table, write_json
from caffe_models.errors import NetError

CONV3D = op_folders("extended")["conv3d_k3p1s2"]
POOL3D = op_folders("extended")["pool3d_max_k2s2_odd"]


def measured(folder: Path, families: str) -> dict[str, dict[str, Any]]:
    net = folder / "deploy.prototxt"
    result = bench_engines(
        Task(net, folder / "weights.caffemodel", inputs_for(net, None, {}), tuple(families.split(",")), runs=2)
    )
    return {row["engine"]: row for row in result["engines"]}


def test_our_engines_agree_and_opencv_needs_its_own_spelling(tmp_path: Path) -> None:
    net = CONV3D / "deploy.prototxt"
    result = bench_engines(Task(net, CONV3D / "weights.caffemodel", inputs_for(net, None, {}), runs=2))
    rows = {row["engine"]: row for row in result["engines"]}
    ours = [row for name, row in rows.items() if not name.startswith("opencv")]
    assert [row["verdict"] for row in ours] == ["the reference"] + ["agrees"] * 5
    assert all(row["least_s"] <= row["median_s"] <= row["most_s"] for row in ours)
    assert all(len(row["seconds"]) == 2 and row["version"] for row in ours)
    # it reads past the kernel's list: refused by a check on one day, dead of a signal on another
    assert rows["opencv as it is"]["verdict"] in ("refused", "crashed")
    assert rows["opencv as it is"]["message"]
    assert rows["opencv 3-D spelling"]["verdict"] == "agrees"
    stored = json.loads(write_json(result, tmp_path / "bench_engines.json").read_text())
    assert stored["multiply_adds"] > 0
    assert stored["machine"]["python"] == sys.version.split()[0]
    lines = table(stored).splitlines()
    assert "the reference" in "".join(lines)
    assert max(map(len, lines)) <= 120


def test_an_importer_that_gives_another_shape_is_silently_wrong() -> None:
    rows = measured(POOL3D, "opencv")
    assert rows["torch f32"]["verdict"] == "the reference"  # always there: what else is held against it
    assert rows["opencv as it is"]["verdict"] == "silently wrong"
    assert "has shape" in rows["opencv as it is"]["message"]


FAKE = """
import os, numpy as np
def setNumThreads(n): pass
class dnn:
    @staticmethod
    def readNetFromCaffe(text, weights):
        return Net()
class Net:
    def setInput(self, array, blob): pass
    def forward(self, layers):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "verdict", "message"),
    [
        ("os.abort()", "crashed", "SIGABRT"),
        ("return [np.zeros((2, 4, 3, 3, 4), np.float32)]", "silently wrong", ""),
        ("raise ValueError('no\\nsuch layer')", "refused", "no such layer"),
        ("import time; time.sleep(60)", "crashed", "no result after 3 s"),
    ],
)
def test_what_an_importer_may_do(
    body: str, verdict: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(FAKE.format(body=body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    net = CONV3D / "deploy.prototxt"
    inputs = inputs_for(net, None, {})
    names = ["torch f32", "opencv as it is"] if verdict == "silently wrong" else ["opencv as it is"]
    monkeypatch.setattr("bench.engines.ENGINES", dict.fromkeys(names))
    limit = 3 if "sleep" in body else 120
    task = Task(net, CONV3D / "weights.caffemodel", inputs, ("opencv",), runs=1, timeout_s=limit)
    rows = {row["engine"]: row for row in bench_engines(task)["engines"]}
    assert rows["opencv as it is"]["verdict"] == verdict
    assert message in rows["opencv as it is"].get("message", "")


def test_a_library_that_is_not_there_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("bench.engines.ENGINES", dict.fromkeys(["opencv as it is"]))
    row = measured(CONV3D, "opencv")["opencv as it is"]
    assert row["status"] == "not installed"
    assert "pip install opencv-python-headless" in row["message"]


def test_a_net_without_an_onnx_form_is_refused_by_those_engines_alone() -> None:
    folder = op_folders("extended")["loss_smoothl1_weights"]
    net = folder / "deploy.prototxt"
    result = bench_engines(
        Task(net, folder / "weights.caffemodel", inputs_for(net, None, {}), ("onnxruntime",), runs=1)
    )
    rows = {row["engine"]: row for row in result["engines"]}
    assert rows["torch f32"]["status"] == "ran"
    assert rows["onnxruntime f32"]["status"] == "refused"
    assert "no ONNX form" in rows["onnxruntime f32"]["message"]


def test_the_spelling_for_opencv_has_each_axis_and_no_engine() -> None:
    text = spelled_for_opencv(net_folder("bn5") / "deploy.prototxt", 3)
    assert "engine" not in text
    assert text.count("kernel_size: 3") == 3


def test_inputs(tmp_path: Path) -> None:
    net = CONV3D / "deploy.prototxt"
    declared = inputs_for(net, None, {})
    np.savez(tmp_path / "in.npz", allow_pickle=False, **declared, surplus=np.zeros(1))
    assert {k: v.shape for k, v in inputs_for(net, tmp_path / "in.npz", {}).items()} == {
        k: v.shape for k, v in declared.items()
    }
    np.savez(tmp_path / "bad.npz", surplus=np.zeros(1))
    with pytest.raises(NetError, match="has no array for input"):
        inputs_for(net, tmp_path / "bad.npz", {})
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(NetError, match=r"cannot be read as \.npz"):
        inputs_for(net, tmp_path / "text.npz", {})
    with pytest.raises(NetError, match=f"allowed: {', '.join(FAMILIES)}"):
        bench_engines(Task(net, CONV3D / "weights.caffemodel", declared, ("tensorflow",)))
