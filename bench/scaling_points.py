"""Which points `bench.scaling` measures on a machine, and why not the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe_models.errors import Rpn3dError
from caffe_models.free_memory import format_memory, free_memory
from runtime.engine_memory import engine_bytes

EDGE = 96
"""Voxels along each axis of the window that cores, streams and instruction sets are compared on."""
FULL = ((64, 96, 128, 192), (1, 2, 4), 3)
QUICK = ((64, 96, 128), (1, 2), 2)
"""Edges of the windows, scans in a set, turns of each point."""
SWEEPS = ("cores", "streams", "windows", "scans", "isa", "roof", "layers")
PROCESS_BYTES = 300 << 20
"""What a point's process holds besides its windows: Python, OpenVINO, the model."""


ISAS = (
    ("AVX2", "AVX2", ("avx2", "fma")),
    ("AVX2 with VNNI", "AVX2_VNNI", ("avx_vnni",)),
    ("AVX-512", "AVX512_CORE", ("avx512f", "avx512bw")),
    ("AVX-512 VNNI", "AVX512_CORE_VNNI", ("avx512_vnni",)),
    ("AVX-512 BF16", "AVX512_CORE_BF16", ("avx512_bf16",)),
    ("AMX", "AVX512_CORE_AMX", ("amx_tile", "amx_int8", "amx_bf16")),
)
"""Name, oneDNN's cap (ONEDNN_MAX_CPU_ISA), the processor's flags that it needs."""
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        net: the deploy prototxt, for the multiply-adds; weights: the model that comes with rpn3d.
        model: as `rpn3d detect --model` takes it; None: ours.
        cpus: cores of the largest points.
        precisions: of f32, bf16, int8; empty: f32, bf16 where the processor computes in it, and int8.
        sweeps: of `SWEEPS`.
        scan: for the scans; None: a small phantom, made for this run.
    """

    net: Path
    weights: Path
    model: Path | None
    cpus: int
    precisions: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = SWEEPS
    edge: int = EDGE
    windows: tuple[int, ...] = FULL[0]
    scans: tuple[int, ...] = FULL[1]
    runs: int = FULL[2]
    scan: Path | None = None


@dataclass(frozen=True)
class Point:
    """One alternative of a sweep. `refused`: why it is not measured; "" where it is."""

    sweep: str
    kind: str
    precision: str
    cpus: int
    edge: int = 0
    streams: int = 1
    isa: str = ""
    cap: str = ""
    refused: str = ""

    @property
    def name(self) -> str:
        """For progress and errors."""
        what = {"cores": f"{self.cpus} cores", "streams": f"{self.streams} streams", "windows": f"{self.edge}^3"}
        return f"{what.get(self.sweep, self.isa or f'{self.cpus} cores')} {self.precision}"


def points(
    sweep: str,
    task: Task,
    precisions: Sequence[str],
    models: Mapping[str, Path | str],
    flags: Sequence[str],
) -> Iterator[Point]:
    """The points of a sweep on a processor with these flags, in order.

    Args:
        models: by precision; text: why there is none.
    """
    for precision in precisions:
        model = models[precision]
        no_model = model if isinstance(model, str) else ""
        if precision == "bf16" and not any(flag in flags for flag in BF16_FLAGS):
            no_model = "this processor does not compute in bf16"
        every = task.cpus
        if sweep == "cores":
            for count in core_counts(every):
                yield Point(sweep, "runtime", precision, count, task.edge, refused=no_model)
        elif sweep == "streams":
            for count in (n for n in core_counts(every) if every % n == 0):
                yield Point(sweep, "streams", precision, every, task.edge, count, refused=no_model)
        elif sweep == "windows":
            yield from _window_points(task, precision, no_model)
        elif sweep == "isa":
            for name, cap, needs in ISAS:
                missing = [flag for flag in needs if flag not in flags]
                why = f"this processor has no {name}" if missing else no_model
                if precision != "bf16" or cap in ("AVX512_CORE_BF16", "AVX512_CORE_AMX"):
                    yield Point(sweep, "streams", precision, every, task.edge, isa=name, cap=cap, refused=why)
        elif sweep == "roof":
            why = no_model if precision == "bf16" else ""
            for count in dict.fromkeys((1, every)):
                yield Point(sweep, "roof", precision, count, refused=why)
        else:
            yield Point(sweep, "layers", precision, every, task.edge, refused=no_model)


def _window_points(task: Task, precision: str, no_model: str) -> Iterator[Point]:
    free, taken = free_memory(), 0
    for edge in sorted(task.windows):
        needed = PROCESS_BYTES + engine_bytes(edge**3, precision)
        why = no_model
        if taken + needed > free:  # all of a sweep are there at once
            why = why or f"needs {format_memory(needed)} beside the others; {format_memory(free - taken)} are free"
        else:
            taken += needed
        yield Point("windows", "runtime", precision, task.cpus, edge, refused=why)


def core_counts(cpus: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `cpus` itself."""
    return tuple(sorted({*(1 << k for k in range(cpus.bit_length()) if 1 << k <= cpus), cpus}))


def check(task: Task) -> None:
    """Raises Rpn3dError for an unknown sweep or precision, no runs, or an edge that is no multiple of 16."""
    unknown = [name for name in task.sweeps if name not in SWEEPS]
    if unknown or not task.sweeps:
        raise Rpn3dError(f'bench: sweep "{", ".join(unknown)}" is not known; allowed: {", ".join(SWEEPS)}')
    if unknown := [name for name in task.precisions if name not in ("f32", "bf16", "int8")]:
        raise Rpn3dError(f'bench: precision "{unknown[0]}" is not known; allowed: f32, bf16, int8')
    if task.runs < 1:
        raise Rpn3dError(f"bench: runs is {task.runs}; give 1 or more")
    for edge in (task.edge, *task.windows):
        if edge < 16 or edge % 16:
            raise Rpn3dError(f"bench: a window of {edge} voxels; give multiples of 16")


def precisions_of(flags: Sequence[str]) -> tuple[str, ...]:
    """Those measured when none is named."""
    return ("f32", "bf16", "int8") if any(flag in flags for flag in BF16_FLAGS) else ("f32", "int8")
