"""A scan of any format as one array of Hounsfield units and the grid it lies on."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.find_scans import ScanSource, find_scan
from runtime.grid import Grid
from runtime.scan_file import read_scan_file


@dataclass(frozen=True)
class Volume:
    """A scan in canonical orientation.

    Attributes:
        hu: int16 (z, y, x), contiguous, in Hounsfield units; nothing below hounsfield.FLOOR_HU (-1024). By permuting
            and flipping axes alone it is as near to axial as possible: x runs to the patient's left, y to the back,
            z to the head. An oblique scan stays oblique: `grid` knows.
        grid: of `hu`.
        file_grid: of the array as it is stored. DICOM slices count upwards along the normal of their rows and columns.
        seriesuid: SeriesInstanceUID of DICOM, else the file's name without suffix (in LUNA16 that is the UID).
        source: file or folder, for messages.
        notes: one line each: what was assumed or left out when reading.
    """

    hu: NDArray[np.int16]
    grid: Grid
    file_grid: Grid
    seriesuid: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of the voxels, whether they are there or not."""
        return 2 * prod(self.grid.shape)

    def without_voxels(self) -> "Volume":
        """The same scan with an empty `hu`, for those who need its geometry and its name alone."""
        return replace(self, hu=np.empty((0, 0, 0), np.int16))


def read_volume(source: str | Path | ScanSource, threads: int = 1) -> Volume:
    """Read a whole scan.

    Memory: the int16 voxels, twice if the file's axes have to be turned.

    Args:
        source: a .mhd, .mha, .nii, .nii.gz or .nrrd file, a folder with the DICOM files of one CT series,
            FOLDER#SeriesInstanceUID where there are several, or what `find_scans` found.
        threads: to compute with.

    Raises:
        ScanError: a scan that cannot be read whole and trusted; one line that says why and what to do.
    """
    scan = source if isinstance(source, ScanSource) else find_scan(source)
    if scan.kind == "dicom":
        from runtime.dicom import read_dicom_series  # pydicom takes half a second to import

        stored = read_dicom_series(scan.path, scan.seriesuid, threads)
    else:
        stored = read_scan_file(scan.path, threads)
    permutation, flips = stored.grid.to_canonical()
    flipped = tuple(axis for axis, flip in enumerate(flips) if flip)
    hu = np.ascontiguousarray(np.flip(np.transpose(stored.hu, permutation), flipped))
    return Volume(hu, stored.grid.moved(permutation, flips), stored.grid, stored.seriesuid, str(scan), stored.notes)
