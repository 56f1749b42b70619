"""OpenVINO: the fastest engine on CPUs, and the default.

Shapes stay dynamic: one compilation (about 0.2 s) serves every window. Measured against compiling anew for each shape,
windows of 4 M voxels, three interleaved runs, CPU time: once warm 0 to 5 % more, the first window of a process the same
within 10 %, each further shape 12 to 18 % less (no compilation, buffers already there). The price is 3 to 9 % more
memory, more on larger windows.

The net runs in two stages, see `two_stage`: the same numbers in less than half of the memory. The first stage leaves
out the emptiness around the lungs, see `emptiness`.

Where its time goes (int8, AVX2, `profiling_info`): 98 % convolutions; reorders of the head and between layouts take
0.4 %, so nothing is to be gained from another layout of the output.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from caffe_models.errors import NetError
from runtime.budget import give_back_free_memory
from runtime.engines.base import Engine, EngineOptions, Voxels, as_input, check_blobs, check_window
from runtime.engines.emptiness import Box, Emptiness, boxes
from runtime.engines.openvino_core import core
from runtime.engines.two_stage import LEAST_SLAB_VOXELS, TwoStages, slabs, split_at_first_pooling

CHECK_EXTENT = 32
BF16_TOLERANCE = 3e-2
"""Largest bf16 error, relative to the largest output, that passes the check at load; sound bf16 stays below 1e-2."""


class OpenVinoEngine:
    """An IR (.xml with .bin) or an ONNX model, compiled for the CPU with a pinned precision and number of threads."""

    name = "openvino"

    def __init__(self, model: Path, options: EngineOptions) -> None:
        self._core = core()
        self._options = options
        whole = _read(self._core, model)
        check_blobs(model, _names(whole.inputs), _names(whole.outputs))
        made_for = model_info(whole, "precision") or "f32"
        self._stages = split_at_first_pooling(whole)
        self._parts = [whole] if self._stages is None else [self._stages.stem, self._stages.rest]
        notes = []
        if options.precision == "int8" and made_for != "int8":
            raise NetError(f"{model}: was converted for {made_for}; int8 needs a model converted with --precision int8")
        if made_for == "int8" and options.precision in ("f32", "bf16"):
            raise NetError(f"{model}: is quantised to int8 and cannot run in {options.precision}; name another model")
        wanted = made_for if options.precision == "auto" else options.precision
        if options.precision == "auto" and wanted == "bf16" and fast_precision() != "bf16":
            notes.append("bf16 is not fast on this processor: ran in f32")
            wanted = "f32"
        if wanted == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            notes.append("this processor has no bf16: ran in f32")
            wanted = "f32"
        try:
            self._compiled = self._compile("bf16" if wanted == "bf16" else "f32")
        except RuntimeError:
            if wanted != "bf16":
                raise
            # With ONEDNN_MAX_CPU_ISA below bf16 it is listed among the capabilities and then cannot be compiled.
            notes.append("bf16 cannot be compiled for this processor: ran in f32")
            wanted = "f32"
            self._compiled = self._compile(wanted)
        if wanted == "bf16" and (error := self._error_against_f32()) > BF16_TOLERANCE:
            notes.append(f"bf16 is wrong by {error:.1%} of the largest output on this processor: ran in f32")
            self._compiled = self._compile("f32")
        self.precision = executed_precision(*self._compiled)
        if self.precision != wanted and not notes:
            notes.append(f"OpenVINO ran the convolutions in {self.precision}, not in {wanted}")
        self.notes = tuple(notes)
        self._requests = [compiled.create_infer_request() for compiled in self._compiled]
        self._emptiness: Emptiness | None = None
        self._keeps = False

    def __call__(self, data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        check_window(data, coord)
        return self._run(self._requests, data, coord)

    def release(self) -> None:
        """Give back the memory of the last window; the next one takes it anew."""
        for compiled in self._compiled:
            _release(compiled)

    def keep_memory(self, on: bool) -> None:
        """Whether both stages keep a window's memory for the next one; at first each gives it back before the other
        one runs."""
        self._keeps = on

    def _run(self, requests: list[Any], data: Voxels, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        stages = self._stages
        if stages is None:
            return np.array(_infer(requests[0], {"data": as_input(data), "coord": coord}, "head"), dtype=np.float32)
        depth, height, width = data.shape[2:]
        everything = [Box((0, 0), (height, width), (0, 0), (height, width))]
        emptiness = self._emptiness_of(requests[0], data, stages)
        cells = [n // stages.stride for n in data.shape[2:]]
        shape = (1, *cells, stages.channels)
        pooled = np.empty(shape, dtype=stages.dtype) if emptiness is None else emptiness.over(cells)
        parts = []
        for slab in slabs(depth, height * width, stages.stride, stages.halo):
            given = data[:, :, slab.start : slab.stop]
            found_boxes = everything if emptiness is None else boxes(given[0, 0], stages.stride, stages.halo)
            parts += [(slab, box) for box in found_boxes]
        # The largest first: its memory serves all others, where a growing one would be taken anew, page by page.
        for slab, box in sorted(parts, key=lambda part: -part[1].area):
            first, last, begin = (n // stages.stride for n in (slab.core_start, slab.core_stop, slab.start))
            (top, bottom), (left, right) = zip(box.start, box.stop, strict=True)
            given = data[:, :, slab.start : slab.stop, top:bottom, left:right]
            found = _infer(requests[0], {"data": as_input(given)}, "stem")
            kept, inside = box.cells(stages.stride)
            pooled[:, first:last, *kept] = found[:, first - begin : last - begin, *inside]
        gives_back = data.size > LEAST_SLAB_VOXELS and not self._keeps
        if gives_back:
            _release(self._compiled[0])  # neither stage keeps its memory while the other one runs
        head = np.array(_infer(requests[1], {"stem": pooled, "coord": coord}, "head"), dtype=np.float32)
        if gives_back:
            _release(self._compiled[1])
        return head

    def _emptiness_of(self, stem: Any, data: Voxels, stages: TwoStages) -> Emptiness | None:
        """None for the network's input in floats, which only checks give, and for windows that are hardly more than
        faces."""
        if data.dtype != np.uint8 or min(data.shape[2:]) < 2 * stages.halo + stages.stride:
            return None
        if self._emptiness is None:
            self._emptiness = Emptiness(
                lambda voxels: _infer(stem, {"data": as_input(voxels)}, "stem"), stages.stride, stages.halo
            )
        return self._emptiness

    def _compile(self, precision: str) -> list[Any]:
        settings: dict[str, Any] = {
            # Left alone, it takes bf16 wherever the processor has it: other scores on other machines.
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self._options.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if self._options.cache_folder is not None:
            settings["CACHE_DIR"] = str(self._options.cache_folder)
        return [self._core.compile_model(part, "CPU", settings) for part in self._parts]

    def _error_against_f32(self) -> float:
        """Largest difference of this compilation and f32, relative to the largest output, on one small window.

        Some processors' bf16 kernels were wrong in some versions; a wrong score looks like any other score.
        """
        draw = np.random.default_rng(0)
        data = draw.uniform(-1, 1, (1, 1, CHECK_EXTENT, CHECK_EXTENT, CHECK_EXTENT)).astype(np.float32)
        coord = draw.uniform(-0.5, 0.5, (1, 3, *[CHECK_EXTENT // 4] * 3)).astype(np.float32)
        truth, ours = (
            self._run([compiled.create_infer_request() for compiled in each], data, coord)
            for each in (self._compile("f32"), self._compiled)
        )
        difference = np.abs(ours - truth)
        error = float(difference.max() / max(float(np.abs(truth).max()), 1e-30))
        return error if np.isfinite(error) else float("inf")


def load(model: Path, options: EngineOptions) -> Engine:
    return OpenVinoEngine(model, options)


def fast_precision() -> str:
    """The precision OpenVINO would choose on this processor by itself: bf16 where it is fast, else f32."""
    hint = core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if hint == openvino.Type.bf16 else "f32"


def executed_precision(*compiled: Any) -> str:
    """Precision that the convolutions of compiled models run in, read back from their execution graphs.

    "bf16+f32" if they differ (the commoner first); int8 convolutions beside others count as int8, since quantising
    leaves the first and the last ones out.
    """
    count: Counter[str] = Counter()
    for op in (op for part in compiled for op in part.get_runtime_model().get_ops()):
        info = op.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in ("Convolution", "Deconvolution"):
            precision = info["runtimePrecision"].astype(str) if "runtimePrecision" in info else "unknown"
            count["int8" if precision in ("i8", "u8") else precision] += 1
    if not count:
        return "f32"
    return "int8" if "int8" in count else "+".join(name for name, _ in count.most_common())


def model_info(model: Any, key: str) -> str | None:
    """What `convert` noted in the model under rpn3d/`key` (precision, weights_sha256, bin_sha256, ...); else None."""
    path = ["rpn3d", key]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def _read(core: Any, file: Path) -> Any:
    if file.suffix not in (".xml", ".onnx"):
        raise NetError(f"{file}: engine openvino reads .xml and .onnx; make one with `rpn3d convert`")
    weights = file.with_suffix(".bin")
    if file.suffix == ".xml" and not weights.is_file():
        raise NetError(f"{file}: its weights {weights.name} are not beside it; convert the model again")
    try:
        model = core.read_model(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise NetError(f"{file}: OpenVINO cannot read it: {reason}; convert the model again") from error
    noted = model_info(model, "bin_sha256")
    if noted is not None:
        with weights.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != noted:
            raise NetError(f"{file}: belongs to other weights than those in {weights.name}; convert the model again")
    return model


def _release(compiled: Any) -> None:
    compiled.release_memory()
    # The C library keeps much of it, in pieces that the other stage and the next window cannot use.
    give_back_free_memory()


def _names(ports: Any) -> list[str]:
    return [port.any_name for port in ports]


def _infer(request: Any, inputs: dict[str, NDArray[Any]], output: str) -> NDArray[Any]:
    """The request's own output tensor: overwritten by the next call."""
    held = {name: np.ascontiguousarray(array) for name, array in inputs.items()}  # a tensor does not keep its array
    for name, array in held.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.infer()
    found: NDArray[Any] = request.get_tensor(output).data
    return found
