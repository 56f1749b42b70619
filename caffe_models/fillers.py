"""Caffe's weight fillers, with NumPy's generator: same distributions, not the same random numbers, as Caffe.

Fan-in is count / shape[0] and fan-out count / shape[1], which is what Caffe computes for every layer, Deconvolution
(weight: inputs first) and InnerProduct with `transpose` included; there it is not the true fan-in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import PrototxtError
from caffe_models.schema import DIALECTS

if TYPE_CHECKING:
    from caffe_models.message import Message

Array = npt.NDArray[np.float32]

_DRAWN_AT_ONCE = 1 << 20
_NOT_ON_5D = {"positive_unitball": ("intel", "extended"), "bilinear": ("bvlc", "intel")}
"""Filler -> the dialects whose Caffe aborts where it meets one on a weight of 5 axes."""


@dataclass(frozen=True)
class FillerSpec:
    """How one blob starts. Fields as in Caffe's FillerParameter; `where` is the prefix of error messages."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: str = "FAN_IN"
    symmetric: bool = False
    """bilinear: BVLC's formula, symmetric for odd kernels too; the other dialects' is not."""
    refused_on_5d: str = ""
    """The dialect, where its Caffe cannot use this filler on weights of 5 axes."""
    where: str = "<net>"

    @staticmethod
    def read(message: "Message", field: str, default: "FillerSpec | None" = None) -> "FillerSpec":
        """The filler in `field` of a layer's parameter message, else `default`, else constant 0.

        Raises:
            PrototxtError: an unknown type or a setting that cannot be drawn from; names file and line.
        """
        if not message.has(field):
            return default if default is not None else FillerSpec()
        return FillerSpec.of(message.get(field), field, message.spec.dialect)

    @staticmethod
    def of(filler: "Message", field: str, dialect: str) -> "FillerSpec":
        """The filler in a FillerParameter; `field` is where it stood. Raises as `read`."""
        where = f"{filler.source}:{filler.line}"
        spec = FillerSpec(
            type=str(filler.get("type")),
            value=float(filler.get("value")),
            min=float(filler.get("min")),
            max=float(filler.get("max")),
            mean=float(filler.get("mean")),
            std=float(filler.get("std")),
            sparse=int(filler.get("sparse")),
            variance_norm=str(filler.get("variance_norm")),
            symmetric=dialect == "bvlc",
            refused_on_5d=dialect if dialect in _NOT_ON_5D.get(str(filler.get("type")), ()) else "",
            where=where,
        )
        if spec.type not in _FILLERS:
            raise PrototxtError(
                f'{where}: {field}: unknown filler "{spec.type}" (known: {", ".join(sorted(_FILLERS))})'
            )
        if (spec.type == "gaussian" and spec.std <= 0) or (spec.type == "uniform" and spec.min > spec.max):
            raise PrototxtError(f"{where}: {field}: std must be above 0, and min not above max")
        if spec.sparse != -1 and (spec.type != "gaussian" or spec.sparse < 0):
            raise PrototxtError(f"{where}: {field}: sparse {spec.sparse}; allowed: 0 or more, with type gaussian alone")
        return spec


class UnfilledBlob:
    """A weight that has a shape, and gets memory and values only when they are asked for: reading a net must cost
    nothing before it is known to be sane, and most nets are read to be given the weights of a file.

    Layers that share a blob hold the same object and so get the same array.
    """

    def __init__(self, spec: FillerSpec, shape: tuple[int, ...]) -> None:
        """Raises PrototxtError as `fill` does."""
        check_fits(spec, shape)
        self.shape = shape
        self.seed: tuple[int, ...] = (0,)
        self._spec = spec
        self._array: Array | None = None

    @property
    def filled(self) -> bool:
        """Whether the values are there."""
        return self._array is not None

    def array(self) -> Array:
        """The values: those of `take`, else the filler's, drawn from `seed`."""
        if self._array is None:
            self._array = fill(self._spec, self.shape, np.random.default_rng(self.seed))
        return self._array

    def take(self, values: npt.NDArray[np.float32]) -> None:
        """Have these values (copied) and not the filler's."""
        self._array = np.array(values, np.float32)


