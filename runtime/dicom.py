"""A folder of DICOM files as one CT scan."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.dicom_mark import looks_like_dicom
from runtime.dicom_pixels import LOSSY, put_slice
from runtime.dicom_slice import SliceHeader, read_slice_header
from runtime.dicom_stack import common_values, stack_slices
from runtime.errors import ScanError
from runtime.grid_check import check_grid
from runtime.hounsfield import check_hounsfield
from runtime.scan_file import StoredScan
from runtime.stored_voxels import check_shape
from runtime.threads import in_threads


def read_dicom_series(folder: Path, seriesuid: str | None = None, threads: int = 1) -> StoredScan:
    """Read the CT series in a folder; its subfolders are not looked into.

    Files of other kinds and images that are no CT slices (localizers, dose reports, other modalities) are left out,
    the latter with a note. Slices are sorted by place, never by name or number.

    Args:
        folder: of the DICOM files, whatever their names.
        seriesuid: SeriesInstanceUID of the series to read where the folder holds several.
        threads: slices decoded at the same time.

    Raises:
        ScanError: no series, several and none chosen, or one that is not a whole, regular stack of CT slices.
    """
    source = folder.name or folder.resolve().name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that break the standard in harmless ways
        images, empty_notes = _headers(folder, source)
        headers, notes = _ct_slices(images, source)
        notes += empty_notes
        series = _choose(headers, seriesuid, source)
        _check_uid(series[0].series_uid, source)
        slices, grid = stack_slices(series, source)
        shape = check_shape(grid.shape, source, "the series")
        notes += check_grid(grid, source)
        hu = np.empty(shape, dtype=np.int16)
        in_threads(lambda one: put_slice(one[0], one[1], source), zip(slices, hu, strict=True), threads)
    check_hounsfield(hu, source)
    if not all(header.has_rescale for header in slices):
        notes += ("RescaleSlope and RescaleIntercept are missing: stored numbers taken for HU",)
    if slices[0].syntax in LOSSY:
        notes += ("the pixels were compressed with loss",)
    return StoredScan(hu, grid, slices[0].series_uid, notes)


def _headers(folder: Path, source: str) -> tuple[list[SliceHeader], tuple[str, ...]]:
    """Of every image among the folder's DICOM files; and a note on empty files, which may have been slices."""
    try:
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path) for entry in entries if entry.is_file() and not entry.name.startswith("."))
        files = [path for path in paths if looks_like_dicom(path)]
        others = set(paths).difference(files)
        empty = sum(path.stat().st_size == 0 for path in others)
    except OSError as error:
        raise ScanError(f"{source}: cannot be read: {error.strerror or error}") from None
    for other in sorted(others):
        if other.suffix.lower() == ".dcm":
            raise ScanError(f"{source}: {other.name} is no DICOM file (cut off or empty?); copy it again or remove it")
    headers = [read_slice_header(path, source) for path in files]
    images = [header for header in headers if header is not None]
    if not images:
        raise ScanError(f"{source}: {len(files)} DICOM files and no image among them; give the folder of a CT series")
    return images, (f"ignored empty files: {empty}",) if empty else ()


def _ct_slices(images: Sequence[SliceHeader], source: str) -> tuple[list[SliceHeader], tuple[str, ...]]:
    """The CT slices among the images, and notes on what was left out."""
    slices: list[SliceHeader] = []
    left_out: list[SliceHeader] = []
    for header in images:
        (slices if header.modality in ("CT", "") and not header.is_localizer else left_out).append(header)
    if not slices:
        kinds = common_values(["localizer" if header.is_localizer else header.modality for header in images])
        raise ScanError(f"{source}: no CT slices found, only {kinds}; give the folder of a CT series")
    frames = next((header for header in slices if header.frames > 1), None)
    if frames is not None:
        raise ScanError(
            f"{source}: {frames.path.name} holds {frames.frames} frames (enhanced CT); allowed is one file for each "
            f"slice; convert it to a .nii.gz file or to single slices"
        )
    if not left_out:
        return slices, ()
    kinds = common_values(["localizer" if header.is_localizer else header.modality for header in left_out])
    return slices, (f"left out images that are no CT slices: {kinds}",)


def _check_uid(uid: str, source: str) -> None:
    """Results are named after it, so it must be there and be a name, not a path; "1.2.3" or "PHANTOM-1" is fine."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", uid):
        raise ScanError(
            f"{source}: SeriesInstanceUID is {uid[:80]!r}; allowed are digits, letters, dots and dashes; "
            f"export the series again"
        )


def _choose(slices: Sequence[SliceHeader], seriesuid: str | None, source: str) -> list[SliceHeader]:
    """The slices of the series asked for, or of the only one."""
    series: dict[str, list[SliceHeader]] = {}
    for header in slices:
        series.setdefault(header.series_uid, []).append(header)
    listed = ", ".join(
        f"{uid or '(no SeriesInstanceUID)'} ({len(members)} slices{', ' * bool(members[0].description)}"
        f"{' '.join(members[0].description.split())})"
        for uid, members in sorted(series.items())
    )
    if seriesuid is not None:
        if seriesuid not in series:
            raise ScanError(f"{source}: no series {seriesuid} found; allowed are {listed}")
        return series[seriesuid]
    if len(series) > 1:
        raise ScanError(
            f"{source}: {len(series)} series found: {listed}; allowed is one; choose with FOLDER#SeriesInstanceUID, "
            f"such as '{source}#{min(series)}'"
        )
    (uid,) = series
    return series[uid]
