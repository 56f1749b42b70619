"""A scan ready to draw crops from, whether its voxels lie in memory or in files."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError
from runtime.grid import Grid

TARGET, IGNORE = 1.0, 0.0

T = TypeVar("T")

_PARSING = Lock()
"""NumPy reads a file's header with `ast`, whose depth check threads of CPython 3.11 share: two at once fail, rarely."""


class DatasetError(Rpn3dError):
    """Training data that cannot be read or used."""


@dataclass(frozen=True)
class Annotation:
    """One row of a LUNA16-style annotation file.

    Attributes:
        x_mm, y_mm, z_mm: centre in world mm.
        diameter_mm: in mm.
        source: where it stands, such as `annotations.csv:12`; "" if it comes from no file.
    """

    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    source: str = field(default="", compare=False, kw_only=True)


@dataclass(frozen=True)
class InFile:
    """An array in a `.npy` file, mapped into memory when it is read: only what is touched is loaded.

    Nothing is held open in between, so that thousands of scans take neither memory nor file handles.

    Attributes:
        path: of the file.
        shape: of the array that `read` gives.
        packed: the file holds bools as bits, eight in a byte.
    """

    path: Path
    shape: tuple[int, ...]
    packed: bool = False

    def mapped(self) -> NDArray[Any]:
        """What the file holds, not to be written to.

        Raises:
            DatasetError: no such file, or one that was cut off.
        """
        try:
            with _PARSING:
                return np.load(self.path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # type: ignore[no-any-return]
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{self.path}: not a whole array ({error}); prepare the scan again") from error

    def read(self) -> NDArray[Any]:
        """The array; a packed one is unpacked into memory."""
        stored = self.mapped()
        if not self.packed:
            return stored
        return np.unpackbits(stored, count=math.prod(self.shape)).reshape(self.shape).view(np.bool_)

    def bits_at(self, flat: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Of a packed array the values at flat positions, without unpacking the rest."""
        return np.asarray(self.mapped()[flat >> 3] >> (7 - (flat & 7)) & 1, dtype=np.bool_)

    def check(self) -> None:
        """Raises DatasetError if the file does not hold an array of this shape."""
        stored = self.mapped()
        wanted = (-(-math.prod(self.shape) // 8),) if self.packed else self.shape
        if stored.shape != wanted:
            raise DatasetError(f"{self.path}: holds an array {stored.shape}, expected {wanted}; prepare the scan again")


class _MaybeInFile:
    """A field whose value is an array or an `InFile`, which is read each time the field is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, scan: object, owner: type | None = None) -> Any:
        if scan is None:
            raise AttributeError(self.name)
        held = vars(scan)[self.name]
        return held.read() if isinstance(held, InFile) else held

    def __set__(self, scan: object, value: object) -> None:
        vars(scan)[self.name] = value


def maybe_in_file(*names: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: the fields `names` take an `InFile` in place of an array."""

    def decorate(cls: type[T]) -> type[T]:
        for name in names:
            setattr(cls, name, _MaybeInFile(name))
        return cls

    return decorate


@maybe_in_file("voxels", "lung", "lung_sample")
@dataclass(frozen=True, eq=False, repr=False)
class PreparedScan:
    """A scan as the detector sees it, with its nodules.

    Of a scan on disk `voxels` is mapped and `lung` unpacked anew each time they are read: read them once for each use.

    Attributes:
        seriesuid: its name.
        voxels: (z, y, x) uint8 at 1 mm, as the network sees it.
        lung: (z, y, x) bool, the dilated lung mask on the same grid.
        nodules: (n, 5) float32: z, y, x in voxels, diameter in voxels (mm), kind (1 target, 0 ignore).
        mining: every nodule is annotated, so that false positives may be used as hard negatives.
        grid: where the voxels lie in the patient: `grid.to_world(zyx)`; None if nobody knows.
        lung_sample: flat positions of voxels of the lung drawn at random, or None: any of them is drawn.
    """

    seriesuid: str
    voxels: NDArray[np.uint8]
    lung: NDArray[np.bool_]
    nodules: NDArray[np.float32]
    mining: bool
    grid: Grid | None = None
    lung_sample: NDArray[np.int32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x) of voxels and mask, without reading them."""
        return tuple(vars(self)["voxels"].shape)

    def in_lung(self, index: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether voxels, (n, 3) of z, y, x within the volume, belong to the lung mask."""
        held = vars(self)["lung"]
        if isinstance(held, InFile):
            return held.bits_at(np.asarray(np.ravel_multi_index(tuple(index.T), self.shape), dtype=np.intp))
        return np.asarray(held[tuple(index.T)])

    def random_lung_voxel(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(z, y, x) of a voxel of the lung; all are equally likely, of a scan on disk all of its sample.

        Raises:
            DatasetError: there is no lung.
        """
        sample = self.lung_sample
        flat = self._lung_voxels if sample is None else sample
        if not len(flat):
            raise DatasetError(f"{self.seriesuid}: its lung mask is empty; nothing can be drawn from it")
        return np.array(np.unravel_index(int(flat[rng.integers(len(flat))]), self.shape), dtype=np.float64)

    @cached_property
    def _lung_voxels(self) -> NDArray[np.int32]:
        return np.flatnonzero(self.lung).astype(np.int32)
