"""Arrays for a net from an .npz, checked before they are read: names, kinds and shapes stand in small headers."""

import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from caffe_models.errors import NetError
from caffe_models.free_memory import format_memory, free_memory
from caffe_models.layer import Shape

_OF_ZIPFILE = (OSError, EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_OF_NUMPY = (ValueError, SyntaxError, RecursionError, OverflowError, TypeError, tokenize.TokenError)
"""What comes of files that are damaged, encrypted, or no such files; NumPy reads its headers as Python's literals."""


@dataclass(frozen=True)
class _Header:
    shape: Shape
    dtype: np.dtype[np.generic]


def read_arrays(
    path: str | os.PathLike[str],
    names: Iterable[str] | None = None,
    check: Callable[[dict[str, Shape]], None] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Arrays of an .npz as float32 in C order; nothing is ever unpickled.

    Args:
        names: those to read; None: all.
        check: told the shapes before anything large is read; raises for those that do not fit.

    Raises:
        NetError: no such file or no .npz, an array that is missing, not of numbers, larger than the memory that is
            free, damaged, or with values that are not finite.
    """
    source = Path(path)
    if not source.is_file():
        raise NetError(f"{source}: {'is a folder' if source.is_dir() else 'no such file'}; name an .npz")
    try:
        with zipfile.ZipFile(source) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            headers = {}
            for name in held if names is None else names:
                if name not in held:
                    raise NetError(
                        f"{source}: has no array for input {name}; it holds {', '.join(held[:20]) or 'nothing'}"
                    )
                with archive.open(f"{name}.npy") as stream:
                    headers[name] = _header(stream, source, name)
            if check is not None:
                check({name: header.shape for name, header in headers.items()})
            _check_memory(source, headers)
            return {name: _read(archive, source, name) for name in headers}
    except NetError:
        raise
    except MemoryError as error:
        raise NetError(f"{source}: not enough memory for its arrays") from error
    except (*_OF_ZIPFILE, *_OF_NUMPY) as error:
        raise NetError(f"{source}: cannot be read as .npz ({str(error)[:200]})") from error


def _header(stream: IO[bytes], source: Path, name: str) -> _Header:
    version = npy.read_magic(stream)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype.kind not in "biuf":
        raise NetError(f"{source}: {name} is an array of {dtype}; numbers are needed")
    return _Header(tuple(int(extent) for extent in shape), dtype)


def _check_memory(source: Path, headers: dict[str, _Header]) -> None:
    needed, free = 0, free_memory()
    for name, header in headers.items():
        size = int(np.prod([float(extent) for extent in header.shape])) * (header.dtype.itemsize + 4)
        needed += size
        if any(extent < 0 for extent in header.shape) or needed > free:
            shape = header.shape if len(header.shape) <= 32 else f"of {len(header.shape)} axes"
            raise NetError(f"{source}: {name} has shape {shape}; {format_memory(free)} of memory are free")


def _read(archive: zipfile.ZipFile, source: Path, name: str) -> npt.NDArray[np.float32]:
    with archive.open(f"{name}.npy") as stream:
        found = npy.read_array(stream, allow_pickle=False)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(found, np.float32).reshape(found.shape)
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise NetError(f"{source}: {name} has {count} values that are not finite (NaN, infinite, or beyond float32)")
    return array
