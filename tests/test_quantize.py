"""int8: quantised models run as int8, stay near f32, say what they were made from, and are found when they fit."""

import io
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from small_onnx import window, write_small_detector

from caffe_models.errors import NetError
from caffe_models.net import Net
from convert.command import convert_net
from convert.model_file import model_file
from convert.provenance import file_sha256, noted
from convert.quantize import Calibration, _chosen
from convert.to_onnx import net_to_onnx, save_onnx
from convert.to_openvino import onnx_to_ir
from runtime.engines.base import EngineOptions, load_engine


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(1)
    found = []
    for _ in range(count):
        data, coord = window(32, 32, 32)
        found.append({"data": draw.uniform(-1, 1, data.shape).astype(np.float32), "coord": coord})
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    onnx = write_small_detector(folder / "small.onnx")
    onnx_to_ir(onnx, folder / "small-f32.xml")
    onnx_to_ir(onnx, folder / "small-bf16.xml", "bf16")
    onnx_to_ir(onnx, folder / "small-int8.xml", "int8", Calibration(samples(), "noise"))
    return folder


def test_it_runs_in_int8_and_near_f32(models: Path) -> None:
    data = samples(1)[0]
    truth = load_engine("openvino", models / "small-f32.xml")(data["data"], data["coord"])
    engine = load_engine("openvino", models / "small-int8.xml")
    assert engine.precision == "int8"
    found = engine(data["data"], data["coord"])
    error = float(np.abs(found - truth).max() / np.abs(truth).max())
    assert 1e-5 < error < 0.1
    assert noted(models / "small-int8.xml", "calibration") == "noise"
    assert (models / "small-int8.bin").stat().st_size < (models / "small-f32.bin").stat().st_size
    with pytest.raises(NetError, match="is quantised to int8 and cannot run in f32"):
        load_engine("openvino", models / "small-int8.xml", EngineOptions(precision="f32"))


