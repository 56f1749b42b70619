"""Scans in one file: MetaImage, NIfTI and NRRD.

To add a format: write a module whose function tells where the voxels of a file are (`Storage`), and add its suffix
to `FORMATS`. ITK, which must know the format too, reads the geometry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.grid_check import check_grid
from runtime.hounsfield import check_hounsfield
from runtime.metaimage_header import read_metaimage_header
from runtime.nifti_header import read_nifti_header
from runtime.nrrd_header import read_nrrd_header
from runtime.quiet import captured_prints
from runtime.stored_voxels import Storage, check_length, read_stored

FORMATS: dict[str, tuple[str, Callable[[Path], Storage]]] = {
    ".mhd": ("metaimage", read_metaimage_header),
    ".mha": ("metaimage", read_metaimage_header),
    ".nii": ("nifti", read_nifti_header),
    ".nii.gz": ("nifti", read_nifti_header),
    ".nrrd": ("nrrd", read_nrrd_header),
}
"""Suffix in small letters -> name of the format, reader of its header."""


@dataclass(frozen=True)
class StoredScan:
    """A scan as it is stored.

    Attributes:
        hu: int16 (z, y, x) in Hounsfield units, axes as in the file.
        grid: of `hu`.
        seriesuid: SeriesInstanceUID, or the file's name without its suffix.
        notes: what the user should know about how it was read.
    """

    hu: NDArray[np.int16]
    grid: Grid
    seriesuid: str
    notes: tuple[str, ...] = ()


def scan_suffix(path: Path) -> str | None:
    """The key of `FORMATS` that the file's name ends with, or None."""
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix) and len(name) > len(suffix)), None)


def scan_stem(path: Path) -> str:
    """The file's name without the format's suffix: "a.nii.gz" -> "a"; LUNA16's names are the series UIDs."""
    suffix = scan_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def read_scan_file(path: Path, threads: int = 1) -> StoredScan:
    """Read a scan of one file (or of a header and its voxel file).

    Raises:
        ScanError: a file that cannot be read whole, or that is no chest CT in Hounsfield units.
    """
    name, suffix = path.name, scan_suffix(path)
    if suffix is None:
        raise ScanError(f"{name}: unknown kind of file; allowed are {', '.join(FORMATS)} and folders of DICOM files")
    try:
        if path.stat().st_size == 0:
            raise ScanError(f"{name}: the file is empty; copy the scan again")
        storage = FORMATS[suffix][1](path)
        check_length(storage)
        grid = _read_grid(path, storage.shape)
    except OSError as error:
        raise ScanError(f"{name}: cannot be read: {error.strerror or error}") from None
    notes = storage.notes + check_grid(grid, name)
    hu = read_stored(storage, threads)
    check_hounsfield(hu, name)
    return StoredScan(hu, grid, scan_stem(path), notes)


def _read_grid(path: Path, shape: tuple[int, int, int]) -> Grid:
    """The geometry as ITK understands it; reads the header alone."""
    import SimpleITK  # here, so that scans can be looked for and a model loaded meanwhile

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    with captured_prints() as printed:
        try:
            reader.ReadImageInformation()
            problem = ""
        except RuntimeError as error:
            problem = essence(str(error), path)
    if problem:
        raise ScanError(f"{path.name}: ITK cannot read the header: {'; '.join([problem, *printed[:1]])}")
    size, direction, axes = reader.GetSize(), reader.GetDirection(), reader.GetDimension()
    if tuple(size[2::-1]) != shape:
        raise ScanError(f"{path.name}: ITK finds {size} voxels where {shape[::-1]} were found; convert the scan")
    x, y, z = reader.GetSpacing()[:3]
    origin_x, origin_y, origin_z = reader.GetOrigin()[:3]
    rows = [float(direction[axes * row + column]) for row in range(3) for column in range(3)]
    return Grid(shape, (x, y, z), (origin_x, origin_y, origin_z), tuple(rows))


def essence(message: str, path: Path) -> str:
    """What an ITK exception says of `path`, in one line without the folders, source files and addresses around it."""
    message = message.replace(str(path), path.name).replace(str(path.resolve()), path.name)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line.partition("ERROR: ")[2] for line in lines if "ERROR: " in line] or lines[-1:]
    said = telling[-1] if telling else "unknown error"
    head, colon, rest = said.partition("): ")
    return rest if colon and "(0x" in head else said
