"""One engine on one net, in a process of its own: `python -m bench.engine_run JOB.json` writes what it measured.

A process each, because libraries that share one share threads and memory, and because a library may die: an importer
that aborts is a result of the comparison and must not end it. Every library is loaded inside its engine's function.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_models.atomic import replacing
from runtime.budget import peak_resident_bytes

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


def opencv_as_is(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """OpenCV 4's own Caffe importer on the files as they are."""
    return _opencv(job["net"], job["weights"], job, inputs)


def opencv_spelled(job: Job, inputs: Mapping[str, Array]) -> tuple[Run, str]:
    """The same on a prototxt in the spelling it understands, see `bench.engines.spelled_for_opencv`, and on a
    caffemodel with names, types and blobs alone."""
    return _opencv(job["spelled"], job["plain"], job, inputs)


ENGINES: dict[str, Callable[[Job, Mapping[str, Array]], tuple[Run, str]]] = {
    "torch f32": torch_f32,
    "torch f32 channels-last": torch_channels_last,
    "torch bf16 autocast": torch_bf16,
    "onnxruntime f32": onnxruntime_f32,
    "openvino f32": openvino_f32,
    "openvino bf16": openvino_bf16,
    "opencv as it is": opencv_as_is,
    "opencv 3-D spelling": opencv_spelled,
}
"""Everything that can be compared, by the name in tables; the first word is the family that `--engines` takes."""

PACKAGES = {"opencv": ("opencv-python-headless", "opencv-python")}
"""Family -> the packages that it may come in, where they are named otherwise."""


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


def _openvino(job: Job, inputs: Mapping[str, Array], precision: str) -> tuple[Run, str]:
    import openvino

    from runtime.engines.openvino_engine import executed_precision

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(job["onnx"], "CPU", settings)

    def run() -> Mapping[str, Array]:
        found = compiled(dict(inputs))
        return {port.any_name: np.array(found[port], np.float32) for port in compiled.outputs}

    return run, executed_precision(compiled)


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


def measure(job: Job) -> dict[str, Any]:
    """Run one engine: a first run apart (it may compile), then `runs` timed ones; outputs go to `job["outputs_file"]`.

    What the engine raises is the result "refused", with its message.
    """
    with np.load(job["inputs"], allow_pickle=False) as stored:
        inputs = {blob: np.ascontiguousarray(stored[blob], np.float32) for blob in stored.files}
    report: dict[str, Any] = {"engine": job["engine"], "version": _version(job["engine"].split()[0])}
    start = time.perf_counter()
    try:
        run, report["precision"] = ENGINES[job["engine"]](job, inputs)
        report["load_s"] = time.perf_counter() - start
        found = run()
        report["first_s"] = time.perf_counter() - start - report["load_s"]
        seconds = []
        for _ in range(job["runs"]):
            start = time.perf_counter()
            found = run()
            seconds.append(time.perf_counter() - start)
    except ModuleNotFoundError as error:
        return {**report, "status": "not installed", "message": f"pip install {_package(error.name or '')}"}
    except Exception as error:  # whatever a foreign library raises is what is to be reported
        return {**report, "status": "refused", "message": " ".join(str(error).split()) or type(error).__name__}
    np.savez(job["outputs_file"], allow_pickle=False, **{blob: np.asarray(array) for blob, array in found.items()})
    times = {"median_s": statistics.median(seconds), "least_s": min(seconds), "most_s": max(seconds)}
    return {**report, "status": "ran", **times, "seconds": seconds, "peak_rss_bytes": peak_resident_bytes()}


def _package(module: str) -> str:
    return {"cv2": "opencv-python-headless==4.*"}.get(module, module)


def _version(family: str) -> str | None:
    for package in PACKAGES.get(family, (family,)):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def main(path: str) -> None:
    """Do the job in the JSON file `path`, and write its report where it says."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    os.environ.setdefault("OMP_NUM_THREADS", str(job["threads"]))
    report = measure(job)
    with replacing(job["report"]) as temporary:
        temporary.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
