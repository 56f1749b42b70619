"""NIfTI-1 headers (.nii, .nii.gz): where the voxels are.

Only what ITK accepts in silence is checked here (it replaces a spacing of 0 or NaN by 1, and a sheared sform by the
qform); spacing, origin and direction are read by ITK itself. Fields and offsets as in the NIfTI-1 standard's nifti1.h.
"""

import struct
import zlib
from math import isfinite
from pathlib import Path

import numpy as np

from runtime.errors import ScanError
from runtime.grid_check import ORTHONORMAL_TOLERANCE
from runtime.stored_voxels import Storage, check_shape

HEADER_BYTES = 348

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def read_nifti_header(path: Path) -> Storage:
    """Where the voxels of the NIfTI file `path` are and how they are written.

    Raises:
        ScanError: no NIfTI-1, or a field that says what cannot be read.
    """
    name, zipped = path.name, path.suffix.lower() == ".gz"
    head = _head(path, zipped)
    order = "<" if head[:4] == (348).to_bytes(4, "little") else ">"
    if len(head) < HEADER_BYTES or struct.unpack_from(order + "i", head)[0] != 348 or head[344:348] != b"n+1\0":
        raise ScanError(
            f"{name}: no NIfTI-1 header with voxels in the same file (truncated, NIfTI-2 or a .hdr/.img pair?); "
            f"convert the scan to .nii or .mha"
        )

    def field(letters: str, offset: int) -> tuple[float, ...]:
        return struct.unpack_from(order + letters, head, offset)

    axes, *size = (int(n) for n in field("8h", 40))
    while axes > 3 and axes <= 7 and size[axes - 1] == 1:  # a fourth axis of length 1 is common and harmless
        axes -= 1
    if not 1 <= axes <= 7:
        raise ScanError(f"{name}: dim[0] is {axes}; allowed is 3, the number of axes")
    shape = check_shape(tuple(reversed(size[:axes])), name, "dim")
    spacing = field("3f", 80)
    if not all(isfinite(s) and s > 0 for s in spacing):
        found = ", ".join(f"{s:g}" for s in spacing)
        raise ScanError(f"{name}: pixdim is ({found}); allowed are three positive numbers; correct the header")
    (code,) = field("h", 70)
    if code not in TYPES:
        raise ScanError(f"{name}: datatype is {int(code)} (colour, complex or unknown); allowed are {_codes()}")
    (start,) = field("f", 108)
    if not (isfinite(start) and HEADER_BYTES <= start < 2**31):
        raise ScanError(f"{name}: vox_offset is {start:g}; allowed is 352 or more, where the voxels begin")
    slope, intercept = field("2f", 112)
    if slope == 0 or not (isfinite(slope) and isfinite(intercept)):  # the standard: 0 means that nothing is scaled
        slope, intercept = 1.0, 0.0
    qform, sform = field("2h", 252)
    if sform > 0:
        _check_sform(np.array(field("12f", 280), dtype=np.float64).reshape(3, 4)[:, :3], name)
    notes = () if qform > 0 or sform > 0 else ("neither qform_code nor sform_code is set: axial slices assumed",)
    dtype = np.dtype(TYPES[int(code)]).newbyteorder("<" if order == "<" else ">")
    return Storage(name, path, int(start), dtype, shape, "gzip-all" if zipped else "", slope, intercept, notes)


def _head(path: Path, zipped: bool) -> bytes:
    with path.open("rb") as file:
        first = file.read(HEADER_BYTES if not zipped else 1 << 14)
    if not zipped:
        return first
    try:
        return zlib.decompressobj(31).decompress(first, HEADER_BYTES)
    except zlib.error:
        raise ScanError(f"{path.name}: no gzip file, as its name says, or a damaged one; copy the scan again") from None


def _check_sform(columns: np.ndarray, name: str) -> None:
    """Refuse a sheared or singular sform."""
    lengths = np.linalg.norm(columns, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = columns / lengths
        error = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if not error <= ORTHONORMAL_TOLERANCE:
        rows = "; ".join(", ".join(f"{v:.4g}" for v in row) for row in columns)
        raise ScanError(
            f"{name}: the sform's direction is ({rows}), whose axes are not at right angles; "
            f"allowed is an orthonormal matrix; resample the scan to such axes"
        )


def _codes() -> str:
    return ", ".join(f"{code} ({np.dtype(kind).name})" for code, kind in TYPES.items())
