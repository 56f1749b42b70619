"""Proof that a converted net is the net: the same inputs through PyTorch, ONNX Runtime and OpenVINO."""

import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError
from convert.provenance import noted
from convert.run_net import Array, Arrays, run_onnxruntime, run_openvino, run_torch

if TYPE_CHECKING:
    from caffe_models.layer import Shape
    from caffe_models.net import Net

TOLERANCE = {"f32": 1e-4, "bf16": 3e-2, "int8": 0.3}
"""Precision of the OpenVINO model -> largest difference allowed, relative to the largest magnitude of the blob."""


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference between two engines, at the output where it is largest against its magnitude."""

    blob: str
    largest: float
    magnitude: float
    """Largest absolute value of that output."""
    tolerance: float
    """Allowed for `relative`."""

    @property
    def relative(self) -> float:
        """largest / magnitude; infinite where a value is not finite in one engine only."""
        return self.largest / max(self.magnitude, 1e-30) if self.largest else 0.0


@dataclass(frozen=True)
class Parity:
    """What `measure` found; None where an engine was left out."""

    precision: str
    """What OpenVINO was pinned to."""
    torch_onnxruntime: Difference | None
    torch_openvino: Difference | None
    onnxruntime_openvino: Difference | None
    left_out: tuple[str, ...]
    """One sentence for each engine that was left out."""

    @property
    def differences(self) -> dict[str, Difference]:
        """Those that were measured, under readable names."""
        pairs = {
            "torch - onnxruntime": self.torch_onnxruntime,
            "torch - openvino": self.torch_openvino,
            "onnxruntime - openvino": self.onnxruntime_openvino,
        }
        return {name: found for name, found in pairs.items() if found is not None}

    def lines(self) -> list[str]:
        """One line for each pair and each engine left out, for people."""
        rows = [
            f"{name} ({self.precision if 'openvino' in name else 'f32'}): largest difference {d.largest:.3g} of "
            f"{d.magnitude:.3g} at {d.blob}, {d.relative:.2g} (allowed {d.tolerance:g})"
            for name, d in self.differences.items()
        ]
        return rows + list(self.left_out)

    def check(self) -> "Parity":
        """Itself, if at least two engines ran and all agree.

        Raises:
            NetError: they do not, or there was nothing to compare.
        """
        if not self.differences:
            raise NetError(f"parity was not measured: {'; '.join(self.left_out) or 'one engine alone'}")
        for name, found in self.differences.items():
            if not found.relative <= found.tolerance:
                raise NetError(
                    f'parity of {name} fails at "{found.blob}": largest difference {found.largest:.3g} of a magnitude '
                    f"{found.magnitude:.3g} is {found.relative:.2g}, allowed is {found.tolerance:g}; do not use it"
                )
        return self


def measure(
    net: "Net | None",
    onnx_path: str | os.PathLike[str] | None,
    xml_path: str | os.PathLike[str] | None,
    inputs: Arrays,
    *,
    threads: int = 0,
) -> Parity:
    """Run `inputs` (by blob) through every engine that is there, and compare their outputs pair by pair.

    Args:
        net: for PyTorch; its weights are turned into tensors. None, or no torch: left out.
        onnx_path: for ONNX Runtime. None, or no onnxruntime: left out.
        xml_path: for OpenVINO, an .xml (pinned to the precision noted in it) or an .onnx (f32). None: left out.
        threads: for each engine; 0: their own choice.
    """
    left_out = []
    results: dict[str, Arrays] = {}
    precision = "f32"
    if net is None or not _installed("torch"):
        left_out.append("torch was left out: " + ("no net was given" if net is None else "it is not installed"))
    else:
        results["torch"] = run_torch(net, inputs)
    if onnx_path is None or not _installed("onnxruntime"):
        left_out.append(
            "onnxruntime was left out: " + ("no .onnx was given" if onnx_path is None else "it is not installed")
        )
    else:
        results["onnxruntime"] = run_onnxruntime(onnx_path, inputs, threads=threads)
    if xml_path is None:
        left_out.append("openvino was left out: no model was given")
    else:
        precision = noted(xml_path, "precision") or "f32"
        results["openvino"] = run_openvino(xml_path, inputs, precision=precision, threads=threads)
    found: dict[tuple[str, str], Difference] = {}
    for a, b in itertools.combinations(results, 2):
        tolerance = TOLERANCE[precision if b == "openvino" else "f32"]
        found[a, b] = difference(results[a], results[b], tolerance)
    return Parity(
        precision,
        found.get(("torch", "onnxruntime")),
        found.get(("torch", "openvino")),
        found.get(("onnxruntime", "openvino")),
        tuple(left_out),
    )


def difference(a: Arrays, b: Arrays, tolerance: float) -> Difference:
    """The worst output, where the difference is largest against the magnitude of `a`.

    Raises:
        NetError: other outputs or shapes; that is no rounding.
    """
    if set(a) != set(b):
        raise NetError(f"the engines' outputs differ: {', '.join(sorted(a))} and {', '.join(sorted(b))}")
    found = []
    for blob in sorted(a):
        if a[blob].shape != b[blob].shape:
            raise NetError(f'output "{blob}" has shape {a[blob].shape} in one engine and {b[blob].shape} in another')
        x, y = a[blob].astype(np.float64), b[blob].astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        same = finite | (x == y) | (np.isnan(x) & np.isnan(y))
        apart = np.subtract(x, y, where=finite, out=np.zeros_like(x))
        largest = float(np.abs(apart).max(initial=0.0)) if same.all() else np.inf
        magnitude = float(np.abs(x[finite]).max(initial=0.0))
        found.append(Difference(blob, largest, magnitude, tolerance))
    return max(found, key=lambda d: d.relative)


def crop_inputs(
    u8: npt.NDArray[np.uint8], extent_zyx: Sequence[int] | None = None, start_zyx: Sequence[int] = (0, 0, 0)
) -> dict[str, Array]:
    """`data` and `coord` for a real crop of a working volume: uint8 (z, y, x), extents multiples of 16.

    data = (u8 - 128) / 128; coord is the position of each output cell's centre (4 i + 1.5) in the volume of
    `extent_zyx` voxels that the crop was taken from at `start_zyx`; without them the crop is the whole volume.

    Raises:
        NetError: extents that the detector cannot take.
    """
    if u8.ndim != 3 or any(n == 0 or n % 16 for n in u8.shape):
        raise NetError(f"a crop of shape {u8.shape} does not fit the detector: three extents, multiples of 16")
    whole = extent_zyx or u8.shape
    lines = [((s + 4 * np.arange(n // 4) + 2) / e - 0.5) for n, e, s in zip(u8.shape, whole, start_zyx, strict=True)]
    coord = np.stack(np.meshgrid(*lines, indexing="ij")).astype(np.float32)
    data = (u8.astype(np.float32) - np.float32(128)) / np.float32(128)
    return {"data": data[None, None], "coord": coord[None]}


def random_inputs(shapes: "Mapping[str, Shape]", seed: int = 0) -> dict[str, Array]:
    """Uniform values in [-1, 1] for each input blob, for nets whose inputs mean nothing to us."""
    draw = np.random.default_rng(seed)
    return {blob: draw.uniform(-1, 1, shape).astype(np.float32) for blob, shape in shapes.items()}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
