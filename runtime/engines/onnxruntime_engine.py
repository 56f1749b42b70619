"""ONNX Runtime: the second opinion; f32 only on CPUs."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from caffe_models.errors import NetError
from runtime.engines.base import Engine, EngineOptions, Voxels, as_input, check_blobs, check_window


class OnnxRuntimeEngine:
    """An ONNX model in a session with a fixed number of threads."""

    name = "onnxruntime"
    precision = "f32"

    def __init__(self, model: Path, options: EngineOptions) -> None:
        settings = onnxruntime.SessionOptions()
        # Without a count it pins its threads to cores by itself and fails under taskset.
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        # The arena grows in powers of two: a quarter more memory on large windows, and not to be predicted.
        settings.enable_cpu_mem_arena = False
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), sess_options=settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own exceptions share no public base but Exception
            reason = str(error).strip().splitlines()[0]
            raise NetError(f"{model}: ONNX Runtime cannot load it: {reason}") from error
        check_blobs(model, [i.name for i in self._session.get_inputs()], [o.name for o in self._session.get_outputs()])
        asked = options.precision
        self.notes: tuple[str, ...] = (
            () if asked in ("auto", "f32") else (f"ONNX Runtime has no {asked} convolutions on CPUs: ran in f32",)
        )

    def __call__(self, data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        check_window(data, coord)
        head: NDArray[np.float32] = self._session.run(["head"], {"data": as_input(data), "coord": coord})[0]
        return head

    def release(self) -> None:
        """Nothing is kept."""

    def keep_memory(self, on: bool) -> None:
        """The library decides for itself."""


def load(model: Path, options: EngineOptions) -> Engine:
    return OnnxRuntimeEngine(model, options)