def check_fits(spec: FillerSpec, shape: tuple[int, ...]) -> None:
    """Raises PrototxtError, with the line of the filler, if it cannot fill `shape`: bilinear on a blob that is not 4-D
    or 5-D with equal spatial sides, or a filler that the dialect's Caffe has no 5-D form of."""
    if spec.refused_on_5d and len(shape) > 4:
        others = " and ".join(one for one in DIALECTS if one not in _NOT_ON_5D[spec.type])
        raise PrototxtError(
            f"{spec.where}: filler {spec.type} cannot fill a weight of {len(shape)} axes in the {spec.refused_on_5d} "
            f"dialect (shape {shape}); {others} can"
        )
    if spec.type == "bilinear" and (len(shape) not in (4, 5) or len(set(shape[2:])) != 1):
        raise PrototxtError(
            f"{spec.where}: filler bilinear needs a 4-D or 5-D weight with equal spatial sides, found shape {shape}"
        )


def fill(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A new float32 array of `shape`, filled as `spec` says.

    Raises:
        PrototxtError: see `check_fits`.
    """
    check_fits(spec, shape)
    return _FILLERS[spec.type](spec, shape, rng).astype(np.float32, copy=False)


def _constant(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.full(shape, spec.value, np.float32) if spec.value else np.zeros(shape, np.float32)


def _drawn(draw: Callable[[int], npt.NDArray[Any]], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """As draw(count) in float32, a million numbers at a time: NumPy draws in float64, twice the memory."""
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, values.size, _DRAWN_AT_ONCE):
        part = values[start : start + _DRAWN_AT_ONCE]
        part[...] = draw(part.size)
    return values.reshape(shape)


def _uniform(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    return _drawn(lambda count: rng.uniform(spec.min, spec.max, count), shape)


def _gaussian(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    values = _drawn(lambda count: rng.normal(spec.mean, spec.std, count), shape)
    if spec.sparse >= 0:  # on average `sparse` non-zero weights for each output
        share = min(1.0, spec.sparse / (shape[0] if shape else 1))
        values *= _drawn(lambda count: rng.random(count) < share, shape)
    return values


def _positive_unitball(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    values = _drawn(rng.random, shape)
    sums: npt.NDArray[Any] = values.reshape(shape[0], -1).sum(axis=1)
    return np.asarray(values / sums.reshape(-1, *[1] * (len(shape) - 1)))


def _fan(spec: FillerSpec, shape: tuple[int, ...]) -> float:
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[spec.variance_norm]


def _xavier(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    limit = math.sqrt(3.0 / _fan(spec, shape))
    return _drawn(lambda count: rng.uniform(-limit, limit, count), shape)


def _msra(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    scale = math.sqrt(2.0 / _fan(spec, shape))
    return _drawn(lambda count: rng.normal(0.0, scale, count), shape)


def _bilinear(spec: FillerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Interpolation weights, along each axis 1 - |i / f - c| with f = ceil(k/2) and c = (2f - 1 - f % 2) / (2f), or
    in BVLC Caffe c = (k - 1) / (2f). Both are .25 .75 .75 .25 for k = 4."""
    sides = shape[2:]
    half = math.ceil(sides[0] / 2)
    centre = (sides[0] - 1 if spec.symmetric else 2 * half - 1 - half % 2) / (2 * half)
    ramp = 1 - np.abs(np.arange(sides[0]) / half - centre)
    kernel = reduce(np.multiply.outer, [ramp.astype(np.float32)] * len(sides))
    return np.broadcast_to(kernel, shape).copy()


_FILLERS: dict[str, Callable[[FillerSpec, tuple[int, ...], np.random.Generator], npt.NDArray[Any]]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
