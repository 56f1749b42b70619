"""Cases of the Caffe reference data (nets with inputs, weights and outputs of a real Caffe), for several tests.

A small part lies in `tests/golden`, so that the tests have something to hold on to without the data folder.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import ROOT, data_folder, need

from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from runtime.engines.openvino_core import core

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One case, read from its folder."""

    net: Net
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    middle: dict[str, Array]
    gradients: dict[str, Array]


def net_folder(name: str) -> Path:
    """The folder of a whole net: the data folder's, else that of `tests/golden`; skips where neither has it."""
    kept = ROOT / "tests" / "golden" / "nets" / name
    return kept if kept.is_dir() else need(data_folder() / "caffe_golden" / "nets" / name)


def op_folders(dialect: str) -> dict[str, Path]:
    """Case name -> folder: the data folder's, else the few of `tests/golden`."""
    for root in (data_folder() / "caffe_golden" / "ops" / dialect, ROOT / "tests" / "golden" / "ops" / dialect):
        if root.is_dir():
            return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    return {}


def read_case(folder: Path, dialect: str | None, text: str = "deploy.prototxt", io: str = "io.npz") -> Case:
    """The net of a folder with its weights, and what Caffe computed."""
    net = Net.from_prototxt(folder / text, dialect=dialect)
    weights = folder / "weights.caffemodel"
    if weights.exists():
        net.load(read_caffemodel(weights), str(weights))
    parts: dict[str, dict[str, Array]] = {"in": {}, "out": {}, "mid": {}, "grad": {}}
    with np.load(folder / io) as arrays:
        for key in arrays.files:
            kind, _, blob = key.partition("_")
            parts[kind][blob] = arrays[key]
    return Case(net, parts["in"], parts["out"], parts["mid"], parts["grad"])


def assert_close(found: Any, wanted: Array, relative: float, what: str) -> None:
    """Same shape, and no value further off than `relative` times the largest magnitude wanted."""
    found = np.asarray(found)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, Caffe has {wanted.shape}"
    magnitude = max(float(np.abs(wanted).max()), 1e-30)
    error = float(np.abs(found.astype(np.float64) - wanted).max()) / magnitude
    assert error <= relative, f"{what}: off by {error:.2e} of the largest magnitude {magnitude:.4g}"


def session_of(model: bytes) -> Any:
    """An ONNX Runtime session of one thread."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OpenvinoCore:
    """Runs a serialised ONNX model in OpenVINO, one thread, float32; outputs by all their names."""

    def __init__(self) -> None:
        self.core = core()

    def __call__(self, model: bytes, inputs: dict[str, Array]) -> dict[str, Array]:
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        compiled = self.core.compile_model(self.core.read_model(model, b""), "CPU", settings)
        found = compiled(inputs)
        return {name: np.array(found[port]) for port in compiled.outputs for name in port.names}


@lru_cache(maxsize=1)
def openvino_core() -> OpenvinoCore:
    """One core for all tests."""
    return OpenvinoCore()
