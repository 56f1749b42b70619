"""Which precision `auto` is: the fastest that this processor runs well and that is proven for these weights.

A precision is proven by the file beside the weights, see `proof`. Where there is none (a model of the user's own), it
is as it always was: bf16 where the processor computes in it, else f32.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.proof import PrecisionProof, Proof

FASTEST_FIRST = ("int8", "bf16", "f32")

RUN_WELL_BY: Mapping[str, tuple[str, ...]] = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "avx2"),
    "bf16": ("amx_bf16", "avx512_bf16"),
}
"""Precision -> the instruction sets of which any one makes it faster than f32, the best first.

int8 is on plain AVX2, too: half of the time of f32, measured. bf16 without its own instructions is emulated."""


class ModelNote(Protocol):
    """What one precision's model says of itself; "" where that is not known."""

    @property
    def caffemodel_sha256(self) -> str:
        """Of the weights it was made from."""

    @property
    def bin_sha256(self) -> str:
        """Of its .bin."""


@dataclass(frozen=True)
class Choice:
    """A precision, and why.

    Attributes:
        precision: int8, bf16 or f32; "auto" where the engine shall decide between the last two, as without a proof.
        why: one sentence without its full stop.
        unproven: faster ones that this processor runs well and whose models are there, the fastest last: what a
            deadline may fall back on.
    """

    precision: str
    why: str
    unproven: tuple[str, ...] = ()


def choose(flags: Collection[str], proof: Proof | None, there: Mapping[str, ModelNote]) -> Choice:
    """The precision that "auto" stands for.

    Args:
        flags: instruction sets of the processor, as Linux names them, see `cpu_flags`.
        proof: of the model; None: there is none.
        there: the precisions that the model can be had in.
    """
    well = {name: next((f for f in RUN_WELL_BY[name] if f in flags), "") for name in RUN_WELL_BY}
    runs = [name for name in FASTEST_FIRST if name in there and (name == "f32" or well[name])]
    ours = proof is not None and any(note.caffemodel_sha256 == proof.weights_sha256 for note in there.values())
    if proof is None or not ours:
        what = "no proof of its accuracy lies beside it" if proof is None else f"{proof.source} is of other weights"
        return Choice(
            "auto",
            f"bf16 where the processor computes in it, else f32; int8 is not taken unasked: {what}",
            tuple(name for name in runs if name == "int8"),
        )
    passed_over: list[str] = []
    unproven: list[str] = []
    for name in FASTEST_FIRST:
        if name == "f32":
            break
        if name not in there:
            passed_over.append(f"there is no {name} model")
        elif not well[name]:
            passed_over.append(f"this processor does not compute in {name}")
        elif against := _not_proven(proof, name, there[name]):
            passed_over.append(against)
            unproven.insert(0, name)
        else:
            return Choice(name, _why(name, well[name], proof.precisions[name], passed_over), tuple(unproven))
    plain = "f32" if "f32" in there or "bf16" not in there else "auto"  # the bf16 file holds the same weights
    return Choice(plain, f"f32: {', '.join(passed_over)}", tuple(unproven))


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this processor, in Linux's words; none where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    words = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(words.split())


def _not_proven(proof: Proof, name: str, note: ModelNote) -> str:
    """Why it is not; "" if it is."""
    entry = proof.precisions.get(name)
    if entry is None:
        return f"{name} was not measured against f32"
    if note.caffemodel_sha256 != proof.weights_sha256:
        return f"the {name} model is of other weights than those measured"
    if entry.model_sha256 and note.bin_sha256 and entry.model_sha256 != note.bin_sha256:
        return f"the {name} model is another than the one measured"
    if not entry.proven:
        return f"{name} is not proven for these weights" + _change(entry)
    return ""


def _why(name: str, flag: str, entry: PrecisionProof, passed_over: list[str]) -> str:
    before = f"; {', '.join(passed_over)}" if passed_over else ""
    return f"{name}: the fastest that this processor ({flag}) runs well and that is proven{_change(entry)}{before}"


def _change(entry: PrecisionProof) -> str:
    if entry.cpm is None or entry.cpm_change is None:
        return ""
    return f" (CPM {entry.cpm:.3f}, {entry.cpm - entry.cpm_change:.3f} in f32)"
