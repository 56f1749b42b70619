"""One of the alternatives that `bench.naive` compares, in a process of its own that does as many steps as it is told.

`python -m bench.naive_loop JOB.json` says {"batch": steps there are} on a line of standard output when it is ready and
warm, then reads numbers of steps from standard input and answers each with a line of JSON, an object for each step:
"seconds", "peak_rss_bytes", and what else `bench.naive` wants to know of it.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from runtime.cores import hold_to

Job = Mapping[str, Any]
"""kind (of `LOOPS`), scan, net and weights (paths), cpus, tile and tiles (how many are timed, 0: all), prepared (what
the pre-processing wrote), model and precision (of rpn3d)."""


THRESHOLD = 0.01
"""Of `rpn3d detect`."""


class Run(Protocol):
    """An alternative: each call is a step, and tells about itself."""

    steps: int

    def __call__(self) -> dict[str, Any]: ...


class Preprocessing:
    """Classic pre-processing; the one step writes what the classic network needs."""

    steps = 1

    def __init__(self, job: Job) -> None:
        from runtime.find_scans import find_scan

        self._source, self._prepared = find_scan(job["scan"]), job["prepared"]

    def __call__(self) -> dict[str, Any]:
        import numpy as np

        from bench.classic import preprocess

        scan = preprocess(self._source)
        np.savez(self._prepared, allow_pickle=False, voxels=scan.voxels, box=np.array(scan.box))
        # the seconds of the stages, not of writing that file
        return {"seconds": sum(scan.seconds.values()), "stages": scan.seconds, "shape": list(scan.voxels.shape)}


class ClassicNetwork:
    """Each step is one tile: cut out, through eager PyTorch, added to the average."""

    def __init__(self, job: Job) -> None:
        import numpy as np

        from bench.classic import Average, eager_network, pad, plan_tiles
        from runtime.tiling import HEAD_CHANNELS

        with np.load(job["prepared"], allow_pickle=False) as stored:
            voxels, (low, high) = stored["voxels"], stored["box"].tolist()
        size = job["tile"]
        self._tiles = plan_tiles(voxels.shape, size, size // 2)
        self._told = {
            "tiles": len(self._tiles.starts),
            "box_tiles": len(plan_tiles([b - a for a, b in zip(low, high, strict=True)], size, size // 2).starts),
        }
        self._sample = self._tiles.sample(job["tiles"])
        self.steps, self._done = len(self._sample), 0
        self._voxels = pad(voxels, self._tiles.padded)
        self._network = eager_network(job["net"], job["weights"], job["cpus"])
        self._average = Average(self._tiles, HEAD_CHANNELS)
        self._tile(0)
        self._average = Average(self._tiles, HEAD_CHANNELS)

    def __call__(self) -> dict[str, Any]:
        number = self._sample[self._done]
        self._done += 1
        return {**_timed(lambda: self._tile(number)), **self._told}

    def _tile(self, number: int) -> None:
        from runtime.network_input import coord_channels

        start, size = self._tiles.starts[number], (self._tiles.size,) * 3
        data = self._voxels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]
        head = self._network(data[None, None], coord_channels(self._tiles.extent, start, size)[None])
        self._average.add(start, head[0])


class Monai:
    """Each step is one window through MONAI's inferer, or one run over the whole working volume."""

    def __init__(self, job: Job) -> None:
        import monai.inferers  # noqa: F401, first: where it is missing nothing else is worth doing

        from bench.classic import eager_network
        from bench.monai_inferer import MonaiVolume
        from runtime.find_scans import find_scan
        from runtime.scan_stages import prepare

        scan = prepare(find_scan(job["scan"]), job["cpus"])
        network = eager_network(job["net"], job["weights"], job["cpus"])
        self._volume = MonaiVolume(scan.working.voxels, network, job["tile"])
        windows = self._volume.windows
        self._whole = job["tiles"] == 0
        self._sample = windows.sample(job["tiles"])
        self.steps, self._done = 1 if self._whole else len(self._sample), 0
        self._told = {"tiles": len(windows.starts), "prepare_s": scan.watch.seconds}
        self._volume.window(0)

    def __call__(self) -> dict[str, Any]:
        if self._whole:
            return {**_timed(self._volume.whole), **self._told, "whole": True}
        number = self._sample[self._done]
        self._done += 1
        return {**_timed(lambda: self._volume.window(number)), **self._told}


class Rpn3d:
    """Each step is `rpn3d detect` on the scan, from file to CSV, with a model that is loaded already."""

    steps = 1 << 30

    def __init__(self, job: Job) -> None:
        from convert.model_file import cache_folder
        from runtime.budget import make_budget
        from runtime.detect import Detector, Settings

        budget = make_budget(cpus=job["cpus"])
        cache = cache_folder() / "compiled"
        settings = Settings(budget, precision=job["precision"], threshold=THRESHOLD, pictures=False, cache_folder=cache)
        self._scan = job["scan"]
        self._detector = Detector(job["model"], settings)
        self()

    def __call__(self) -> dict[str, Any]:
        from runtime.pipeline import detect_all

        with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
            found: list[Any] = []
            # through the list of scans, as the command goes: finding it, reading, network, JSON and CSV
            told = _timed(lambda: found.append(detect_all(self._detector, [self._scan], folder)))
        outcome = found[0]
        if outcome.failures:
            sys.exit(outcome.failures[0][1])
        result = outcome.results[0]
        stages = dict(result.seconds)
        windows = result.plan.get("windows")
        return {**told, "stages": stages, "precision": result.precision, "windows": windows}


LOOPS: dict[str, Callable[[Job], Run]] = {
    "preprocessing": Preprocessing,
    "classic": ClassicNetwork,
    "monai": Monai,
    "rpn3d": Rpn3d,
}


def _timed(work: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def main(path: str) -> None:
    """Serve the job in the JSON file `path` until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    hold_to(job["cpus"])  # before any library that starts threads is loaded
    from runtime.budget import peak_resident_bytes

    try:
        run = LOOPS[job["kind"]](job)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install --constraint constraints.txt '.[bench]'")
    print(json.dumps({"batch": run.steps}), file=answers, flush=True)
    for line in sys.stdin:
        done = [run() for _ in range(int(line))]
        peak = {"peak_rss_bytes": peak_resident_bytes()}
        print(json.dumps([{**one, **peak} for one in done]), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
