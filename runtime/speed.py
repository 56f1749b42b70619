"""How fast an engine is on this machine: measured once on a small window, then remembered."""

import json
import platform
import time
from pathlib import Path

import numpy as np

from caffe_models.atomic import replacing
from runtime.engines.base import Engine
from runtime.network_input import OUTSIDE, STRIDE

EXTENT = 96
"""Voxels along each axis of the window measured: at 64 a voxel costs a tenth less or more than in a whole lung."""


def measure(engine: Engine) -> float:
    """Seconds per voxel: the second of two equal windows, since the first one also chooses kernels and takes memory."""
    data = np.full((1, 1, EXTENT, EXTENT, EXTENT), OUTSIDE, dtype=np.uint8)
    coord = np.zeros((1, 3, *[EXTENT // STRIDE] * 3), dtype=np.float32)
    engine(data, coord)
    start = time.perf_counter()
    engine(data, coord)
    taken = time.perf_counter() - start
    engine.release()
    return taken / data.size


def seconds_per_voxel(engine: Engine, cpus: int, model_sha256: str, cache_folder: Path | None) -> float:
    """What `measure` found for this processor, number of cores, model and precision; measured if unknown."""
    key = "/".join([_processor(), str(cpus), engine.name, engine.precision, model_sha256[:16]])
    file = None if cache_folder is None else cache_folder / "speed.json"
    known = _read(file)
    if key not in known:
        known[key] = measure(engine)
        if file is not None:
            with replacing(file) as part:
                part.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[key]


def _read(file: Path | None) -> dict[str, float]:
    """What was remembered; nothing where the file is missing or broken, for it can be measured again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, float)} if isinstance(found, dict) else {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
