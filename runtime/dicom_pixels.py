"""The pixels of one DICOM file as Hounsfield units.

Uncompressed pixels are taken as they lie in the file; compressed ones are left to GDCM (in SimpleITK), which brings
JPEG lossless, JPEG-LS, JPEG 2000 and RLE.
"""

from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from runtime.dicom_slice import UNCOMPRESSED, SliceHeader, read_dataset, read_field
from runtime.errors import ScanError
from runtime.hounsfield import FLOOR_HU, put_hu
from runtime.quiet import captured_prints
from runtime.scan_file import essence

BIG_ENDIAN = "1.2.840.10008.1.2.2"
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")

PADDING_HU = 3071
"""A pixel padding value above this (63536 for -2000, say) cannot be tissue, and becomes the floor like those below."""


def put_slice(header: SliceHeader, out: NDArray[np.int16], source: str) -> None:
    """Write the slice's pixels as HU into `out`, (rows, columns) int16.

    Raises:
        ScanError: pixels that are missing, cut off, or in a format that cannot be read.
    """
    name = f"{source}: {header.path.name}"
    if header.samples != 1 or header.bits_allocated not in (8, 16):
        raise ScanError(
            f"{name}: {header.samples} samples of {header.bits_allocated} bits a pixel; allowed is 1 of 8 or 16"
        )
    if not 1 <= header.bits_stored <= header.bits_allocated:
        raise ScanError(f"{name}: BitsStored is {header.bits_stored}; allowed is 1 to {header.bits_allocated}")
    if not (np.isfinite([header.slope, header.intercept]).all() and header.slope != 0):
        raise ScanError(
            f"{name}: RescaleSlope is {header.slope:g} and RescaleIntercept {header.intercept:g}; "
            f"allowed are finite numbers, the slope not 0"
        )
    if header.syntax not in UNCOMPRESSED:
        _put_compressed(header, out, name)
    else:
        stored = _stored_pixels(header, source)
        put_hu(stored, header.slope, header.intercept, out, name, "pixel")
    if header.padding is not None:
        padding_hu = header.padding * header.slope + header.intercept
        if padding_hu > PADDING_HU:
            out[out == min(round(padding_hu), np.iinfo(np.int16).max)] = FLOOR_HU


def _stored_pixels(header: SliceHeader, source: str) -> NDArray[Any]:
    """(rows, columns) as stored; bits beyond BitsStored (old files keep overlays there) are dropped."""
    data = read_dataset(header.path, source)
    pixels = read_field(data, "PixelData", header.path, source) or b""
    rows, columns = header.size
    needed = rows * columns * header.bits_allocated // 8
    if len(pixels) < needed:
        raise ScanError(
            f"{source}: {header.path.name} is truncated: found {len(pixels)} bytes of pixels, {columns} x {rows} of "
            f"{header.bits_allocated} bits are {needed}; copy the scan again"
        )
    letter = ("i" if header.signed else "u") + str(header.bits_allocated // 8)
    dtype = np.dtype(letter).newbyteorder(">" if header.syntax == BIG_ENDIAN else "<")
    stored = np.frombuffer(pixels, dtype=dtype, count=rows * columns).reshape(rows, columns)
    spare = header.bits_allocated - header.bits_stored
    if spare and _has_spare_bits(stored, header):
        native = stored.astype(dtype.newbyteorder("="))
        stored = (native << spare) >> spare
    return stored


def _has_spare_bits(stored: NDArray[Any], header: SliceHeader) -> bool:
    """Whether any value, the padding apart, is beyond what BitsStored can hold."""
    top = 1 << (header.bits_stored - int(header.signed))
    low = -top if header.signed else 0
    return any(not low <= int(v) < top and int(v) != header.padding for v in (stored.min(), stored.max()))


def _put_compressed(header: SliceHeader, out: NDArray[np.int16], name: str) -> None:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    with captured_prints():
        try:
            image = reader.Execute()
            problem = ""
        except RuntimeError as error:
            problem = essence(str(error), header.path)
    syntax = pydicom.uid.UID(header.syntax).name
    if problem:
        raise ScanError(f"{name}: its pixels, compressed as {syntax}, cannot be read; decompress the scan ({problem})")
    values = SimpleITK.GetArrayFromImage(image)
    if values.size != out.size or values.dtype.kind not in "iuf":
        raise ScanError(f"{name}: found {values.shape} pixels after decompressing; allowed are {out.shape}")
    put_hu(values.reshape(out.shape), 1.0, 0.0, out, name, "pixel")  # GDCM has applied slope and intercept
