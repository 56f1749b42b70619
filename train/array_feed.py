"""Inputs of a net from a .npz, one iteration at a time: a feed may be larger than the memory.

Each array of an .npz is a stream of its own; of each only the present iteration is held, whether the file is compressed
or not. (Arrays in Fortran order, which lie the wrong way round for that, are read whole.)
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError

Array = npt.NDArray[np.float32]

_READABLE = "biuf"  # kinds of dtype: bool, integers, floats
_BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What zipfile and NumPy raise for a file that is missing, damaged, encrypted (RuntimeError) or no .npz."""


@dataclass(frozen=True)
class _Header:
    """Of one array in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class ArrayFeed:
    """An .npz that holds for each input blob an array (steps, *lead, *shape of the blob), read step by step."""

    def __init__(self, path: Path, inputs: Mapping[str, tuple[int, ...]], lead: tuple[int, ...], unit: str) -> None:
        """Look at names and shapes; no number is read yet.

        Args:
            inputs: the net's inputs by blob, and their shapes.
            lead: extents between the steps and the blob's own, such as (iter_size,).
            unit: what a step is, for errors: "iterations" or "passes".

        Raises:
            NetError: no such file, not an .npz, a blob missing, an array of another shape, type or length.
        """
        self.path = path
        self._headers = self._read_headers()
        for blob, shape in inputs.items():
            if blob not in self._headers:
                held = ", ".join(self._headers) or "nothing"
                raise NetError(f"{path}: has no array for input {blob}; it holds {held}")
            found = self._headers[blob]
            if not found.shape or found.shape[1:] != (*lead, *shape):
                wanted = ", ".join(map(str, (unit, *lead, *shape)))
                raise NetError(f"{path}: {blob} has shape {found.shape}; allowed: ({wanted})")
            if found.dtype.kind not in _READABLE:
                raise NetError(f"{path}: {blob} holds {found.dtype}; allowed: floats, integers, bool")
        counts = {blob: self._headers[blob].shape[0] for blob in inputs}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{blob} {count}" for blob, count in counts.items())
            raise NetError(f"{path}: the arrays differ in the number of {unit}: {listed}")
        self.unused = tuple(name for name in self._headers if name not in inputs)
        """Arrays that no input of the net takes."""
        self.count = min(counts.values(), default=0)
        """Steps there are."""
        self._blobs = tuple(inputs)

    def check(self, start: int, stop: int) -> None:
        """Read these steps once and see that every number is finite, so that a bad one is found at once and not after
        hours.

        Raises:
            NetError: NaN or an infinity (names blob and step), or a damaged file.
        """
        for step, arrays in enumerate(self.steps(start, stop), start):
            for blob, array in arrays.items():
                if not np.isfinite(array).all():
                    place = np.argwhere(~np.isfinite(array))[0].tolist()
                    raise NetError(
                        f"{self.path}: {blob}{[step, *place]} is {array[tuple(place)]}; every number must be finite"
                    )

    def steps(self, start: int, stop: int) -> Iterator[dict[str, Array]]:
        """From step `start` on, each step's arrays (*lead, *shape), float32, by blob.

        Raises:
            NetError: the file is damaged there.
        """
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                streams = {blob: self._stream(blob, archive, stack, start) for blob in self._blobs}
                for step in range(start, stop):
                    yield {blob: self._next(blob, stream, step) for blob, stream in streams.items()}
            except NetError:
                raise
            except _BROKEN as error:
                raise self._unreadable(error) from error

    def _stream(self, blob: str, archive: zipfile.ZipFile, stack: ExitStack, start: int) -> "IO[bytes] | Array":
        header = self._headers[blob]
        stream = stack.enter_context(archive.open(f"{blob}.npy"))
        if header.fortran and len(header.shape) > 1:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), np.float32)
        _read_header(stream)
        left = start * self._step_bytes(header)
        while left:  # a compressed stream must be read through; in pieces, so that nothing large is held
            piece = len(stream.read(min(left, 1 << 20)))
            if not piece:
                raise self._short(blob)
            left -= piece
        return stream

    def _next(self, blob: str, stream: "IO[bytes] | Array", step: int) -> Array:
        header = self._headers[blob]
        if isinstance(stream, np.ndarray):
            taken: Array = stream[step]
            return taken
        data = stream.read(self._step_bytes(header))
        if len(data) != self._step_bytes(header):
            raise self._short(blob)
        with np.errstate(over="ignore"):
            values: Array = np.frombuffer(data, header.dtype).reshape(header.shape[1:]).astype(np.float32)
            return values

    @staticmethod
    def _step_bytes(header: _Header) -> int:
        return math.prod(header.shape[1:]) * header.dtype.itemsize

    def _short(self, blob: str) -> NetError:
        return NetError(f"{self.path}: {blob} ends before its shape {self._headers[blob].shape} is filled: damaged?")

    def _unreadable(self, error: Exception) -> NetError:
        return NetError(f"{self.path}: cannot be read as .npz ({error})")

    def _read_headers(self) -> dict[str, _Header]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = {}
                for name in archive.namelist():
                    if name.endswith(".npy"):
                        with archive.open(name) as stream:
                            found[name.removesuffix(".npy")] = _read_header(stream)
                return found
        except _BROKEN as error:
            raise self._unreadable(error) from error


def _read_header(stream: IO[bytes]) -> _Header:
    """The header of a .npy. Raises ValueError for what is none."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return _Header(tuple(shape), dtype, bool(fortran))
