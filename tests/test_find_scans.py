"""Which scans the paths of a command line name."""

import time
from pathlib import Path

import pytest
from scan_files import small_grid, small_scan, write_dicom, write_scan

from runtime.errors import ScanError
from runtime.find_scans import ScanSource, find_scan, find_scans


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 300)


def dicom(folder: Path) -> Path:
    return write_dicom(folder, small_scan()[:1], small_grid())


def test_files_by_their_suffix(tmp_path: Path) -> None:
    names = {"a.mhd": "metaimage", "B.MHA": "metaimage", "c.nii": "nifti", "d.nii.gz": "nifti", "e.nrrd": "nrrd"}
    for name, kind in names.items():
        touch(tmp_path / name)
        assert find_scans([tmp_path / name]) == (ScanSource(tmp_path / name, kind, name.split(".")[0]),)


def test_a_seriesuid_keeps_its_dots(tmp_path: Path) -> None:
    touch(tmp_path / "1.3.6.1.4.1.14519.mhd", tmp_path / "1.2.3.nii.gz")
    assert [s.seriesuid for s in find_scans([tmp_path])] == ["1.2.3", "1.3.6.1.4.1.14519"]


def test_a_folder_of_files_is_sorted_and_its_voxel_files_are_not_scans(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("c.mhd", "c.raw", "a.mhd", "a.zraw", "b.nrrd", "notes.txt", ".hidden.mhd")))
    assert [s.path.name for s in find_scans([tmp_path])] == ["a.mhd", "b.nrrd", "c.mhd"]


def test_a_mixed_tree(tmp_path: Path) -> None:
    touch(tmp_path / "z.mhd", tmp_path / "results" / "mask.mhd", tmp_path / "results" / "report.pdf")
    dicom(tmp_path / "patient2" / "study" / "series")
    dicom(tmp_path / "patient1")
    found = find_scans([tmp_path])
    assert [(s.path.relative_to(tmp_path).as_posix(), s.kind) for s in found] == [
        ("z.mhd", "metaimage"),
        ("patient1", "dicom"),
        ("patient2/study/series", "dicom"),
    ]


def test_a_folder_with_dicom_and_other_scans(tmp_path: Path) -> None:
    dicom(tmp_path)
    write_scan(tmp_path / "a.nii.gz", small_scan(), small_grid())
    assert [s.kind for s in find_scans([tmp_path])] == ["dicom", "nifti"]


def test_the_order_of_the_paths_is_kept_and_doubles_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.mhd", tmp_path / "b.mhd")
    monkeypatch.chdir(tmp_path)
    found = find_scans(["b.mhd", tmp_path, tmp_path / "a.mhd", "./b.mhd"])
    assert [s.path.name for s in found] == ["b.mhd", "a.mhd"]


def test_one_series_of_a_folder(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "two")
    (source,) = find_scans([f"{folder}#1.2.3"])
    assert source == ScanSource(folder, "dicom", "1.2.3")
    assert str(source) == f"{folder}#1.2.3"
    assert len(find_scans([f"{folder}#1.2.3", f"{folder}#1.2.4"])) == 2


def test_a_folder_whose_name_has_the_mark(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "patient#7")
    assert find_scan(folder) == ScanSource(folder, "dicom")


def test_two_scans_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.mhd", tmp_path / "b" / "x.nii.gz")
    with pytest.raises(ScanError, match="same name x"):
        find_scans([tmp_path / "a", tmp_path / "b"])


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    touch(tmp_path / "report.pdf")
    with pytest.raises(ScanError, match=r"no scan found; allowed are \.mhd"):
        find_scans([tmp_path])
    touch(tmp_path / "deep" / "er" / "a.mhd")
    with pytest.raises(ScanError, match="er holds scan files: name that folder"):
        find_scans([tmp_path])
    with pytest.raises(ScanError, match="no scan given"):
        find_scans([])
    with pytest.raises(ScanError, match=r"gone\.mhd: no such file"):
        find_scans([tmp_path / "gone.mhd"])
    with pytest.raises(ScanError, match=r"gone#1\.2: no such file"):
        find_scans([f"{tmp_path}/gone#1.2"])
    with pytest.raises(ScanError, match="unknown kind of file"):
        find_scans([tmp_path / "report.pdf"])


def test_one_dicom_file_is_no_scan(tmp_path: Path) -> None:
    folder = dicom(tmp_path / "one")
    with pytest.raises(ScanError, match="give the folder of all its slices"):
        find_scans([folder / "IM0000"])


def test_one_scan_is_wanted(tmp_path: Path) -> None:
    touch(tmp_path / "a.mhd", tmp_path / "b.mhd")
    with pytest.raises(ScanError, match=r"holds 2 scans; name one of them, such as .*a\.mhd"):
        find_scan(tmp_path)


def test_the_time_of_a_listing_grows_with_the_files_not_with_their_square(tmp_path: Path) -> None:
    def least_s(count: int) -> float:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:04d}.mhd").touch()
            (folder / f"{number:04d}.zraw").touch()
        taken = []
        for _ in range(5):
            start = time.process_time()
            assert len(find_scans([folder])) == count
            taken.append(time.process_time() - start)
        return min(taken)

    assert least_s(2000) < 40 * least_s(200)  # 10 times the files; a busy machine slows both, their square would be 100
