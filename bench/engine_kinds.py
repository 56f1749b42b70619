"""The engines and importers that are compared, each a function from a job to what runs it, and its precision.

Every library is loaded inside its engine's function: it may be missing, or die.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError

Array = npt.NDArray[np.float32]
Run = Callable[[], Mapping[str, Array]]
Job = Mapping[str, Any]


def torch_f32(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The Net in PyTorch, as the prototxt and the caffemodel say, float32, contiguous."""
    return _torch(job, inputs, channels_last=False, bf16=False)


def torch_channels_last(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same in the memory format that PyTorch is faster with."""
    return _torch(job, inputs, channels_last=True, bf16=False)


def torch_bf16(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same under autocast to bfloat16."""
    return _torch(job, inputs, channels_last=True, bf16=True)


def torch_compile_f32(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same through torch.compile (inductor), float32, channels last: needs a C++ compiler."""
    return _torch_compiled(job, inputs, bf16=False)


def torch_compile_bf16(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same under autocast to bfloat16."""
    return _torch_compiled(job, inputs, bf16=True)


def onnxruntime_f32(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The converted net in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job["onnx"], sess_options=options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, dict(inputs)), strict=True)), "f32"


def openvino_f32(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The converted net in OpenVINO, pinned to float32."""
    return _openvino(job, inputs, "f32")


def openvino_bf16(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same with bfloat16 asked for; the precision reported is what its convolutions really ran in."""
    return _openvino(job, inputs, "bf16")


def openvino_int8(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The quantised IR that was given."""
    return _openvino(job, inputs, "int8")


def runtime_f32(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """What `rpn3d detect` runs: the IR in two stages, by `runtime.engines.openvino_engine`."""
    return _runtime(job, inputs, "f32")


def runtime_bf16(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same in bfloat16."""
    return _runtime(job, inputs, "bf16")


def runtime_int8(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same with the quantised IR."""
    return _runtime(job, inputs, "int8")


def opencv_as_is(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """OpenCV 4's own Caffe importer on the files as they are."""
    return _opencv(job["net"], job["weights"], job, inputs)


def opencv_spelled(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same on a prototxt in the spelling it understands, see `bench.engine_job.spelled_for_opencv`, and on a
    caffemodel with names and blobs alone."""
    return _opencv(job["spelled"], job["plain"], job, inputs)


ENGINES: dict[str, Callable[[Job, Mapping[str, Array]], tuple[Run, str]]] = {
    "torch f32": torch_f32,
    "torch f32 channels-last": torch_channels_last,
    "torch bf16 autocast": torch_bf16,
    "torch compile f32": torch_compile_f32,
    "torch compile bf16": torch_compile_bf16,
    "onnxruntime f32": onnxruntime_f32,
    "openvino f32": openvino_f32,
    "openvino bf16": openvino_bf16,
    "openvino int8": openvino_int8,
    "rpn3d runtime f32": runtime_f32,
    "rpn3d runtime bf16": runtime_bf16,
    "rpn3d runtime int8": runtime_int8,
    "opencv as it is": opencv_as_is,
    "opencv 3-D spelling": opencv_spelled,
}
"""Everything that can be compared, by the name in tables; the first word is the family."""

BOUNDS = tuple(f"benchmark_app {kind} {hint}" for kind in ("f32", "bf16", "int8") for hint in ("latency", "throughput"))
"""OpenVINO's own benchmark, see `bound`: precision of the model, and the hint it is told."""

FAMILIES = tuple(dict.fromkeys(name.split()[0] for name in (*ENGINES, *BOUNDS)))


def chosen(asked: Iterable[str]) -> dict[str, bool]:
    """Names of `ENGINES` and `BOUNDS` that are meant, in their order, and whether one was named beyond its family.

    "torch" is a family; "torch-bf16" names "torch bf16 autocast", "torch-compile" both compiled ones.

    Raises:
        NetError: nothing is called so.
    """
    asked = tuple(asked)
    names = (*ENGINES, *BOUNDS)
    found: dict[str, bool] = {}
    for name in names:
        slug = name.replace(" ", "-")
        meant = [one for one in asked if slug == one or slug.startswith(f"{one}-")]
        if meant:
            found[name] = any(one not in FAMILIES for one in meant)
    unknown = [one for one in asked if not any(f"{n.replace(' ', '-')}-".startswith(f"{one}-") for n in names)]
    if unknown or not found:
        raise NetError(
            f"engine {', '.join(unknown) or 'none'} is not known; allowed: {', '.join(FAMILIES)}, "
            "or one of a family, such as torch-bf16"
        )
    return found


def _torch(job: Job, inputs: Mapping[str, Array], *, channels_last: bool, bf16: bool) -> tuple[Run, str]:
    import torch

    from convert.build import load_net

    torch.set_num_threads(job["threads"])
    net = load_net(job["net"], job["weights"]).to_torch(channels_last=channels_last)
    tensors = {blob: torch.from_numpy(array) for blob, array in inputs.items()}

    def run() -> Mapping[str, Array]:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            found = net.forward(tensors)
        return {blob: np.ascontiguousarray(found[blob].float().numpy()) for blob in net.outputs}

    return run, "bf16" if bf16 else "f32"


def _torch_compiled(job: Job, inputs: Mapping[str, Array], *, bf16: bool) -> tuple[Run, str]:
    """Traced to one graph of plain operators first: what Net does layer by layer in Python would break it into many."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    from convert.build import load_net

    torch.set_num_threads(job["threads"])
    net = load_net(job["net"], job["weights"]).to_torch(channels_last=True)
    given = [torch.from_numpy(array) for array in inputs.values()]

    def forward(*tensors: Any) -> list[Any]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            found = net.forward(dict(zip(inputs, tensors, strict=True)))
        return [found[blob] for blob in net.outputs]

    with torch.no_grad():
        compiled = torch.compile(make_fx(forward)(*given), dynamic=False)

    def run() -> Mapping[str, Array]:
        with torch.no_grad():
            found = compiled(*given)
        return {blob: np.ascontiguousarray(one.float().numpy()) for blob, one in zip(net.outputs, found, strict=True)}

    return run, "bf16" if bf16 else "f32"


def _openvino(job: Job, inputs: Mapping[str, Array], precision: str) -> tuple[Run, str]:
    import openvino

    from runtime.engines.openvino_engine import executed_precision

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    model = job["int8"] if precision == "int8" else job["onnx"]
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run() -> Mapping[str, Array]:
        found = compiled(dict(inputs))
        return {port.any_name: np.array(found[port], np.float32) for port in compiled.outputs}

    return run, executed_precision(compiled)


def _runtime(job: Job, inputs: Mapping[str, Array], precision: str) -> tuple[Run, str]:
    from runtime.engines.base import EngineOptions, load_engine

    model = job["int8"] if precision == "int8" else job["ir"]
    engine = load_engine("openvino", Path(model), EngineOptions(precision=precision, threads=job["threads"]))
    engine.keep_memory(True)  # as between the scans of a set, and as the other engines do
    return lambda: {"head": engine(inputs["data"], inputs["coord"])}, engine.precision


def _opencv(prototxt: str, weights: str, job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    import cv2

    cv2.setNumThreads(job["threads"])
    net = cv2.dnn.readNetFromCaffe(prototxt, weights)
    layers = [job["makers"][blob] for blob in job["outputs"]]  # OpenCV knows outputs by their layers

    def run() -> Mapping[str, Array]:
        for blob, array in inputs.items():
            net.setInput(array, blob)
        return dict(zip(job["outputs"], (np.asarray(one) for one in net.forward(layers)), strict=True))

    return run, "f32"
