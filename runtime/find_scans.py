"""Which scans the paths of a command line name.

A path is a scan file, a folder of DICOM files, or a folder of scans. A folder of scans gives every scan file directly
in it, and every folder of DICOM files at any depth below it (archives nest patient/study/series). Scan files in deeper
folders are not taken: masks and results often lie there. FOLDER#SeriesInstanceUID names one of several series
that share a folder.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.dicom_mark import looks_like_dicom
from runtime.errors import ScanError
from runtime.scan_file import FORMATS, scan_stem, scan_suffix

DATA_SUFFIXES = (
    ".raw",
    ".zraw",
    ".img",
    ".hdr",
    ".csv",
    ".txt",
    ".json",
    ".xml",
    ".png",
    ".jpg",
    ".npz",
    ".gz",
    ".zip",
)
"""Never opened in search of DICOM files: voxels of a header beside them, and what commonly lies near scans."""


@dataclass(frozen=True)
class ScanSource:
    """One scan that can be read.

    Attributes:
        path: the file, or the folder of the DICOM files.
        kind: "metaimage", "nifti", "nrrd" or "dicom".
        seriesuid: of a file its name without suffix; of DICOM the series asked for, None for the folder's only one.
    """

    path: Path
    kind: str
    seriesuid: str | None = None

    def __str__(self) -> str:
        return f"{self.path}#{self.seriesuid}" if self.kind == "dicom" and self.seriesuid else str(self.path)


def find_scans(paths: Iterable[str | Path]) -> tuple[ScanSource, ...]:
    """All scans that `paths` name: in their order, sorted by name within a folder, each once.

    A folder is only looked through, no scan is opened; of each folder with files of unknown kind the first
    bytes of these are read until one is DICOM.

    Raises:
        ScanError: a path that does not exist or holds no scan, no path at all, or two files whose scans would have
            the same name in the results.
    """
    found: dict[tuple[Path, str | None], ScanSource] = {}
    named: dict[str, ScanSource] = {}
    for path in paths:
        for source in _sources(Path(path)):
            if found.setdefault((source.path.resolve(), source.seriesuid), source) is not source:
                continue
            if source.kind != "dicom" and source.seriesuid is not None:
                other = named.setdefault(source.seriesuid, source)
                if other is not source:
                    raise ScanError(
                        f"{source.path} and {other.path} have the same name {source.seriesuid}, so the results of one "
                        f"would replace the other's; rename one, or search them one by one"
                    )
    if not found:
        raise ScanError("no scan given; give scan files, DICOM folders or folders of scans")
    return tuple(found.values())


def find_scan(path: str | Path) -> ScanSource:
    """The one scan that `path` names: a file, a DICOM folder or FOLDER#SeriesInstanceUID.

    Raises:
        ScanError: as `find_scans`, and a folder of several scans.
    """
    sources = find_scans([path])
    if len(sources) > 1:
        raise ScanError(f"{path}: holds {len(sources)} scans; name one of them, such as {sources[0]}")
    return sources[0]


def _sources(path: Path) -> Iterator[ScanSource]:
    try:
        if path.is_dir():
            yield from _folder(path)
            return
        if path.exists():
            yield _file(path)
            return
    except OSError as error:
        raise ScanError(f"{path}: cannot be read: {error.strerror or error}") from None
    folder, mark, uid = str(path).rpartition("#")
    if mark and uid and Path(folder).is_dir():
        yield ScanSource(Path(folder), "dicom", uid)
        return
    raise ScanError(f"{path}: no such file or folder")


def _file(path: Path) -> ScanSource:
    suffix = scan_suffix(path)
    if suffix is not None:
        return ScanSource(path, FORMATS[suffix][0], scan_stem(path))
    if looks_like_dicom(path):
        raise ScanError(f"{path}: is one DICOM file, a slice of a scan; give the folder of all its slices")
    raise ScanError(f"{path.name}: unknown kind of file; allowed are {', '.join(FORMATS)} and folders of DICOM files")


def _folder(path: Path) -> Iterator[ScanSource]:
    empty = True
    deeper: Path | None = None
    for folder, folders, files in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        scans, is_dicom = _sort_files(Path(folder), files)
        if is_dicom:
            yield ScanSource(Path(folder), "dicom")
        if Path(folder) == path:
            yield from (_file(scan) for scan in scans)
            empty = empty and not scans
        elif scans and deeper is None:
            deeper = Path(folder)
        empty = empty and not is_dicom
    if empty:
        where = f"; {deeper} holds scan files: name that folder" if deeper else ""
        raise ScanError(f"{path}: no scan found; allowed are {', '.join(FORMATS)} and DICOM files{where}")


def _refuse(error: OSError) -> None:
    raise ScanError(f"{error.filename}: cannot be read: {error.strerror or error}")


def _sort_files(folder: Path, names: list[str]) -> tuple[list[Path], bool]:
    """The scan files of one folder, and whether there are DICOM files too."""
    scans: list[Path] = []
    others: list[Path] = []
    for name in sorted(names):
        if name.startswith("."):
            continue
        path = folder / name
        if scan_suffix(path):
            scans.append(path)
        elif not name.lower().endswith(DATA_SUFFIXES):
            others.append(path)
    return scans, any(looks_like_dicom(other) for other in others)
