"""What the processes of `bench.scaling` do in a turn.

It loads OpenVINO, so a process comes here when its cores are settled.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.roof import CONVOLUTIONS, compile_for, node_info, ran_in, roof
from caffe_models.errors import Rpn3dError
from runtime.budget import peak_resident_bytes
from runtime.engines.base import EngineOptions, load_engine
from runtime.engines.openvino_core import core
from runtime.network_input import coord_channels

Job = Mapping[str, Any]
"""kind (of `WORK`), model (path), precision, edge (voxels of a window along each axis), cores (list), streams."""
Run = Callable[[], dict[str, Any]]

WINDOWS_A_STREAM = 2
"""In a turn: with more than one, streams that end at different times still work beside each other mostly."""


def by_runtime(job: Job) -> Run:
    """One window through the runtime's own engine, as `rpn3d detect` runs it."""
    engine = load_engine("openvino", job["model"], EngineOptions(job["precision"], len(job["cores"])))
    if engine.precision != job["precision"]:
        raise Rpn3dError(f"asked for {job['precision']}, ran in {engine.precision}: {'; '.join(engine.notes)}")
    size = (job["edge"],) * 3
    data = np.random.default_rng(0).integers(0, 256, (1, 1, *size), dtype=np.uint8)
    coord = coord_channels(size, (0, 0, 0), size)[None]

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        engine(data, coord)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "voxels": data.size,
            "ran_in": engine.precision,
            "peak_rss_bytes": peak_resident_bytes(),
        }

    return run


def by_streams(job: Job) -> Run:
    """Windows through OpenVINO's queue, as many at a time as there are streams; the whole IR as it is."""
    import openvino

    compiled = _compiled(job, {"NUM_STREAMS": job["streams"]})
    windows = WINDOWS_A_STREAM * job["streams"]
    requests = openvino.AsyncInferQueue(compiled, job["streams"])
    inputs = _inputs(job)
    used, names = ran_in(compiled), kernels(compiled)

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        for _ in range(windows):
            requests.start_async(inputs)
        requests.wait_all()
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "voxels": windows * job["edge"] ** 3,
            "ran_in": used,
            "kernels": names,
            "peak_rss_bytes": peak_resident_bytes(),
        }

    return run


def by_layer(job: Job) -> Run:
    """One window, and how long each node of the compiled net took."""
    compiled = _compiled(job, {"NUM_STREAMS": 1, "PERF_COUNT": True})
    request, inputs = compiled.create_infer_request(), _inputs(job)
    made_of = {name: info for name, info in node_info(compiled).items() if info["type"] in CONVOLUTIONS}

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        request.infer(inputs)
        seconds = time.perf_counter() - start
        nodes = []
        for found in request.profiling_info:
            info = made_of.get(found.node_name, {})
            nodes.append(
                {
                    "node": found.node_name,
                    "type": info.get("type", found.node_type),
                    "kernel": found.exec_type,
                    "made_of": info.get("made_of", []),
                    "ran_in": info.get("ran_in"),
                    "seconds": found.real_time / timedelta(seconds=1),
                }
            )
        return {"seconds": seconds, "voxels": job["edge"] ** 3, "ran_in": ran_in(compiled), "nodes": nodes}

    return run


def by_roof(job: Job) -> Run:
    """The fastest that this machine's libraries multiply and add in this precision."""
    candidates = roof(job["precision"], len(job["cores"]))

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        found = [candidate.as_json(least_s) for candidate, least_s in ((c, c.least_s()) for c in candidates)]
        return {"seconds": time.perf_counter() - start, "candidates": found}

    return run


WORK: dict[str, Callable[[Job], Run]] = {
    "runtime": by_runtime,
    "streams": by_streams,
    "layers": by_layer,
    "roof": by_roof,
}


def kernels(compiled: Any) -> str:
    """The kernel that most convolutions of a compiled net are run by, such as brgconv_avx2_f32, and how many are."""
    found = Counter(info["kernel"] for info in node_info(compiled).values() if info["type"] in CONVOLUTIONS)
    if not found:
        return ""
    (name, count), *_ = found.most_common(1)
    return f"{name}, {count} of {found.total()}"


def _compiled(job: Job, settings: Mapping[str, Any]) -> Any:
    compiled = compile_for(core().read_model(str(Path(job["model"]))), job["precision"], len(job["cores"]), settings)
    if (used := ran_in(compiled)) != job["precision"]:
        raise Rpn3dError(f"asked for {job['precision']}, ran in {used}")
    return compiled


def _inputs(job: Job) -> dict[str, Any]:
    size = (job["edge"],) * 3
    data = np.random.default_rng(0).uniform(-1, 1, (1, 1, *size)).astype(np.float32)
    return {"data": data, "coord": coord_channels(size, (0, 0, 0), size)[None]}
