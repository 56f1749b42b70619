"""NRRD headers (.nrrd): where the voxels are.

Only what ITK accepts in silence is checked here (it takes any `space` for LPS, and spacing 1 where none is given);
spacing, origin and direction are read by ITK itself. Fields as in teem's definition of the format.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import numpy as np

from runtime.errors import ScanError
from runtime.stored_voxels import Storage, check_shape

HEADER_BYTES = 1 << 18
"""A header ends well before, even with many key:=value lines."""

_TYPE_NAMES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPES = {name: kind for kind, names in _TYPE_NAMES.items() for name in names.split(", ")}

SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)
"""The spaces whose axes ITK turns into LPS."""

_ALIASES = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}

ENCODINGS = {"raw": "", "gzip": "gzip", "gz": "gzip"}


def read_nrrd_header(path: Path) -> Storage:
    """Where the voxels of the NRRD file `path` are and how they are written.

    Raises:
        ScanError: no NRRD, a field that is missing, or that says what cannot be read.
    """
    name = path.name
    fields, end = _fields(path)
    for needed in ("dimension", "sizes", "type", "encoding"):
        if needed not in fields:
            raise ScanError(f"{name}: the header has no {needed}, without which a scan cannot be read; export it again")
    try:
        size = [int(word) for word in fields["sizes"].split()]
        agree = int(fields["dimension"]) == len(size)
    except ValueError:
        agree = False
    if not agree:
        raise ScanError(
            f"{name}: sizes is {fields['sizes']} with dimension {fields['dimension']}; allowed are 3 numbers and 3"
        )
    shape = check_shape(tuple(reversed(size)), name, "sizes")
    kind = TYPES.get(fields["type"].lower())
    if kind is None:
        raise ScanError(f"{name}: type is {fields['type']}; allowed are integers, float and double")
    encoding = ENCODINGS.get(fields["encoding"].lower())
    if encoding is None:
        raise ScanError(f"{name}: encoding is {fields['encoding']}; allowed are raw and gzip; convert the scan")
    endian = fields.get("endian", "little" if kind[1] == "1" else "").lower()
    if endian not in ("little", "big"):
        raise ScanError(f"{name}: endian is {endian or 'missing'}; allowed are little and big")
    notes = _check_space(fields, name)
    data_path, offset = _place(path, fields, end)
    if encoding and offset < 0:
        raise ScanError(f"{name}: byte skip is -1 with gzip; allowed is 0 or more")
    dtype = np.dtype(kind).newbyteorder("<" if endian == "little" else ">")
    return Storage(name, data_path, offset, dtype, shape, encoding, notes=notes)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, names in small letters without blanks at the ends, and its length in bytes."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head.startswith(b"NRRD000"):
        raise ScanError(
            f"{path.name}: no NRRD header (a first line NRRD0001 or so) found; is it another format, or damaged?"
        )
    fields: dict[str, str] = {}
    position = head.find(b"\n") + 1
    while 0 < position < len(head):
        stop = head.find(b"\n", position)
        stop = len(head) if stop < 0 else stop
        line = head[position:stop].decode("latin-1").rstrip("\r")
        position = stop + 1
        if not line:
            return fields, position
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            key = key.strip().lower()
            fields[_ALIASES.get(key, key)] = value.strip()
    if "data file" in fields:
        return fields, position
    raise ScanError(f"{path.name}: the NRRD header does not end (with an empty line); is the file truncated?")


def _check_space(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Refuse what ITK would guess at; returns notes."""
    given = fields.get("space directions", fields.get("spacings"))
    if given is None:
        raise ScanError(f"{name}: the header has neither space directions nor spacings; export the scan again")
    words = given.replace("(", " ").replace(")", " ").replace(",", " ").split()
    try:
        fine = len(words) in (3, 9) and all(isfinite(float(word)) for word in words)
    except ValueError:
        fine = False
    if not fine:
        raise ScanError(f"{name}: space directions or spacings is {given}; allowed are finite numbers for three axes")
    units = fields.get("space units", "").replace('"', " ").split()
    if any(unit.lower() not in ("mm", "millimeter", "millimetre") for unit in units):
        raise ScanError(f"{name}: space units is {fields['space units']}; allowed is mm")
    space = fields.get("space")
    if space is None:
        return ("the header has no space: left-posterior-superior assumed",)
    if space.lower() not in SPACES:
        raise ScanError(f"{name}: space is {space}; allowed are {', '.join(SPACES[:3])}")
    return ()


def _place(path: Path, fields: Mapping[str, str], end: int) -> tuple[Path, int]:
    """File of the voxels, and the bytes before them (-1: count from the file's end)."""
    data_file = fields.get("data file")
    if data_file is not None and (not data_file or data_file.upper().startswith("LIST") or "%" in data_file):
        raise ScanError(f"{path.name}: data file is {data_file or 'empty'}; allowed is one file; convert the scan")
    if fields.get("line skip", "0") != "0":
        raise ScanError(f"{path.name}: line skip is not 0; allowed is 0; convert the scan")
    skip = fields.get("byte skip", "0")
    try:
        offset = int(skip)
    except ValueError:
        offset = -2
    if offset < -1:
        raise ScanError(f"{path.name}: byte skip is {skip}; allowed is a number of bytes, or -1")
    if data_file is None:
        return path, end + offset if offset >= 0 else -1
    return path.parent / data_file, offset
