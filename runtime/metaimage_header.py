"""MetaImage headers (.mhd with a voxel file beside it, .mha with the voxels inside): where the voxels are.

Only what ITK accepts in silence is checked here; spacing, origin and direction are read by ITK itself.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import numpy as np

from runtime.errors import ScanError
from runtime.stored_voxels import Storage, check_shape

HEADER_BYTES = 1 << 16
"""A header ends well before; beyond that the file is something else."""

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage_header(path: Path) -> Storage:
    """Where the voxels of the MetaImage `path` are and how they are written.

    Raises:
        ScanError: a field that is missing, or that says what cannot be read.
    """
    name = path.name
    fields, end = _fields(path)
    for needed in ("NDims", "DimSize", "ElementSpacing", "ElementType"):
        if needed not in fields:
            raise ScanError(f"{name}: the header has no {needed}, which a scan needs; export it again")
    axes = _numbers(fields, "NDims", 1, name)[0]
    size = _numbers(fields, "DimSize", int(axes), name)
    if any(not n.is_integer() for n in (axes, *size)):
        raise ScanError(f"{name}: DimSize is {fields['DimSize']}; allowed are whole numbers")
    shape = check_shape(tuple(int(n) for n in reversed(size)), name, "DimSize")
    if not all(n > 0 for n in _numbers(fields, "ElementSpacing", 3, name)):
        raise ScanError(f"{name}: ElementSpacing is {fields['ElementSpacing']}; allowed are three positive mm")
    notes = []
    for key, count in (("TransformMatrix", 9), ("Offset", 3)):
        found = next((k for k in _ALIASES[key] if k in fields), None)
        if found is None:
            notes.append(f"the header has no {key}: {'axial slices' if count == 9 else 'origin 0, 0, 0'} assumed")
        else:
            _numbers(fields, found, count, name)
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        raise ScanError(f"{name}: ElementNumberOfChannels is {channels}; allowed is 1, a grey image in HU")
    kind = TYPES.get(fields["ElementType"])
    if kind is None:
        raise ScanError(f"{name}: ElementType is {fields['ElementType']}; allowed are {', '.join(TYPES)}")
    if not _flag(fields, "BinaryData", True, name):
        raise ScanError(f"{name}: BinaryData is False (voxels as text); allowed is True; convert the scan")
    big = _flag(fields, "BinaryDataByteOrderMSB", _flag(fields, "ElementByteOrderMSB", False, name), name)
    data_path, offset = _place(path, fields, end)
    compressed = _flag(fields, "CompressedData", False, name)
    if compressed and offset < 0:
        raise ScanError(f"{name}: HeaderSize is -1 with compressed voxels; allowed is 0 or more")
    dtype = np.dtype(kind).newbyteorder(">" if big else "<")
    return Storage(name, data_path, offset, dtype, shape, "zlib" if compressed else "", notes=tuple(notes))


_ALIASES = {
    "TransformMatrix": ("TransformMatrix", "Rotation", "Orientation"),
    "Offset": ("Offset", "Position", "Origin"),
}


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, and its length in bytes; ElementDataFile is the last of them."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    fields: dict[str, str] = {}
    position = 0
    while position < len(head):
        stop = head.find(b"\n", position)
        stop = len(head) if stop < 0 else stop
        key, equals, value = head[position:stop].decode("latin-1").partition("=")
        position = stop + 1
        if not equals and key.strip():
            break
        if equals:
            fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, position
    raise ScanError(
        f"{path.name}: no MetaImage header (lines KEY = VALUE that end with ElementDataFile) found; "
        f"is it truncated, or another format?"
    )


def _place(path: Path, fields: Mapping[str, str], end: int) -> tuple[Path, int]:
    """File of the voxels, and the bytes before them."""
    data_file = fields["ElementDataFile"]
    if data_file.upper() == "LOCAL":
        return path, end
    if not data_file or data_file.upper() == "LIST" or "%" in data_file:
        raise ScanError(
            f"{path.name}: ElementDataFile is {data_file or 'empty'}; allowed is one file or LOCAL; convert the scan"
        )
    skip = fields.get("HeaderSize", "0")
    try:
        offset = int(skip)
    except ValueError:
        offset = -2
    if offset < -1:
        raise ScanError(f"{path.name}: HeaderSize is {skip}; allowed is a number of bytes, or -1")
    return path.parent / data_file, offset


def _numbers(fields: Mapping[str, str], key: str, count: int, name: str) -> list[float]:
    """`count` finite numbers of a field."""
    try:
        numbers = [float(word) for word in fields[key].split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(isfinite(n) for n in numbers):
        raise ScanError(f"{name}: {key} is {fields[key] or 'empty'}; allowed are {count} finite numbers")
    return numbers


def _flag(fields: Mapping[str, str], key: str, default: bool, name: str) -> bool:
    """A field that is True or False; MetaIO looks at the first letter, and so do we."""
    value = fields.get(key)
    if value is None:
        return default
    if value[:1] not in tuple("TtFf10YyNn"):
        raise ScanError(f"{name}: {key} is {value or 'empty'}; allowed are True and False")
    return value[:1] in tuple("Tt1Yy")
