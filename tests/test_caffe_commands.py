"""Any Caffe net from the command line: convert, run in three engines, train, inspect; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from caffe_golden import read_case
from conftest import ROOT, need

from caffe_models.errors import CaffeWarning, NetError, WeightsError
from caffe_models.weights import write_caffemodel
from convert.build import built_ir, load_net
from convert.command import convert_net, run_caffe_net
from convert.model_file import model_file
from convert.parity import random_inputs
from train.caffe_train import train_on_arrays

DEPLOY = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"
SMALL_NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
layer { name: "r" type: "ReLU" bottom: "c" top: "out" }
"""


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A net of one convolution, with weights."""
    net, weights = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    net.write_text(SMALL_NET)
    rng = np.random.default_rng(0)
    blobs = [rng.normal(size=(2, 1, 3, 3, 3)).astype(np.float32), np.array([0.1, -0.1], np.float32)]
    write_caffemodel(weights, {"c": blobs}, "small", {"c": "Convolution"})
    return net, weights


def test_converting_measures_all_engines(small: tuple[Path, Path], tmp_path: Path) -> None:
    done = convert_net(*small, tmp_path / "x.xml", "f32", lambda net: ("random numbers", random_inputs(net.inputs)))
    assert {path.name for path in done.files} == {"x.onnx", "x.xml", "x.bin"}
    assert all(path.is_file() for path in done.files)
    assert done.parity is not None
    assert len(done.parity.differences) == 3
    assert json.dumps(done.as_json())
    assert any("torch - openvino" in line for line in done.lines())


def test_a_conversion_that_differs_fails_and_leaves_nothing(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convert.parity.TOLERANCE", {"f32": -1.0})
    with pytest.raises(NetError, match=r"parity of .* fails"):
        convert_net(*small, tmp_path / "x.xml", "f32", lambda net: ("random", random_inputs(net.inputs)))
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_running_a_net_gives_caffes_outputs(data_dir: Path, tmp_path: Path, engine: str) -> None:
    folder = need(data_dir / "caffe_golden" / "nets" / "rpn_bn5")
    case = read_case(folder, "extended", "deploy_32.prototxt", "io_32.npz")
    np.savez(tmp_path / "in.npz", allow_pickle=False, **case.inputs)
    weights = folder / "weights.caffemodel"
    run_caffe_net(folder / "deploy_32.prototxt", weights, tmp_path / "in.npz", tmp_path / "out.npz", engine)
    (name,) = case.outputs
    with np.load(tmp_path / "out.npz") as found:
        assert np.abs(found[name] - case.outputs[name]).max() <= 1e-4 * np.abs(case.outputs[name]).max()


def test_intermediate_blobs_come_on_request(small: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", data=np.ones((1, 1, 6, 6, 6), np.float32))
    run_caffe_net(*small, tmp_path / "in.npz", tmp_path / "out.npz", "torch", ["c"])
    with np.load(tmp_path / "out.npz") as found:
        assert set(found.files) == {"out", "c"}
        assert np.array_equal(np.maximum(found["c"], 0), found["out"])
    np.savez(tmp_path / "bad.npz", other=np.zeros(1))
    with pytest.raises(NetError, match="has no array for input data; it holds other"):
        run_caffe_net(*small, tmp_path / "bad.npz", tmp_path / "out.npz", "torch")


def test_training_follows_real_caffe(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = need(data_dir / "caffe_golden" / "train" / "iter_size2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.prototxt").write_text((folder / "train.prototxt").read_text())
    (tmp_path / "solver.prototxt").write_text((folder / "solver.prototxt").read_text())
    train_on_arrays(
        tmp_path / "solver.prototxt", folder / "inputs.npz", tmp_path / "log", folder / "initial.caffemodel"
    )
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    with np.load(folder / "trajectory.npz") as wanted:
        losses = {key.removeprefix("loss_"): wanted[key] for key in wanted.files if key.startswith("loss_")}
    assert [line["iteration"] for line in lines] == list(range(10))
    for top, values in losses.items():
        found = [line["losses"][top] for line in lines]
        assert np.allclose(found, values.mean(axis=1), rtol=1e-4)


def test_weights_of_another_net_are_refused(small: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises((NetError, WeightsError), match=r"small\.caffemodel: .*(another net|no weights|layer)"):
        load_net(DEPLOY, small[1])
    wrong = tmp_path / "wrong.caffemodel"
    write_caffemodel(wrong, {"c": [np.zeros((3, 1, 3, 3, 3), np.float32)]}, "small", {"c": "Convolution"})
    with pytest.raises(WeightsError, match=r'wrong\.caffemodel: .*"c"'):
        load_net(small[0], wrong)


def test_models_are_built_once_and_found_by_folder(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPN3D_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    xml = built_ir(*small, "f32", said.append)
    assert built_ir(*small, "f32", said.append) == xml
    assert len(said) == 1
    assert model_file(xml.parent, "f32", net=small[0], weights=small[1]) == xml
    assert model_file(None, "f32", net=small[0], weights=small[1]) == xml
    with pytest.raises(NetError, match="no model named"):
        model_file(xml.parent, "auto", net=small[0], weights=small[1])
    with pytest.raises(NetError, match="no such model"):
        model_file(tmp_path / "none.xml", "f32", net=small[0], weights=small[1])


def test_the_command_line_names_file_and_line(small: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.prototxt"
    bad.write_text(SMALL_NET.replace("num_output", "num_outputs"))
    command = [sys.executable, "-m", "rpn3d", "convert", str(bad), str(small[1]), "-o", str(tmp_path / "x.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bad.prototxt:4" in done.stderr
    assert 'num_output"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_converting_needs_no_other_engine(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyTorch and ONNX Runtime are not installed the file is made, and it is said that nothing was proven."""
    monkeypatch.setattr("convert.parity._installed", lambda package: False)
    with pytest.warns(CaffeWarning, match=r"x\.xml: parity was not measured: torch was left out: it is not installed"):
        done = convert_net(*small, tmp_path / "x.xml", inputs=lambda net: ("random", random_inputs(net.inputs)))
    assert all(file.is_file() for file in done.files)


def test_a_package_that_is_not_installed_is_named(small: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", data=np.ones((1, 1, 6, 6, 6), np.float32))
    script = "import sys; sys.modules['torch'] = None; import rpn3d; rpn3d.main()"
    words = [
        "caffe",
        "run",
        *map(str, small),
        "--inputs",
        str(tmp_path / "in.npz"),
        "--outputs",
        str(tmp_path / "o.npz"),
    ]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "this needs the Python package torch, which is not installed: pip install" in done.stderr