def test_progress_needs_no_output_that_can_show_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal under LC_ALL=C: NNCF draws its bars with characters that such an output refuses."""
    shown = [io.TextIOWrapper(io.BytesIO(), "ascii", errors) for errors in ("strict", "backslashreplace")]
    monkeypatch.setattr(sys, "stdout", shown[0])
    monkeypatch.setattr(sys, "stderr", shown[1])
    onnx_to_ir(models / "small.onnx", tmp_path / "x.xml", "int8", Calibration(samples(), "noise"))
    for one in shown:
        one.flush()
    assert (shown[0].buffer.tell(), shown[1].buffer.tell() > 0) == (0, True)


def test_int8_needs_samples_that_fit(models: Path, tmp_path: Path) -> None:
    with pytest.raises(NetError, match="needs calibration samples"):
        onnx_to_ir(models / "small.onnx", tmp_path / "x.xml", "int8")
    wrong = Calibration([{"data": samples(1)[0]["data"]}], "half.npz")
    with pytest.raises(NetError, match=r"half\.npz: arrays data; the net's inputs are coord, data"):
        onnx_to_ir(models / "small.onnx", tmp_path / "x.xml", "int8", wrong)
    assert not (tmp_path / "x.xml").exists()


def test_samples_in_which_there_is_something_are_taken_first(models: Path) -> None:
    """Of 12 samples 6: the 3 of the highest score, and 3 spread over the others in their order."""
    model = openvino.Core().read_model(models / "small.onnx")
    fed = [{**one, "data": one["data"] * np.float32(k)} for k, one in enumerate(samples(12))]
    scored = []

    def score(output: np.ndarray) -> float:
        assert output.shape == (1, 15, 8, 8, 8)
        scored.append(float(np.abs(output).max()))
        return scored[-1]

    taken = _chosen(model, Calibration(fed, "noise", keep=6, score=score))
    numbers = [next(k for k, one in enumerate(fed) if one is sample) for sample in taken]
    assert len(scored) == 12
    assert numbers == [11, 10, 9, 0, 3, 6]
    assert _chosen(model, Calibration(fed, "noise", keep=12, score=score)) is fed


def test_batch_norm_is_folded_before_quantising(tmp_path: Path) -> None:
    """Channels whose scale differs a thousandfold until BatchNorm evens them out: one step must not serve them all."""
    text = 'input: "data" input_shape { dim: 1 dim: 2 dim: 16 dim: 16 dim: 16 }\n'
    bottom = "data"
    for k in range(6):
        text += (
            f'layer {{ name: "c{k}" type: "Convolution" bottom: "{bottom}" top: "c{k}"\n'
            '  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }\n'
            f'layer {{ name: "b{k}" type: "BatchNorm" bottom: "c{k}" top: "b{k}" }}\n'
            f'layer {{ name: "r{k}" type: "ReLU" bottom: "b{k}" top: "r{k}" }}\n'
        )
        bottom = f"r{k}"
    (tmp_path / "n.prototxt").write_text(text)
    net = Net.from_prototxt(tmp_path / "n.prototxt")
    net.fill(3)
    scale = np.geomspace(1e-2, 1e1, 16, dtype=np.float32)
    weights = net.weights()
    for k in range(6):
        weights[f"c{k}"][0] *= scale[:, None, None, None, None]
        weights[f"b{k}"][1][...] = 0.3 * scale**2
        weights[f"b{k}"][2][...] = 1
    net.load(weights, "made here")
    save_onnx(net_to_onnx(net), tmp_path / "n.onnx")
    draw = np.random.default_rng(2)
    fed = [{"data": draw.normal(size=(1, 2, 16, 16, 16)).astype(np.float32)} for _ in range(5)]
    onnx_to_ir(tmp_path / "n.onnx", tmp_path / "f32.xml")
    onnx_to_ir(tmp_path / "n.onnx", tmp_path / "int8.xml", "int8", Calibration(fed[:4], "noise"))
    core = openvino.Core()
    found = {}
    for name in ("f32", "int8"):
        model = core.compile_model(str(tmp_path / f"{name}.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found[name] = np.array(model(fed[4])[0])
    error = float(np.sqrt(np.mean((found["int8"] - found["f32"]) ** 2) / np.mean(found["f32"] ** 2)))
    assert error < 0.05


def test_int8_is_taken_when_asked_for_alone(models: Path) -> None:
    net, weights = models / "none.prototxt", models / "none.caffemodel"
    assert model_file(models, "int8", net=net, weights=weights).name == "small-int8.xml"
    assert model_file(models, "auto", net=net, weights=weights).name == "small-bf16.xml"


def test_int8_of_other_weights_is_refused(models: Path, tmp_path: Path) -> None:
    net = tmp_path / "n.prototxt"
    net.write_text(
        'layer { name: "in" type: "Input" top: "data"\n'
        "  input_param { shape { dim: 1 dim: 1 dim: 16 dim: 16 dim: 16 } } }\n"
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c"\n'
        '  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }\n'
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }\n'
    )
    from caffe_models.weights import write_caffemodel

    loaded = Net.from_prototxt(net)
    loaded.fill(1)
    weights = tmp_path / "n.caffemodel"
    write_caffemodel(weights, loaded.weights(), "n", loaded.layer_types)
    with pytest.raises(
        NetError, match=r"n\.caffemodel: there is no n-int8\.xml beside it; make one with `rpn3d convert"
    ):
        model_file(None, "int8", net=net, weights=weights)
    draw = np.random.default_rng(0)
    calibration = Calibration([{"data": draw.normal(size=(1, 1, 16, 16, 16)).astype(np.float32)}] * 2, "noise")
    beside = tmp_path / "n-int8.xml"
    convert_net(net, weights, beside, "int8", calibration=calibration)
    assert noted(beside, "caffemodel_sha256") == file_sha256(weights)
    assert model_file(None, "int8", net=net, weights=weights) == beside
    loaded.fill(2)
    write_caffemodel(weights, loaded.weights(), "n", loaded.layer_types)
    with pytest.raises(NetError, match="was made from other weights"):
        model_file(None, "int8", net=net, weights=weights)
