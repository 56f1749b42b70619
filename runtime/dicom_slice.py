"""One DICOM file: is it one, and what does its header say?

Headers are read by pydicom, which hands over what is written, right or wrong.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from runtime.errors import ScanError
from runtime.quiet import captured_prints

UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
"""SOP class of CT images; with .1 behind it, of enhanced (multi-frame) ones."""


@dataclass(frozen=True)
class SliceHeader:
    """What one file's header says about its slice.

    Attributes:
        path: the file.
        series_uid, description, modality: as written, "" where missing.
        is_localizer: a scout image (ImageType LOCALIZER).
        frames: 1 but for multi-frame files.
        size: (rows, columns).
        position_mm: world (x, y, z) of the centre of the first pixel, None where missing.
        row_direction, column_direction: world directions in which a row (x) and a column (y) run, None where missing.
        spacing_mm: of pixels along x and y, None where missing.
        slope, intercept: HU = stored * slope + intercept.
        has_rescale: whether both were written.
        tilt_degrees: GantryDetectorTilt, 0 where missing.
        samples, bits_allocated, bits_stored, signed, padding: the pixels' format.
        syntax: UID of the transfer syntax.
    """

    path: Path
    series_uid: str
    description: str
    modality: str
    is_localizer: bool
    frames: int
    size: tuple[int, int]
    position_mm: tuple[float, ...] | None
    row_direction: tuple[float, ...] | None
    column_direction: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    slope: float
    intercept: float
    has_rescale: bool
    tilt_degrees: float
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    padding: int | None
    syntax: str


def read_slice_header(path: Path, source: str) -> SliceHeader | None:
    """The header of one DICOM file, or None if it holds no image (a report, a contour, a presentation state).

    Raises:
        ScanError: a CT header that breaks off, or one that holds nonsense where numbers must be.
    """
    data = read_dataset(path, source, stop_before_pixels=True)
    meta = getattr(data, "file_meta", {})
    rows, columns = _number(data, "Rows", path, source), _number(data, "Columns", path, source)
    if not rows or not columns:
        kind = _text(data, "SOPClassUID", path, source) or _text(meta, "MediaStorageSOPClassUID", path, source)
        if kind and not kind.startswith(CT_IMAGE):
            return None
        raise ScanError(f"{source}: {path.name} is truncated: its header has no Rows and Columns; copy it again")
    direction = _numbers(data, "ImageOrientationPatient", 6, path, source)
    spacing = _numbers(data, "PixelSpacing", 2, path, source)
    slope, intercept = (_number(data, key, path, source) for key in ("RescaleSlope", "RescaleIntercept"))
    bits = _number(data, "BitsAllocated", path, source) or 16
    return SliceHeader(
        path=path,
        series_uid=_text(data, "SeriesInstanceUID", path, source),
        description=_text(data, "SeriesDescription", path, source),
        modality=_text(data, "Modality", path, source),
        is_localizer="LOCALIZER" in _text(data, "ImageType", path, source).upper(),
        frames=int(_number(data, "NumberOfFrames", path, source) or 1),
        size=(int(rows), int(columns)),
        position_mm=_numbers(data, "ImagePositionPatient", 3, path, source),
        row_direction=direction[:3] if direction else None,
        column_direction=direction[3:] if direction else None,
        spacing_mm=(spacing[1], spacing[0]) if spacing else None,  # DICOM writes the distance of rows first
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        has_rescale=slope is not None and intercept is not None,
        tilt_degrees=_number(data, "GantryDetectorTilt", path, source) or 0.0,
        samples=int(_number(data, "SamplesPerPixel", path, source) or 1),
        bits_allocated=int(bits),
        bits_stored=int(_number(data, "BitsStored", path, source) or bits),
        signed=bool(_number(data, "PixelRepresentation", path, source)),
        padding=_padding(data, path, source),
        syntax=_text(meta, "TransferSyntaxUID", path, source) or UNCOMPRESSED[0],
    )


BAD_FIELD = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    EOFError,
    struct.error,
    BytesLengthException,
)
"""What pydicom raises over damaged files and fields; fields only when they are looked at."""


def read_dataset(path: Path, source: str, stop_before_pixels: bool = False) -> Any:
    """pydicom's data set of a file.

    Raises:
        ScanError: a file that cannot be opened or parsed.
    """
    try:
        with captured_prints():
            return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=True)
    except OSError as error:
        raise ScanError(f"{source}: {path.name} cannot be read: {error.strerror or error}") from None
    except (*BAD_FIELD, InvalidDicomError) as error:
        said = _clean(error)[:120] or type(error).__name__
        raise ScanError(f"{source}: {path.name} is damaged or truncated ({said}); copy the scan again") from None


def read_field(data: Any, key: str, path: Path, source: str) -> Any:
    """A field's value, None where it is missing or empty.

    Raises:
        ScanError: a value that cannot be converted.
    """
    try:
        value = data.get(key)
    except BAD_FIELD:
        raise ScanError(f"{source}: {path.name}: {key} is damaged; copy the scan again") from None
    return None if value is None or (isinstance(value, str | bytes) and not value) else value


def _text(data: Any, key: str, path: Path, source: str) -> str:
    """A field in one line of printable signs, "" where it is missing."""
    return _clean(read_field(data, key, path, source))


def _clean(value: object) -> str:
    shown = "" if value is None else str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def _number(data: Any, key: str, path: Path, source: str) -> float | None:
    numbers = _numbers(data, key, 1, path, source)
    return numbers[0] if numbers else None


def _numbers(data: Any, key: str, count: int, path: Path, source: str) -> tuple[float, ...] | None:
    """`count` finite numbers, or None where the field is missing or empty."""
    value = read_field(data, key, path, source)
    if value is None:
        return None
    try:
        numbers = tuple(float(v) for v in ((value,) if count == 1 else tuple(value)))
    except (ValueError, TypeError, OverflowError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ScanError(
            f"{source}: {path.name}: {key} is {_clean(value)[:60]}; allowed are {count} finite numbers; "
            f"export the series again"
        )
    return numbers


def _padding(data: Any, path: Path, source: str) -> int | None:
    """PixelPaddingValue where there is one that makes sense; it is not worth an error."""
    try:
        return int(read_field(data, "PixelPaddingValue", path, source))
    except (ValueError, TypeError, ScanError):
        return None
