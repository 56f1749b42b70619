"""Writes small test scans in every format; used by the tests of reading."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from runtime.grid import Grid

SHAPE = (9, 11, 13)
SPACING_MM = (0.7, 0.8, 2.5)
ORIGIN_MM = (-31.5, 12.25, -140.0)
BRIGHT = (2, 7, 4)
"""(z, y, x) of the one bright voxel; in no axis near the middle or its own mirror image."""

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"


def small_grid(direction: Any = None, shape: tuple[int, int, int] = SHAPE) -> Grid:
    """A grid of `shape` with a direction matrix (3, 3), axial if None."""
    matrix = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64)
    return Grid(shape, SPACING_MM, ORIGIN_MM, tuple(float(v) for v in (matrix + 0.0).ravel()))


def small_scan(shape: tuple[int, int, int] = SHAPE, bright: tuple[int, int, int] = BRIGHT) -> NDArray[np.int16]:
    """Lung of -800 HU with a rim of tissue in slice 0 and one voxel of 1500 HU."""
    hu = np.full(shape, -800, dtype=np.int16)
    hu[0, 0, :] = 40
    hu[bright] = 1500
    return hu


def signed_permutations() -> Iterator[NDArray[np.float64]]:
    """All 48 direction matrices whose axes run along the world's, mirrored ones included."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            yield np.eye(3)[:, list(order)] * signs


def rotation(seed: int, largest_degrees: float = 40.0) -> NDArray[np.float64]:
    """A rotation about a random axis by up to `largest_degrees` (Rodrigues' formula)."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(random.uniform(0.3, 1.0) * largest_degrees)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def write_scan(path: Path, hu: NDArray[Any], grid: Grid, compress: bool = False) -> Path:
    """Write an array of any type as .mhd, .mha, .nii, .nii.gz or .nrrd by SimpleITK."""
    image = SimpleITK.GetImageFromArray(hu)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    SimpleITK.WriteImage(image, str(path), compress)
    return path


def write_dicom(
    folder: Path,
    hu: NDArray[np.int16],
    grid: Grid,
    *,
    series_uid: str = SERIES_UID,
    prefix: str = "IM",
    leave_out: tuple[int, ...] = (),
    edit: Callable[[pydicom.Dataset, int], None] | None = None,
) -> Path:
    """Write a CT series, one uncompressed file for each slice of `hu`, stored unsigned with intercept -1024.

    Names and instance numbers tell nothing of the order: slice i is called after 7 * i modulo the number of slices.

    Args:
        leave_out: slices that are not written.
        edit: changes the data set of slice i before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cosines = np.asarray(grid.direction).reshape(3, 3)
    for index, plane in enumerate(hu):
        if index in leave_out:
            continue
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{series_uid}.{index + 1}"
        data.Modality = "CT"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.SeriesInstanceUID = series_uid
        data.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.9"
        data.SeriesDescription = "Chest 2.5 lung"
        data.InstanceNumber = (7 * index) % len(hu) + 1
        data.ImagePositionPatient = [f"{v:.6f}" for v in grid.to_world((index, 0, 0))]
        data.ImageOrientationPatient = [f"{v:.9f}" for v in (*cosines[:, 0], *cosines[:, 1])]
        data.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]
        data.SliceThickness = grid.spacing_mm[2]
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel = 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (plane.astype(np.int32) + 1024).clip(0).astype("<u2").tobytes()
        if len(data.PixelData) % 2:
            data.PixelData += b"\0"
        if edit is not None:
            edit(data, index)
        data.save_as(folder / f"{prefix}{(7 * index) % len(hu):04d}", enforce_file_format=True)
    return folder
