"""What executing a prototxt costs: the Caffe engine against a hand-written PyTorch module of the same net, in one run.

Engine and module take turns, so that a machine that slows down slows both; figures are medians, and the ratio is that
of the medians. Before anything is timed both must give the same output. Reading, parsing, building and exporting are
timed as well, and the memory one forward pass adds, each in a process of its own.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import Machine, describe
from caffe_models.atomic import replacing
from caffe_models.errors import NetError, Rpn3dError
from caffe_models.net import Net
from caffe_models.text_format import read_text
from caffe_models.weights import Weights, read_caffemodel
from runtime.budget import format_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

SCHEMA_VERSION = 1
CROPS = (64, 96, 128)
RUNS = 5
LAYOUTS = ("contiguous", "channels-last")
STRIDE = 4
"""Voxels a cell of `coord` and `head` stands for, along each axis."""
TOLERANCE = 1e-4
"""Largest difference between engine and module, of the largest output."""
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Pair:
    """Engine and module on one input. `what` is forward or forward+backward; times are medians in seconds."""

    what: str
    crop: int
    layout: str
    engine_s: float
    module_s: float
    difference: float
    """Largest difference of the outputs, of the largest output (forward+backward: of the gradients of one weight)."""

    @property
    def ratio(self) -> float:
        """Engine's time by the module's."""
        return self.engine_s / self.module_s

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Peak:
    """Bytes that one forward pass adds to the resident set at its height, each in a fresh process."""

    crop: int
    layout: str
    engine_bytes: int
    module_bytes: int


@dataclass(frozen=True)
class EngineBench:
    """All figures of one machine and one run."""

    machine: Machine
    threads: int
    runs: int
    files_s: Mapping[str, float]
    """Medians: read_caffemodel, parse_prototxt, build_net (parsing included), export_onnx."""
    caffemodel_bytes: int
    pairs: tuple[Pair, ...]
    peaks: tuple[Peak, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": self.machine.as_json(),
            "threads": self.threads,
            "runs": self.runs,
            "precision": "f32",
            "caffemodel_bytes": self.caffemodel_bytes,
            "files_s": dict(self.files_s),
            "pairs": [pair.as_json() for pair in self.pairs],
            "peaks": [asdict(peak) for peak in self.peaks],
        }


def bench_caffe(
    net: Path,
    weights: Path,
    *,
    crops: Sequence[int] = CROPS,
    runs: int = RUNS,
    threads: int = 1,
    layouts: Sequence[str] = LAYOUTS,
    backward: bool = True,
    memory: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> EngineBench:
    """Measure the deploy net `net` with `weights`; see the top of this module.

    Args:
        crops: edges of the input in voxels; multiples of 16 from 32 on (smaller ones leave BatchNorm a single value).
        runs: timed passes of each of the two, after one that is not timed.
        threads: for PyTorch.
        layouts: of `LAYOUTS`, the memory formats of weights and inputs.
        backward: time forward+backward in the TRAIN phase too, at the smallest crop.
        memory: measure the memory too.
        say: takes one line of progress at a time.

    Raises:
        Rpn3dError: a crop or number of runs that is not allowed, or outputs that differ: then no figure is given.
    """
    import torch

    if runs < 1 or not crops or any(crop < 32 or crop % 16 for crop in crops):
        raise Rpn3dError(
            f"bench: crops {', '.join(map(str, crops))}, runs {runs}; allowed: multiples of 16 from 32 on, 1 or more"
        )
    torch.set_num_threads(threads)
    blobs = read_caffemodel(weights)
    files = _files(net, weights, runs)
    say("  ".join(f"{name} {seconds:.3f} s" for name, seconds in files.items()))
    pairs = []
    jobs = [("forward", crop, layout) for crop in crops for layout in layouts]
    jobs += [("forward+backward", min(crops), layout) for layout in layouts] if backward else []
    for what, crop, layout in jobs:
        pairs.append(_pair(what, net, blobs, crop, layout, runs))
        say(_pair_line(pairs[-1].as_json()))
    peaks = []
    for crop in crops if memory else ():
        for layout in layouts:
            engine, module = (_peak_of(one, net, weights, crop, layout, threads) for one in ("engine", "module"))
            peaks.append(Peak(crop, layout, engine, module))
            say(_peak_line(asdict(peaks[-1])))
    return EngineBench(
        describe(), torch.get_num_threads(), runs, files, weights.stat().st_size, tuple(pairs), tuple(peaks)
    )


def write_json(bench: EngineBench, path: Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(bench.as_json(), indent=1) + "\n", encoding="utf-8")
    return path


def table(figures: Mapping[str, Any]) -> str:
    """The JSON's figures as text."""
    lines = [
        f"machine   {Machine(**figures['machine']).line()}",
        f"torch     {figures['machine']['packages'].get('torch', '?')}, f32, {figures['threads']} threads, "
        f"medians of {figures['runs']}",
        f"weights   {figures['caffemodel_bytes'] / 1e6:.1f} MB",
        "",
        *(f"{name:<18}{seconds:9.3f} s" for name, seconds in figures["files_s"].items()),
        "",
        *(_pair_line(pair) for pair in figures["pairs"]),
        "",
        *(_peak_line(peak) for peak in figures["peaks"]),
    ]
    return "\n".join(lines).rstrip()


def _pair_line(pair: Mapping[str, Any]) -> str:
    what = f"{pair['what']} {pair['crop']} {pair['layout']}"
    return (
        f"{what:<36} engine {pair['engine_s']:8.3f} s  module {pair['module_s']:8.3f} s  "
        f"ratio {pair['ratio']:.3f}  difference {pair['difference']:.1e}"
    )


