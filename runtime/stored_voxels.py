"""From a file's bytes to int16 Hounsfield units, piece by piece.

The readers of the headers say where the voxels lie and how they are written (`Storage`); this reads them. It is done
here and not by ITK because ITK takes twice the time and the memory, fills up what a truncated file lacks without a
word, and prints to the terminal where it does notice. Inflating is ISA-L's, which takes 0.6 of the time of zlib.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from runtime.errors import ScanError
from runtime.hounsfield import put_hu
from runtime.threads import ahead

MAX_VOXELS = 2**31
"""1024 x 1024 x 2048: twice as many as the largest scan in use, 4 GiB as int16."""

MIN_VOXELS = 8
"""Fewer slices, rows or columns are a localizer, a picture or a test, not a chest."""

PIECE_BYTES = 1 << 17
"""Read at a time; what it inflates to still lies in the processor's cache when it is converted."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot make more than this of one byte, so a header that promises more is wrong."""


INFLATE_ERROR: type[Exception] = vars(isal_zlib)["error"]  # its stub does not say that it is an exception


@dataclass(frozen=True)
class Storage:
    """Where the voxels of a scan file are, and how they are written.

    Attributes:
        source: name of the scan for messages.
        data_path: file of the voxels; the header's own or another.
        offset_bytes: before the first voxel, counted after inflating if `compression` is "gzip-all"; -1 if the
            voxels are the last bytes of the file.
        dtype: with byte order.
        shape: (z, y, x) as stored, x fastest.
        compression: "" | "zlib" | "gzip" (from the offset on) | "gzip-all" (the whole file).
        slope, intercept: HU = stored * slope + intercept.
        notes: what was assumed because the header does not say.
    """

    source: str
    data_path: Path
    offset_bytes: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, int, int]
    compression: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of the voxels, inflated."""
        return prod(self.shape) * self.dtype.itemsize


def check_shape(shape: tuple[int, ...], source: str, field: str) -> tuple[int, int, int]:
    """`shape` (z, y, x) if a scan can have it; numbers in the message go x, y, z as headers have them.

    Raises:
        ScanError: not three axes, too few or too many voxels.
    """
    found = " x ".join(str(n) for n in reversed(shape))
    if len(shape) != 3:
        raise ScanError(f"{source}: {field} is {found}, {len(shape)}-D; allowed is a 3-D scan of one channel")
    if any(n < MIN_VOXELS for n in shape):
        raise ScanError(f"{source}: {field} is {found}; allowed are at least {MIN_VOXELS} slices, rows and columns")
    if prod(shape) > MAX_VOXELS:
        raise ScanError(f"{source}: {field} is {found}, {prod(shape):.3g} voxels; allowed are {MAX_VOXELS:.3g}")
    z, y, x = shape
    return z, y, x


def read_stored(storage: Storage, threads: int = 1) -> NDArray[np.int16]:
    """The voxels as (z, y, x) int16 HU, in the stored orientation; for a storage that `check_length` has passed.

    With two threads one inflates while the other converts.

    Raises:
        ScanError: a file that is unreadable, shorter or longer than the header says, or damaged.
    """
    source, path = storage.source, storage.data_path
    try:
        with path.open("rb") as file:
            hu = np.empty(storage.shape, dtype=np.int16)
            pieces = _pieces(storage, file)
            _fill(storage, ahead(pieces, threads) if storage.compression else pieces, hu.reshape(-1))
    except OSError as error:
        raise ScanError(f"{source}: {path.name} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise ScanError(f"{source}: no memory for {prod(storage.shape) * 2 / 2**30:.1f} GiB of voxels") from None
    except INFLATE_ERROR as error:
        raise ScanError(
            f"{source}: the compressed voxels in {path.name} are damaged ({str(error).split(': ')[-1]}); "
            f"copy or convert the scan again"
        ) from None
    return hu


def check_length(storage: Storage) -> None:
    """Compare the voxel file's length with the header, before any memory is taken for what the header promises.

    Raises:
        ScanError: a file that is missing, or that cannot hold just the voxels of the header.
    """
    name, needed = storage.data_path.name, storage.size_bytes
    try:
        if not storage.data_path.exists():
            raise ScanError(f"{storage.source}: its voxel file {name} is not there; put it beside the header")
        if not storage.data_path.is_file():  # a pipe would wait for ever
            raise ScanError(f"{storage.source}: {name} is no plain file; allowed is a file of voxels")
        found = storage.data_path.stat().st_size
    except OSError as error:
        raise ScanError(f"{storage.source}: {name} cannot be read: {error.strerror or error}") from None
    size = " x ".join(str(n) for n in reversed(storage.shape))
    if storage.compression:
        if needed > MAX_DEFLATE_RATIO * found:
            raise ScanError(
                f"{storage.source}: {size} voxels of {storage.dtype} cannot be in the {found} bytes of {name}; "
                f"the file is truncated or the header wrong; copy or convert the scan again"
            )
        return
    available = found - max(storage.offset_bytes, 0)
    if available < needed or (available > needed and storage.offset_bytes >= 0):
        what = "is truncated" if available < needed else "is longer than its header says"
        raise ScanError(
            f"{storage.source}: {name} {what}: found {max(available, 0)} bytes of voxels, "
            f"{size} of {storage.dtype} are {needed} bytes; copy or convert the scan again"
        )


def _pieces(storage: Storage, file: BinaryIO) -> Iterator[bytes]:
    """The voxels' bytes, inflated, in pieces of any length; ends early where the file does."""
    if not storage.compression:
        if storage.offset_bytes < 0:
            file.seek(-storage.size_bytes, 2)
        else:
            file.seek(storage.offset_bytes)
        while piece := file.read(PIECE_BYTES * 8):
            yield piece
        return
    skip = 0
    if storage.compression == "gzip-all":
        skip = storage.offset_bytes
    else:
        file.seek(storage.offset_bytes)
    for piece in _inflate(file, gzip=storage.compression != "zlib"):
        if skip:
            dropped = min(skip, len(piece))
            skip -= dropped
            piece = piece[dropped:]
        yield piece


