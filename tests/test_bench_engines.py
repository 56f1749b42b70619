"""Engines and importers side by side: that wrong, refused and crashed are told apart, and none ends the rest."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_golden import net_folder, op_folders
from conftest import ROOT

from bench.bound import read_report, run_app
from bench.engine_job import Task, inputs_for, spelled_for_opencv, words_for
from bench.engine_kinds import ENGINES, FAMILIES, chosen
from bench.engines import bench_engines, draw_engines, markdown, share_of_bound, table, write_json
from bench.machine import describe
from caffe_models.errors import NetError
from convert.build import load_net
from convert.parity import TOLERANCE

NET = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"
CONV3D = op_folders("extended")["conv3d_k3p1s2"]
POOL3D = op_folders("extended")["pool3d_max_k2s2_odd"]


def measured(folder: Path, families: str) -> dict[str, dict[str, Any]]:
    net = folder / "deploy.prototxt"
    result = bench_engines(
        Task(net, folder / "weights.caffemodel", inputs_for(net, None, {}), tuple(families.split(",")), runs=1)
    )
    return {row["engine"]: row for row in result["engines"]}


def test_our_engines_agree_and_opencv_needs_its_own_spelling(tmp_path: Path) -> None:
    net = CONV3D / "deploy.prototxt"
    asked = ("torch-f32", "torch-bf16", "onnxruntime", "openvino", "rpn3d", "opencv")
    task = Task(net, CONV3D / "weights.caffemodel", inputs_for(net, None, {}), asked, runs=2, rounds=1)
    result = bench_engines(task)
    rows = {row["engine"]: row for row in result["engines"]}
    ours = [row for name, row in rows.items() if not name.startswith("opencv")]
    emulates = not any(flag.endswith("_bf16") for flag in result["machine"]["flags"])
    # OpenVINO asked for bf16 would run in f32 where the processor has none: a second row of the same
    assert ("openvino bf16" in rows) is not emulates
    assert [row["verdict"] for row in ours] == ["the reference"] + ["agrees"] * (5 - emulates)
    assert not any("int8" in name or name.startswith("rpn3d") for name in rows)  # no int8 model given, and no detector
    assert rows["torch bf16 autocast"].get("emulated", False) == emulates
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
    monkeypatch.setattr("bench.engine_kinds.ENGINES", dict.fromkeys(names))
    limit = 3 if "sleep" in body else 120
    task = Task(net, CONV3D / "weights.caffemodel", inputs, ("opencv",), runs=1, timeout_s=limit)
    rows = {row["engine"]: row for row in bench_engines(task)["engines"]}
    assert rows["opencv as it is"]["verdict"] == verdict
    assert message in rows["opencv as it is"].get("message", "")


def test_a_library_that_is_not_there_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("bench.engine_kinds.ENGINES", dict.fromkeys(["opencv as it is"]))
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


def test_the_spelling_for_opencv_has_each_axis_no_engine_and_scale_layers() -> None:
    folder = net_folder("bn5")
    text, weights = spelled_for_opencv(folder / "deploy.prototxt", folder / "weights.caffemodel")
    assert "engine" not in text
    assert text.count("kernel_size: 3") == 3
    assert text.count('type: "Scale"') == 3
    assert {name: len(blobs) for name, blobs in weights.items() if name.startswith("b")} == {
        "b1": 3, "b1_scale": 2, "b2": 3, "b2_scale": 2, "b3": 3, "b3_scale": 2,
    }  # fmt: skip


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


@pytest.mark.parametrize("name", ["torch compile f32", "torch compile bf16"])
def test_what_is_compiled_is_the_whole_net_as_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    graphs: list[Any] = []

    def keep(graph: Any, **_: Any) -> Any:
        graphs.append(graph)
        return graph

    # the compiler itself takes 20 s for one layer
    monkeypatch.setattr("torch.compile", keep)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    folder = net_folder("bn5")
    net, weights = folder / "deploy.prototxt", folder / "weights.caffemodel"
    inputs = inputs_for(net, None, {})
    run, precision = ENGINES[name]({"net": str(net), "weights": str(weights), "threads": 1}, inputs)
    found = run()
    (graph,) = graphs
    kinds = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert torch.ops.aten.convolution.default in kinds
    wanted = load_net(net, weights).to_torch().forward({b: torch.from_numpy(a) for b, a in inputs.items()})
    for blob, array in found.items():
        right = wanted[blob].numpy()
        assert np.abs(array - right).max() <= TOLERANCE[precision] * np.abs(right).max()
    assert set(found) == set(load_net(net, weights).outputs)


def typed_run(order: list[tuple[str, int]], medians: dict[str, float]) -> Any:
    """Stands for `_run`: notes the engine and its runs; each run takes as long as that of the round before and 1 s."""

    def run(name: str, job: dict[str, Any], folder: Path, timeout_s: float) -> tuple[dict[str, Any], Any]:
        order.append((name, job["runs"]))
        if name not in medians:
            return {"engine": name, "status": "refused", "message": "cannot"}, None
        seconds = [medians[name] + sum(n == name for n, _ in order)] * job["runs"]
        report = {"engine": name, "status": "ran", "precision": "f32", "median_s": seconds[0], "seconds": seconds}
        return {**report, "peak_rss_bytes": 1}, {"y": np.ones(1)}

    return run


def test_engines_take_turns_and_the_second_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    seconds = {"torch f32": 10.0, "openvino f32": 1.0}
    monkeypatch.setattr("bench.engines._run", typed_run(order, seconds))
    names = ["torch f32", "onnxruntime f32", "openvino f32"]
    monkeypatch.setattr("bench.engine_kinds.ENGINES", dict.fromkeys(names))
    net = CONV3D / "deploy.prototxt"
    asked = ("torch", "onnxruntime", "openvino")
    result = bench_engines(Task(net, CONV3D / "weights.caffemodel", inputs_for(net, None, {}), asked, runs=3))
    assert order == [
        *(("torch f32", 2), ("onnxruntime f32", 2), ("openvino f32", 2)),
        *(("openvino f32", 1), ("torch f32", 1)),  # what was refused once is not asked again
    ]
    rows = {row["engine"]: row for row in result["engines"]}
    assert rows["openvino f32"]["seconds"] == [2.0, 2.0, 3.0]
    assert rows["openvino f32"]["median_s"] == 2.0
    assert rows["openvino f32"]["verdict"] == "agrees"
    assert rows["onnxruntime f32"]["verdict"] == "refused"


def test_emulated_bf16_of_much_work_is_left_out_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    monkeypatch.setattr("bench.engines._run", typed_run(order, {"torch f32": 1.0, "torch bf16 autocast": 1.0}))
    monkeypatch.setattr("bench.engine_kinds.ENGINES", dict.fromkeys(["torch f32", "torch bf16 autocast"]))
    monkeypatch.setattr("bench.engines.EMULATED_WORK", 1)
    monkeypatch.setattr("bench.engines.describe", lambda: describe("processor : 0\nflags : avx2"))
    net = CONV3D / "deploy.prototxt"
    for asked, status in (("torch", "left out"), ("torch-bf16", "ran")):
        task = Task(net, CONV3D / "weights.caffemodel", inputs_for(net, None, {}), (asked,), runs=1)
        row = bench_engines(task)["engines"][1]
        assert row["status"] == status
        assert row["emulated"]
    assert order[-1] == ("torch bf16 autocast", 1)


def test_what_may_be_asked_for() -> None:
    assert list(chosen(["torch-compile"])) == ["torch compile f32", "torch compile bf16"]
    assert chosen(["torch-bf16", "onnxruntime"]) == {"torch bf16 autocast": True, "onnxruntime f32": False}
    assert [name for name in chosen(["benchmark_app"]) if "int8" in name] == [
        "benchmark_app int8 latency",
        "benchmark_app int8 throughput",
    ]
    with pytest.raises(NetError, match="engine torch-bf is not known"):
        chosen(["torch-bf"])


REPORT = {
    "configuration_setup": {"number of parallel infer requests": "2"},
    "execution_results": {
        "first inference time (ms)": "3703.87",
        "total execution time (ms)": "8000.00",
        "total number of iterations": "4",
        "latency (ms)": "1990.50",
        "throughput": "0.50",
    },
}


def test_the_report_of_benchmark_app_by_hand() -> None:
    found = read_report(json.dumps(REPORT))
    assert found.pop("status") == "ran"
    wanted = {"per_s": 0.5, "latency_s": 1.9905, "first_s": 3.70387, "iterations": 4, "requests": 2}
    assert found == pytest.approx(wanted)
    broken = read_report("{}")
    assert broken["status"] == "refused"
    assert "execution_results" in broken["message"]


def test_benchmark_app_is_the_bound_of_what_runs_the_same_model() -> None:
    net = CONV3D / "deploy.prototxt"
    asked = ("openvino-f32", "benchmark_app-f32-latency")
    result = bench_engines(Task(net, CONV3D / "weights.caffemodel", inputs_for(net, None, {}), asked, runs=2, rounds=1))
    (row,) = result["bound"]
    assert row["status"] == "ran", row
    assert row["iterations"] >= 2
    share = result["share_of_bound"]["f32"]
    assert (share["engine"], share["bound"]) == ("openvino f32", "benchmark_app f32 latency")
    ours = next(one for one in result["engines"] if one["engine"] == "openvino f32")
    assert share["share"] == pytest.approx(ours["voxels_per_s"] / row["voxels_per_s"])


def test_benchmark_app_on_no_model_is_a_row(tmp_path: Path) -> None:
    found = run_app(
        tmp_path / "no.xml",
        {"data": (1, 1, 8, 8, 8)},
        hint="latency",
        precision="f32",
        threads=1,
        iterations=1,
        timeout_s=120,
    )
    assert found["status"] == "refused"
    assert found["message"]


def typed() -> dict[str, Any]:
    def row(name: str, precision: str, median_s: float, relative: float | None, verdict: str = "agrees") -> Any:
        times = {"median_s": median_s, "least_s": median_s, "most_s": 2 * median_s, "voxels_per_s": 2e6 / median_s}
        return {
            "engine": name, "version": "1.0", "precision": precision, "status": "ran", "gflop_per_s": 5.0,
            "relative": relative, "verdict": verdict, **times,
        }  # fmt: skip

    rows = [
        row("torch f32", "f32", 8.0, None, "the reference"),
        {"engine": "torch compile f32", "status": "refused", "verdict": "refused", "message": "no C++ compiler"},
        row("onnxruntime f32", "f32", 4.0, 1e-6),
        row("openvino f32", "f32", 2.0, 1e-6),
        row("rpn3d runtime int8", "int8", 1.0, 0.05),
        row("opencv as it is", "f32", 0.5, 0.9, "silently wrong"),
    ]
    bound = [
        {"engine": f"benchmark_app int8 {hint}", "precision": "int8", "status": "ran", "voxels_per_s": speed}
        | {"latency_s": 1.0, "iterations": 5}
        for hint, speed in (("latency", 1.8e6), ("throughput", 2.1e6))
    ]
    return {
        "machine": describe().as_json(),
        "net": "net.prototxt",
        "inputs": {"data": [1, 1, 128, 128, 128]},
        "inputs_are": "random numbers",
        "multiply_adds": 10**9,
        "threads": 2,
        "runs": 4,
        "rounds": 2,
        "engines": rows,
        "bound": bound,
        "share_of_bound": share_of_bound(rows, bound),
    }


def test_the_share_of_the_bound_by_hand() -> None:
    share = typed()["share_of_bound"]
    assert list(share) == ["int8"]  # no bound in f32
    assert share["int8"]["engine"] == "rpn3d runtime int8"
    assert share["int8"]["bound"] == "benchmark_app int8 throughput"
    assert share["int8"]["share"] == pytest.approx(2.0 / 2.1)


def test_typed_figures_as_markdown_text_and_picture(tmp_path: Path) -> None:
    lines = markdown(typed()).splitlines()
    assert "| rpn3d runtime int8 | int8 | 1 s | 1 s to 2 s | 2 | 5.0e-02 | 8.00 | 4.00 | " in lines
    assert any(line.startswith("| opencv as it is (**silently wrong**)") for line in lines)
    assert "- torch compile f32: refused: no C++ compiler" in lines
    assert "- rpn3d runtime int8 reaches 95% of the bound in int8 (benchmark_app int8 throughput)" in lines
    text = table(typed())
    assert "benchmark_app int8 latency: 1.8 M voxels a second, latency 1 s (5 inferences)" in text
    assert max(map(len, text.splitlines())) <= 120
    picture = draw_engines(typed(), tmp_path / "engines.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000


def test_a_detector_is_fed_a_cube_of_lungs() -> None:
    inputs = inputs_for(NET, None, {"data": (1, 1, 32, 32, 32), "coord": (1, 3, 8, 8, 8)})
    assert {name: array.shape for name, array in inputs.items()} == {
        "data": (1, 1, 32, 32, 32),
        "coord": (1, 3, 8, 8, 8),
    }
    assert inputs["data"].min() < -0.5  # air
    assert words_for(NET, None, {}) == "a cube of a synthetic CT's lungs"
    assert words_for(CONV3D / "deploy.prototxt", None, {}) == "random numbers in [-1, 1]"
