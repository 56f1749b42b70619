"""Every engine gives the same head, says what precision really ran, and refuses what it cannot run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_onnx import window, write_small_detector

from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.weights import write_caffemodel
from convert.to_onnx import net_to_onnx, save_onnx
from convert.to_openvino import onnx_to_ir
from runtime.engines.base import ENGINES, EngineOptions, load_engine
from runtime.engines.openvino_core import core
from runtime.engines.openvino_engine import OpenVinoEngine, executed_precision, fast_precision

HAS_BF16 = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_detector(tmp_path_factory.mktemp("engines") / "small.onnx")


DETECTOR = """
layer { name: "in" type: "Input" top: "data" top: "coord"
        input_param { shape { dim: 1 dim: 1 dim: 32 dim: 32 dim: 32 } shape { dim: 1 dim: 3 dim: 8 dim: 8 dim: 8 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "a" top: "a" }
layer { name: "p1" type: "Pooling" bottom: "a" top: "b" pooling_param { pool: MAX kernel_size: 4 stride: 4 } }
layer { name: "cat" type: "Concat" bottom: "b" bottom: "coord" top: "c" }
layer { name: "head" type: "Convolution" bottom: "c" top: "head"
        convolution_param { num_output: 15 kernel_size: 1 weight_filler { type: "xavier" } } }
"""


def test_torch_runs_the_prototxt_itself(tmp_path: Path) -> None:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(DETECTOR)
    net = Net.from_prototxt(prototxt)
    net.fill(1)
    write_caffemodel(weights, net.weights(), "net", net.layer_types)
    save_onnx(net_to_onnx(net), tmp_path / "net.onnx")
    data, coord = window(16, 32, 48)
    truth = load_engine("openvino", tmp_path / "net.onnx")(data, coord)
    for precision, tolerance in [("auto", 1e-5), ("f32", 1e-5), ("bf16", 3e-2)]:
        engine = load_engine("torch", prototxt, EngineOptions(precision=precision, weights=weights, threads=1))
        assert engine.precision == precision.replace("auto", "f32")
        np.testing.assert_allclose(engine(data, coord), truth, rtol=0, atol=tolerance * float(np.abs(truth).max()))
    with pytest.raises(NetError, match=r"net\.prototxt: engine torch needs the weights too"):
        load_engine("torch", prototxt)
    blobs = net.weights()
    del blobs["head"]
    write_caffemodel(weights, blobs, "net", net.layer_types)
    with pytest.raises(NetError, match=r"net\.caffemodel: has no weights for layer head"):
        load_engine("torch", prototxt, EngineOptions(weights=weights))


def test_engines_agree_for_windows_of_any_size(onnx_file: Path) -> None:
    first, second = (load_engine(name, onnx_file) for name in ("openvino", "onnxruntime"))
    for size in [(16, 16, 16), (32, 48, 16), (16, 16, 16), (48, 16, 32)]:
        data, coord = window(*size)
        a, b = first(data, coord), second(data, coord)
        assert a.shape == (1, 15, *(n // 4 for n in size))
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


def test_heads_stay_as_they_were(onnx_file: Path) -> None:
    engine = load_engine("openvino", onnx_file)
    first = engine(*window(16, 16, 16))
    before = first.copy()
    engine(*(np.zeros_like(a) for a in window(16, 16, 16)))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_f32_is_what_runs(onnx_file: Path, name: str) -> None:
    engine = load_engine(name, onnx_file, EngineOptions(precision="f32", threads=1))
    assert (engine.name, engine.precision, engine.notes) == (name, "f32", ())


def test_bf16_where_the_processor_has_it(onnx_file: Path) -> None:
    engine = load_engine("openvino", onnx_file, EngineOptions(precision="bf16"))
    data, coord = window(32, 32, 32)
    truth = load_engine("openvino", onnx_file, EngineOptions(precision="f32"))(data, coord)
    error = float(np.abs(engine(data, coord) - truth).max() / np.abs(truth).max())
    assert engine.precision == ("bf16" if HAS_BF16 else "f32")
    assert (1e-5 if HAS_BF16 else 0) <= error < 3e-2
    assert len(engine.notes) == (0 if HAS_BF16 else 1)


def test_auto_is_what_the_model_was_made_for(onnx_file: Path, tmp_path: Path) -> None:
    onnx_to_ir(onnx_file, tmp_path / "a.xml", "bf16")
    onnx_to_ir(onnx_file, tmp_path / "b.xml", "f32")
    assert load_engine("openvino", tmp_path / "a.xml").precision == ("bf16" if HAS_BF16 else "f32")
    assert load_engine("openvino", tmp_path / "b.xml").precision == "f32"
    assert load_engine("openvino", onnx_file).precision == "f32"
    assert load_engine("openvino", tmp_path / "a.xml", EngineOptions(precision="f32")).precision == "f32"


def test_wrong_bf16_kernels_are_found_out(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_BF16:
        pytest.skip("this processor has no bf16")
    monkeypatch.setattr(OpenVinoEngine, "_error_against_f32", lambda self: 0.5)
    engine = load_engine("openvino", onnx_file, EngineOptions(precision="bf16"))
    assert engine.precision == "f32"
    assert "bf16 is wrong by 50.0%" in engine.notes[0]


def test_a_processor_capped_below_bf16_runs_f32(onnx_file: Path) -> None:
    # the cap acts once per process; OpenVINO lists BF16 all the same and then fails to compile
    code = (
        "from runtime.engines.base import *; import sys\n"
        "e = load_engine('openvino', sys.argv[1], EngineOptions(precision='bf16')); print(e.precision, e.notes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(onnx_file)],
        env={"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("f32 (")
    assert "ran in f32" in done.stdout


def test_executed_precision_is_read_from_the_compiled_model(onnx_file: Path) -> None:
    compiled = core().compile_model(str(onnx_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert executed_precision(compiled) == "f32"
    assert fast_precision() in ("f32", "bf16")


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_wrong_windows(onnx_file: Path, name: str) -> None:
    engine = load_engine(name, onnx_file)
    data, coord = window(16, 16, 32)
    for bad_data, bad_coord in [
        (data[..., :24], coord[..., :6]),
        (data, coord[..., :4]),
        (data[0], coord),
        (data.astype(np.float64), coord),
    ]:
        with pytest.raises(ValueError, match=r"not \(1, 1, D, H, W\)|not uint8 or float32"):
            engine(bad_data, bad_coord)


def test_what_a_user_can_get_wrong(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetError, match=r'engine "caffe" is not known; allowed: openvino, onnxruntime, torch'):
        load_engine("caffe", onnx_file)
    with pytest.raises(NetError, match=r'precision "f64" is not known; allowed: auto, f32, bf16, int8'):
        load_engine("openvino", onnx_file, EngineOptions(precision="f64"))
    with pytest.raises(NetError, match="0 threads"):
        load_engine("openvino", onnx_file, EngineOptions(threads=0))
    with pytest.raises(NetError, match=r"none\.xml: no such model file"):
        load_engine("openvino", tmp_path / "none.xml")
    with pytest.raises(NetError, match="was converted for f32; int8 needs"):
        load_engine("openvino", onnx_file, EngineOptions(precision="int8"))
    other = write_small_detector(tmp_path / "other.onnx", head="rois")
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(NetError, match=r"its outputs rois; a detector has inputs coord, data and output head"):
            load_engine(name, other)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_file.read_bytes()[:900])
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(NetError, match=r"broken\.onnx: .* cannot (read|load) it"):
            load_engine(name, broken)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, ENGINES["onnxruntime"], raising=False)
    with pytest.raises(NetError, match=r'engine "onnxruntime" needs the Python package onnxruntime, .*: pip install'):
        load_engine("onnxruntime", onnx_file)


def test_onnxruntime_says_that_it_has_no_bf16(onnx_file: Path) -> None:
    engine = load_engine("onnxruntime", onnx_file, EngineOptions(precision="bf16"))
    assert engine.precision == "f32"
    assert "ran in f32" in engine.notes[0]


def test_base_loads_no_engine_library() -> None:
    code = "import sys, runtime.engines.base; print({'openvino', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules))"
    root = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


OVERLAP = """
import signal, sys
from pathlib import Path
from convert.run_net import run_openvino
from runtime.engines.base import EngineOptions, load_engine
from small_onnx import window
model = Path(sys.argv[1])
data, coord = window(32, 32, 48)
first = load_engine("openvino", model, EngineOptions(precision="f32"))
run_openvino(model, {"data": data, "coord": coord})
second = load_engine("openvino", model, EngineOptions(precision="f32"))
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_handled_after_engines_have_come_and_gone(onnx_file: Path) -> None:
    """OpenVINO takes the signal stack of the thread away with a Core: what is left over must still take a signal."""
    tests = Path(__file__).parent
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n{OVERLAP}",
            onnx_file,
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