def _inflate(file: BinaryIO, gzip: bool) -> Iterator[bytes]:
    """Inflate a zlib stream, or one or several gzip members; their checksums are verified by it."""
    window_bits = 31 if gzip else 15
    inflater = isal_zlib.decompressobj(window_bits)
    while piece := file.read(PIECE_BYTES):
        while piece:
            if inflater.eof:
                if not gzip or piece[:1] != b"\x1f":  # whatever follows is no part of the stream
                    return
                inflater = isal_zlib.decompressobj(window_bits)
            # the limit keeps a bomb from filling memory: one piece may inflate a thousandfold
            yield inflater.decompress(piece, PIECE_BYTES * 8)
            piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if not inflater.eof:
        yield inflater.flush()


def _fill(storage: Storage, pieces: Iterator[bytes], flat: NDArray[np.int16]) -> None:
    """Convert piece after piece into `flat`; a voxel cut in two waits for its other half."""
    source, name, item = storage.source, storage.data_path.name, storage.dtype.itemsize
    position, cut = 0, b""
    for piece in pieces:
        if cut:
            piece = cut + piece
        count = len(piece) // item
        cut = piece[count * item :]
        if position + count > flat.size or (position + count == flat.size and cut):
            raise ScanError(
                f"{source}: {name} holds more voxels than the {flat.size} of its header; convert the scan again"
            )
        if count:
            values = np.frombuffer(piece, dtype=storage.dtype, count=count)
            put_hu(values, storage.slope, storage.intercept, flat[position : position + count], source)
        position += count
    if position < flat.size:
        raise ScanError(
            f"{source}: {name} is truncated: found {position} of {flat.size} voxels "
            f"({100 * position // flat.size} %); copy or convert the scan again"
        )