def _peak_line(peak: Mapping[str, Any]) -> str:
    engine, module = format_memory(peak["engine_bytes"]), format_memory(peak["module_bytes"])
    return f"{'memory ' + str(peak['crop']) + ' ' + peak['layout']:<36} engine {engine}, module {module}"


def _files(net: Path, weights: Path, runs: int) -> dict[str, float]:
    """Seconds to read, parse, build and export."""
    from convert.to_onnx import net_to_onnx, save_onnx

    made = Net.from_prototxt(net)
    made.load(read_caffemodel(weights), str(weights))
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as folder:
        jobs: dict[str, Callable[[], object]] = {
            "read_caffemodel": lambda: read_caffemodel(weights),
            "parse_prototxt": lambda: read_text(net, "NetParameter", None),
            "build_net": lambda: Net.from_prototxt(net),
            "export_onnx": lambda: save_onnx(net_to_onnx(made), Path(folder, "net.onnx")),
        }
        return {name: statistics.median(_seconds(job) for _ in range(runs)) for name, job in jobs.items()}


def _seconds(job: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _inputs(crop: int, layout: str) -> "dict[str, torch.Tensor]":
    import torch

    made = torch.Generator().manual_seed(crop)
    shapes = {"data": (1, 1, *[crop] * 3), "coord": (1, 3, *[crop // STRIDE] * 3)}
    inputs = {name: torch.rand(shape, generator=made) * 2 - 1 for name, shape in shapes.items()}
    if layout == "channels-last":
        inputs = {name: one.to(memory_format=torch.channels_last_3d) for name, one in inputs.items()}
    return inputs


def _engine(net: Path, blobs: Weights, phase: str, layout: str) -> Net:
    made = Net.from_prototxt(net, phase)
    made.load(blobs, str(net))
    return made.to_torch(channels_last=layout == "channels-last")


def _module(blobs: Weights, phase: str, layout: str) -> "nn.Module":
    import torch

    from bench.plain_torch import PlainRpn3d, load_caffe

    made = PlainRpn3d()
    load_caffe(made, blobs)
    made.train(phase == "TRAIN")
    if layout == "channels-last":
        for parameter in made.parameters():  # nn.Module.to(memory_format=...) does the same; its type hints lack it
            if parameter.ndim == 5:
                parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)
    return made


def _pair(what: str, net: Path, blobs: Weights, crop: int, layout: str, runs: int) -> Pair:
    import torch

    learn = what == "forward+backward"
    phase = "TRAIN" if learn else "TEST"
    engine, module = _engine(net, blobs, phase, layout), _module(blobs, phase, layout)
    inputs = _inputs(crop, layout)
    first = next(parameter.tensor for parameter in engine.parameters() if parameter.tensor.requires_grad or not learn)

    def run_engine() -> torch.Tensor:
        return _learnt(engine.forward(inputs)["head"], first) if learn else engine.forward(inputs)["head"]

    def run_module() -> torch.Tensor:
        head: torch.Tensor = module(inputs["data"], inputs["coord"])
        return _learnt(head, next(module.parameters())) if learn else head

    with torch.inference_mode(not learn):
        outputs = []
        for run in (run_engine, run_module):
            torch.manual_seed(0)  # the same dropout
            outputs.append(run())
        difference = float((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max())
        if not difference <= TOLERANCE:
            raise NetError(
                f"bench: engine and module differ by {difference:.1e} of the largest output ({what}, crop {crop}, "
                f"{layout}); allowed: {TOLERANCE:g}. Nothing was timed"
            )
        del outputs
        engine_s: list[float] = []
        module_s: list[float] = []
        for turn in range(runs):
            for run, times in ((run_engine, engine_s), (run_module, module_s))[:: 1 if turn % 2 else -1]:
                times.append(_seconds(run))
    return Pair(what, crop, layout, statistics.median(engine_s), statistics.median(module_s), difference)


def _learnt(head: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    """Backward from a plain loss; the gradient of `weight`."""
    weight.grad = None
    head.square().mean().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return weight.grad.clone()


def _peak_of(which: str, net: Path, weights: Path, crop: int, layout: str, threads: int) -> int:
    command = [sys.executable, "-m", "bench.caffe_engine", which, str(net), str(weights), str(crop), layout]
    done = subprocess.run([*command, str(threads)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise Rpn3dError(f"bench: {' '.join(command)} ended with exit code {done.returncode}: {last}")
    return int(done.stdout)


def _status_bytes(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _measure_peak(which: str, net: Path, weights: Path, crop: int, layout: str, threads: int) -> int:
    """Run by `_peak_of` in a process of its own: growth of the resident set's high-water mark over one forward pass.

    A small pass goes before it, so that libraries' own buffers and repacked weights do not count. Linux only.
    """
    import torch

    torch.set_num_threads(threads)
    blobs = read_caffemodel(weights)
    engine = _engine(net, blobs, "TEST", layout) if which == "engine" else None
    module = _module(blobs, "TEST", layout) if which == "module" else None
    del blobs
    with torch.inference_mode():
        for edge in (16, crop):
            inputs = _inputs(edge, layout)
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
            before = _status_bytes("VmRSS")
            if engine is not None:
                engine.forward(inputs)
            elif module is not None:
                module(inputs["data"], inputs["coord"])
    return _status_bytes("VmHWM") - before


if __name__ == "__main__":
    _which, _net, _weights, _crop, _layout, _threads = sys.argv[1:]
    print(_measure_peak(_which, Path(_net), Path(_weights), int(_crop), _layout, int(_threads)))
