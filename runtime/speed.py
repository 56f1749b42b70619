"""How long an engine takes for windows on this machine: what real scans took, remembered; measured where none has run.

A window of 96^3 is measured where nothing is known. It tells nothing of what makes whole lungs dearer or cheaper: the
slabs of the first layers and their overlap, memory taken anew for each window, kernels chosen for each new shape, and
another scan being read on one of the cores meanwhile. So whatever windows a scan really took is remembered, by their
size and by whether other work ran beside them, and the median of the last ones foretells the next.
"""

import json
import math
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from caffe_models.atomic import replacing
from runtime.engines.base import Engine
from runtime.network_input import OUTSIDE, STRIDE

EXTENT = 96
"""Voxels along each axis of the window measured: at 64 a voxel costs a tenth less or more than in a whole lung."""
LUNGS_SHARE = 0.9
"""What a voxel of a scan's windows takes of one of the window measured: a scan holds emptiness, which the first layers
leave out. Two real scans and two synthetic ones in int8, bf16 and f32, with AVX-512: 0.76 to 0.98, median 0.91."""
LAST = 5
"""So many scans of a kind are remembered: the machine may have been busy during one of them."""
SAME_SIZE = 2.0
"""Windows whose sizes differ by less than this factor are of one kind."""


@dataclass(frozen=True)
class Sample:
    """What the windows of one scan took.

    Attributes:
        voxels: of each window.
        each_s: seconds for each of its voxels.
        beside: whether other scans were read or drawn meanwhile.
    """

    voxels: int
    each_s: float
    beside: bool = False


@dataclass(frozen=True)
class Speed:
    """All that is known of one engine, model and number of cores; the newest sample last."""

    samples: tuple[Sample, ...] = ()

    def predict(self, voxels: int, count: int = 1, beside: bool = False) -> float:
        """Seconds for `count` windows of `voxels` each; `beside`: with another scan read or drawn meanwhile.

        By the samples of about that size, those of the same company first; else by the nearest size there is.

        Raises:
            ValueError: nothing is known yet.
        """
        if not self.samples:
            raise ValueError("no window has been measured yet")
        kind = _kind(self.samples, voxels, beside) or _kind(self.samples, voxels, not beside)
        if not kind:
            nearest = min(self.samples, key=lambda s: (_apart(s.voxels, voxels), s.beside != beside))
            kind = _kind(self.samples, nearest.voxels, nearest.beside)
        return count * voxels * statistics.median(sample.each_s for sample in kind)

    def with_sample(self, sample: Sample) -> "Speed":
        """This and one more; older ones of its kind beyond `LAST` are forgotten."""
        kind = _kind(self.samples, sample.voxels, sample.beside)
        forgotten = kind[: max(0, len(kind) + 1 - LAST)]
        return replace(self, samples=(*(s for s in self.samples if s not in forgotten), sample))


def measure(engine: Engine) -> Sample:
    """The second of two equal windows, since the first one also chooses kernels and takes memory; less what lungs leave
    out."""
    # No emptiness, which engines may leave out: what they cannot leave out is to be measured.
    data = np.random.default_rng(0).integers(0, OUTSIDE, (1, 1, EXTENT, EXTENT, EXTENT), dtype=np.uint8)
    coord = np.zeros((1, 3, *[EXTENT // STRIDE] * 3), dtype=np.float32)
    engine(data, coord)
    start = time.perf_counter()
    engine(data, coord)
    taken = time.perf_counter() - start
    engine.release()
    return Sample(data.size, LUNGS_SHARE * taken / data.size)


class SpeedMemory:
    """The `Speed` of one engine, kept in `speed.json` of a cache folder between runs.

    Args:
        engine, cpus, model_sha256: what it is the speed of, with this processor.
        cache_folder: None: it is forgotten with the process.
    """

    def __init__(self, engine: Engine, cpus: int, model_sha256: str, cache_folder: Path | None) -> None:
        self._engine = engine
        self._key = "/".join([_processor(), str(cpus), engine.name, engine.precision, model_sha256[:16]])
        self._file = None if cache_folder is None else cache_folder / "speed.json"
        self.speed = _read(self._file).get(self._key, Speed())

    def known(self) -> Speed:
        """What is known; a window is measured if nothing is."""
        if not self.speed.samples:
            self.add(measure(self._engine))
        return self.speed

    def add(self, sample: Sample) -> None:
        """Remember what windows took. A file that cannot be written costs the memory of it alone."""
        self.speed = self.speed.with_sample(sample)
        if self._file is None:
            return
        content = {**_read(self._file), self._key: self.speed}  # read anew: other processes write it, too
        rows = {key: [[s.voxels, s.each_s, s.beside] for s in speed.samples] for key, speed in content.items()}
        try:
            with replacing(self._file) as part:
                part.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        except OSError:
            pass


def _kind(samples: tuple[Sample, ...], voxels: int, beside: bool) -> list[Sample]:
    return [s for s in samples if s.beside == beside and _apart(s.voxels, voxels) < math.log(SAME_SIZE)]


def _apart(one: int, other: int) -> float:
    return abs(math.log(one / other))


def _read(file: Path | None) -> Mapping[str, Speed]:
    """What was remembered; nothing where the file is missing or broken, for it can be measured again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return {str(k): Speed(_samples(v)) for k, v in found.items()} if isinstance(found, dict) else {}


def _samples(rows: Any) -> tuple[Sample, ...]:
    samples = []
    for row in rows if isinstance(rows, list) else []:  # a number alone, as 0.2.0 wrote it, is measured again
        match row:
            case [int(voxels), float(each_s), bool(beside)] if voxels > 0 and each_s > 0 and math.isfinite(each_s):
                samples.append(Sample(voxels, each_s, beside))
    return tuple(samples)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
