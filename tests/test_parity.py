"""Differences between engines: that they are found, and that what is fine passes."""

from pathlib import Path

import numpy as np
import pytest
from small_onnx import window, write_small_detector

from caffe_models.errors import NetError
from convert import parity
from convert.parity import Difference, Parity, crop_inputs, difference, measure, random_inputs
from convert.to_openvino import onnx_to_ir
from runtime.network_input import coord_channels, to_input


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_detector(tmp_path_factory.mktemp("parity") / "small.onnx")


def array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def small_inputs() -> dict[str, np.ndarray]:
    return dict(zip(("data", "coord"), window(16, 32, 16), strict=True))


def test_difference_figures() -> None:
    a = {"x": array([1, -4]), "y": array([100, 50])}
    b = {"x": array([1, -3]), "y": array([100, 52])}
    found = difference(a, b, 0.1)
    assert found == Difference("x", 1.0, 4.0, 0.1)  # 1 of 4 is worse than 2 of 100
    assert found.relative == 0.25
    assert difference(a, a, 0.1).relative == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    a, b = {"x": array([1, value])}, {"x": array([1, 2])}
    assert difference(a, b, 0.1).largest == np.inf
    assert difference(a, a, 0.1).largest == 0


def test_other_outputs_are_no_rounding() -> None:
    with pytest.raises(NetError, match="outputs differ: x and y"):
        difference({"x": np.zeros(1, np.float32)}, {"y": np.zeros(1, np.float32)}, 0.1)
    with pytest.raises(NetError, match=r'output "x" has shape \(1,\) in one engine and \(2,\)'):
        difference({"x": np.zeros(1, np.float32)}, {"x": np.zeros(2, np.float32)}, 0.1)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_converted_models_pass(onnx_file: Path, tmp_path: Path, precision: str) -> None:
    onnx_to_ir(onnx_file, tmp_path / "m.xml", precision)
    found = measure(None, onnx_file, tmp_path / "m.xml", small_inputs()).check()
    assert found.precision == precision
    assert found.torch_onnxruntime is None
    assert found.onnxruntime_openvino is not None
    assert found.onnxruntime_openvino.tolerance == {"f32": 1e-4, "bf16": 3e-2}[precision]
    assert found.left_out == ("torch was left out: no net was given",)
    assert "onnxruntime - openvino" in found.lines()[0]


def test_another_model_fails(onnx_file: Path, tmp_path: Path) -> None:
    other = write_small_detector(tmp_path / "other.onnx", scale=1.01)
    onnx_to_ir(other, tmp_path / "m.xml")
    with pytest.raises(NetError, match=r'parity of onnxruntime - openvino fails at "head": largest difference'):
        measure(None, onnx_file, tmp_path / "m.xml", small_inputs()).check()


def test_engines_that_are_not_installed_are_left_out(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "_installed", lambda package: False)
    found = measure(None, onnx_file, onnx_file, small_inputs())
    assert found.left_out[1] == "onnxruntime was left out: it is not installed"
    assert found.differences == {}
    with pytest.raises(NetError, match="parity was not measured: torch was left out"):
        found.check()


def test_a_difference_that_is_no_number_fails() -> None:
    bad = Difference("x", float("nan"), 1.0, 0.1)
    with pytest.raises(NetError, match="fails"):
        Parity("f32", bad, None, None, ()).check()


def test_real_crops_are_what_the_detector_is_fed() -> None:
    u8 = np.random.default_rng(1).integers(0, 256, (32, 16, 48), dtype=np.uint8)
    inputs = crop_inputs(u8, (200, 150, 100), (16, 32, 48))
    np.testing.assert_array_equal(inputs["data"][0, 0], to_input(u8))
    np.testing.assert_allclose(inputs["coord"][0], coord_channels((200, 150, 100), (16, 32, 48), u8.shape), atol=1e-7)
    with pytest.raises(NetError, match="multiples of 16"):
        crop_inputs(u8[:20])


def test_random_inputs() -> None:
    inputs = random_inputs({"a": (1, 2, 3), "b": (4,)})
    assert {name: array.shape for name, array in inputs.items()} == {"a": (1, 2, 3), "b": (4,)}
    assert inputs["a"].dtype == np.float32
    np.testing.assert_array_equal(inputs["b"], random_inputs({"a": (1, 2, 3), "b": (4,)})["b"])
