"""Any net through one engine, once: arrays by blob in, arrays by blob out. For proofs and trials, not for speed."""

import os
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError

if TYPE_CHECKING:
    from caffe_models.net import Net

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]


def run_torch(net: "Net", inputs: Arrays, *, keep: Collection[str] = ()) -> dict[str, Array]:
    """Outputs of the net in PyTorch, float32, and the blobs named in `keep`."""
    import torch

    if not net.on_torch:
        net.to_torch()
    with torch.inference_mode():
        found = net.forward({blob: torch.from_numpy(np.ascontiguousarray(a)) for blob, a in inputs.items()}, keep=keep)
    return {blob: np.array(found[blob].numpy()) for blob in (*net.outputs, *keep)}


def run_onnxruntime(path: str | os.PathLike[str], inputs: Arrays, *, threads: int = 0) -> dict[str, Array]:
    """Outputs of an ONNX model in ONNX Runtime.

    Raises:
        NetError: it cannot load or run the model; its own words follow.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except (*failures, state.RuntimeException, MemoryError) as error:
        raise NetError(f"ONNX Runtime cannot run the net: {str(error) or 'not enough memory'}") from error


def run_openvino(
    path: str | os.PathLike[str], inputs: Arrays, *, precision: str = "f32", threads: int = 0
) -> dict[str, Array]:
    """Outputs of an .xml or .onnx model in OpenVINO, pinned to `precision` (f32, bf16; int8 is in the model itself).

    Raises:
        NetError: it cannot load or run the model; its own words follow.
    """
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = _core().compile_model(os.fspath(path), "CPU", settings)
        found = compiled({blob: np.ascontiguousarray(array) for blob, array in inputs.items()})
    except (RuntimeError, MemoryError) as error:
        raise NetError(f"OpenVINO cannot run the net: {str(error) or 'not enough memory'}") from error
    return {port.any_name: np.array(found[port], dtype=np.float32) for port in compiled.outputs}


@cache
def _core() -> Any:
    """OpenVINO's Core, one for the life of the process: see `runtime.engines.openvino_core` for what else happens."""
    import openvino

    return openvino.Core()
