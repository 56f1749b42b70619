"""The machine that a measurement was made on, as far as it bears on the figures."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runtime.budget import cpu_budget, format_memory

FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
"""Instruction sets that inference libraries choose their kernels by; others are left out."""

PACKAGES = ("rpn3d", "openvino", "onnxruntime", "onnx", "torch", "numpy", "scipy", "SimpleITK")


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        cpu: model name; flags: of `FLAGS`, those it has.
        sockets, cores, threads: of the whole machine; 0 where the system does not say.
        usable_cpus: cores this process may use, and what limits them.
        memory_bytes: of the whole machine.
        packages: versions; those not installed are left out.
    """

    cpu: str
    flags: tuple[str, ...]
    sockets: int
    cores: int
    threads: int
    usable_cpus: int
    usable_reason: str
    memory_bytes: int
    system: str
    python: str
    packages: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)

    def line(self) -> str:
        """One line: CPU, cores, memory, instruction sets."""
        cores = f"{self.usable_cpus} of {self.threads} threads usable ({self.usable_reason})"
        memory = format_memory(self.memory_bytes)
        return f"{self.cpu}, {cores}, {memory}, {' '.join(self.flags) or 'no vector instructions listed'}"


def describe(cpuinfo: str | None = None) -> Machine:
    """Describe this machine.

    Args:
        cpuinfo: text of /proc/cpuinfo; None: read it. Where there is none, name and counts come from `platform`.
    """
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    blocks: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", block, re.MULTILINE))
        blocks += [fields] if "processor" in fields else []
    first = blocks[0] if blocks else {}
    has = set(first.get("flags", first.get("Features", "")).split())
    usable, reason = cpu_budget()
    return Machine(
        cpu=first.get("model name", platform.processor() or platform.machine()).strip(),
        flags=tuple(flag for flag in FLAGS if flag in has),
        sockets=len({block["physical id"] for block in blocks if "physical id" in block}),
        cores=len({(b.get("physical id"), b["core id"]) for b in blocks if "core id" in b}),
        threads=len(blocks) or os.cpu_count() or 0,
        usable_cpus=usable,
        usable_reason=reason,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=platform.platform(),
        python=platform.python_version(),
        packages=_packages(),
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
