"""What an engine is, and which ones there are.

How to add an engine, in three steps:

1. Make one file, `runtime/engines/<name>_engine.py`, with a class that fits `Engine` and a function
   `load(model, options) -> Engine`. Import the library inside that file only; it is loaded when the engine is asked
   for, never before, so nobody needs the libraries of engines they do not use.
2. In `load`, check the model's blobs with `check_blobs`, give the library exactly `options.threads` threads, and find
   out what precision really runs: ask the library, do not repeat what was asked for.
3. Add a line to `ENGINES` below and the name to the table in `tests/test_engines.py`, which holds every engine to the
   same outputs.
"""

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import NetError
from runtime.network_input import STRIDE, WINDOW_MULTIPLE, to_input

Voxels = NDArray[np.uint8] | NDArray[np.float32]
"""A window as grey levels 0..255 (a quarter of the memory), or as the network's input made of them."""

PRECISIONS = ("auto", "f32", "bf16", "int8")

ENGINES = {
    "openvino": "runtime.engines.openvino_engine",
    "onnxruntime": "runtime.engines.onnxruntime_engine",
    "torch": "runtime.engines.torch_engine",
}
"""Name -> the module whose `load` makes it. The first is the default."""


@dataclass(frozen=True)
class EngineOptions:
    """How to run a net.

    Attributes:
        precision: auto (what the model was converted for, where this processor is fast at it, else f32), f32, bf16
            or int8.
        threads: threads to compute with; hand `make_budget().cpus` on, since no library sees a container's quota.
        weights: the .caffemodel, for engines whose model is a prototxt (torch).
        cache_folder: where an engine may keep compiled models between runs; None: nowhere.
    """

    precision: str = "auto"
    threads: int = 1
    weights: Path | None = None
    cache_folder: Path | None = None


class Engine(Protocol):
    """A loaded net: call it with one window, as often as there are windows."""

    @property
    def name(self) -> str:
        """Its name in `ENGINES`."""

    @property
    def precision(self) -> str:
        """The precision that the convolutions really run in (f32, bf16, int8), whatever was asked for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each point in which it runs otherwise than asked; empty where it does not."""

    def __call__(self, data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        """Head (1, 15, D/4, H/4, W/4) of data (1, 1, D, H, W) and coord (1, 3, D/4, H/4, W/4).

        data is uint8 grey levels or float32 (`network_input.to_input` of them), the others float32. D, H and W are
        multiples of 16 and may change from call to call.
        """

    def release(self) -> None:
        """Give back the memory that is kept for the next window, where there is any."""

    def keep_memory(self, on: bool) -> None:
        """Whether a window's memory is kept for the next one, where the engine leaves the choice: taking it anew, page
        by page, costs a tenth of the time. At first it is given back."""


def load_engine(name: str, model: str | Path, options: EngineOptions | None = None) -> Engine:
    """Load `model` with the engine `name`: an .xml or .onnx for openvino, .onnx for onnxruntime, .prototxt for torch.

    Raises:
        NetError: no such engine or precision, its library is not installed, the model is not there, is none, or is
            not an rpn3d net.
    """
    options = options or EngineOptions()
    if name not in ENGINES:
        raise NetError(f'engine "{name}" is not known; allowed: {", ".join(ENGINES)}')
    if options.precision not in PRECISIONS:
        raise NetError(f'precision "{options.precision}" is not known; allowed: {", ".join(PRECISIONS)}')
    if options.threads < 1:
        raise NetError(f"{options.threads} threads cannot run a net; give 1 or more")
    file = Path(model)
    if not file.is_file():
        raise NetError(f"{file}: no such model file; make one with `rpn3d convert`")
    try:
        module = importlib.import_module(ENGINES[name])
    except ModuleNotFoundError as error:
        raise NetError(
            f'engine "{name}" needs the Python package {error.name}, which is not installed: pip install {error.name}'
        ) from error
    load: Callable[[Path, EngineOptions], Engine] = module.load
    return load(file, options)


def check_blobs(source: Path, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Refuse a model that has not the blobs of an rpn3d detector: inputs data and coord, output head."""
    if set(inputs) != {"data", "coord"} or set(outputs) != {"head"}:
        raise NetError(
            f"{source}: the net's inputs are {', '.join(sorted(inputs))} and its outputs {', '.join(sorted(outputs))}; "
            "a detector has inputs coord, data and output head"
        )


def as_input(data: Voxels) -> NDArray[np.float32]:
    """A window as float32 network input, whichever of the two it is."""
    return to_input(data) if data.dtype == np.uint8 else np.asarray(data, dtype=np.float32)


def check_window(data: Voxels, coord: NDArray[np.float32]) -> None:
    """Refuse arrays that are not one window of the network: wrong type or axes, extents that do not belong together.

    Raises:
        ValueError: a defect of the caller, not of a user.
    """
    extents = data.shape[2:]
    fits = data.ndim == 5 and data.shape[:2] == (1, 1) and all(e > 0 and e % WINDOW_MULTIPLE == 0 for e in extents)
    if not fits or coord.shape != (1, 3, *(e // STRIDE for e in extents)):
        raise ValueError(f"data {data.shape} and coord {coord.shape} are not (1, 1, D, H, W) and (1, 3, D/4, H/4, W/4)")
    if data.dtype not in (np.uint8, np.float32) or coord.dtype != np.float32:
        raise ValueError(f"data is {data.dtype} and coord {coord.dtype}, not uint8 or float32, and float32")
