"""Any net through one engine, once: arrays by blob in, arrays by blob out. For proofs and trials, not for speed."""

import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError

if TYPE_CHECKING:
    from caffe_models.net import Net

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz, as float32. Raises NetError where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise NetError(f"{path}: cannot be read as .npz ({error})") from error


def run_torch(net: "Net", inputs: Arrays, *, keep: Collection[str] = ()) -> dict[str, Array]:
    """Outputs of the net in PyTorch, float32, and the blobs named in `keep`."""
    import torch

    if not net.on_torch:
        net.to_torch()
    with torch.inference_mode():
        found = net.forward({blob: torch.from_numpy(np.ascontiguousarray(a)) for blob, a in inputs.items()}, keep=keep)
    return {blob: np.array(found[blob].numpy()) for blob in (*net.outputs, *keep)}


def run_onnxruntime(path: str | os.PathLike[str], inputs: Arrays, *, threads: int = 0) -> dict[str, Array]:
    """Outputs of an ONNX model in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), sess_options=options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_openvino(
    path: str | os.PathLike[str], inputs: Arrays, *, precision: str = "f32", threads: int = 0
) -> dict[str, Array]:
    """Outputs of an .xml or .onnx model in OpenVINO, pinned to `precision` (f32, bf16; int8 is in the model itself)."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
    found = compiled({blob: np.ascontiguousarray(array) for blob, array in inputs.items()})
    return {port.any_name: np.array(found[port], dtype=np.float32) for port in compiled.outputs}
