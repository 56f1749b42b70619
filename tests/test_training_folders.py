"""LUNA16's and Tianchi's folders as they come: scans and annotation files are found, masks are not taken for scans."""

from pathlib import Path

import pytest
from scan_files import SERIES_UID, small_grid, small_scan, write_dicom

from runtime.errors import ScanError
from train.dataset import DatasetError, merge_tables
from train.training_folders import TrainingSet, find_training_set, fingerprint

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"ObjectType = Image\n")
    path.with_suffix(".raw").write_bytes(b"1234")


def table(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))


def series(path: Path, *uids: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{uid}\n" for uid in uids))


def names(found: TrainingSet) -> list[str]:
    return [str(one.seriesuid) for one in found.scans]


@pytest.fixture
def luna(tmp_path: Path) -> Path:
    root = tmp_path / "LUNA16"
    for folder, uid in (("subset0", "1.3.6.1"), ("subset0", "1.3.6.2"), ("subset9", "1.3.6.3")):
        scan(root / folder / f"{uid}.mhd")
        scan(root / "seg-lungs-LUNA16" / f"{uid}.mhd")
    table(root / "CSVS" / "annotations.csv", "1.3.6.1,1,2,3,4", "1.3.6.3,1,2,3,5")
    table(root / "CSVS" / "annotations_excluded.csv", "1.3.6.2,1,2,3,-1")
    (root / "CSVS" / "candidates.csv").write_text("seriesuid,coordX,coordY,coordZ,class\n1.3.6.1,1,2,3,0\n")
    return root


def test_luna16_as_it_comes(luna: Path) -> None:
    found = find_training_set([luna])
    assert [(one.path.parent.name, one.seriesuid) for one in found.scans] == [
        ("subset0", "1.3.6.1"),
        ("subset0", "1.3.6.2"),
        ("subset9", "1.3.6.3"),
    ]
    assert sorted(merge_tables(found.annotations)) == ["1.3.6.1", "1.3.6.3"]
    assert sorted(merge_tables(found.excluded)) == ["1.3.6.2"]
    assert found.notes == (
        f"{luna}: 3 scans in subset0, subset9",
        f"{luna}: left out, named after masks: seg-lungs-LUNA16",
        f"annotations: {luna / 'CSVS' / 'annotations.csv'}",
        f"excluded findings: {luna / 'CSVS' / 'annotations_excluded.csv'}",
    )


def test_one_subset_or_one_scan_finds_the_annotations_beside_it(luna: Path) -> None:
    for path, wanted in ((luna / "subset9", ["1.3.6.3"]), (luna / "subset0" / "1.3.6.2.mhd", ["1.3.6.2"])):
        found = find_training_set([path])
        assert names(found) == wanted
        assert [one.path.name for one in (*found.annotations, *found.excluded)] == [
            "annotations.csv",
            "annotations_excluded.csv",
        ]


def test_the_evaluation_script_s_copy_is_no_quarrel_but_a_changed_one_is(luna: Path) -> None:
    copy = luna / "evaluationScript" / "annotations"
    table(copy / "annotations.csv", "1.3.6.1,1,2,3,4", "1.3.6.3,1,2,3,5")
    series(copy / "seriesuids.csv", "1.3.6.1", "1.3.6.2", "1.3.6.3")
    found = find_training_set([luna])
    assert len(found.scans) == 3
    assert len(merge_tables(found.annotations)["1.3.6.1"]) == 1
    table(copy / "annotations.csv", "1.3.6.1,1,2,3,4")
    with pytest.raises(
        DatasetError, match=r"CSVS/annotations\.csv and .*annotations/annotations\.csv disagree on 1\.3\.6\.3"
    ):
        merge_tables(find_training_set([luna]).annotations)


def test_named_files_win(luna: Path, tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", "1.3.6.2,9,9,9,9")
    found = find_training_set([luna], [tmp_path / "mine.csv"])
    assert list(merge_tables(found.annotations)) == ["1.3.6.2"]
    assert len(found.scans) == 3
    assert found.notes[-1] == "taken as free of nodules, no annotation file has a row of them: 1.3.6.1, 1.3.6.3"
    assert [one.path.name for one in found.excluded] == ["annotations_excluded.csv"]


def test_tianchi_as_it_comes(tmp_path: Path) -> None:
    """train and val are annotated; the test scans are not, and are no scans without nodules."""
    for folder, uid in (("train_subset00", 1), ("train_subset14", 2), ("val_subset00", 3), ("test_subset00", 4)):
        scan(tmp_path / folder / f"LKDS-0000{uid}.mhd")
    table(tmp_path / "csv" / "train" / "annotations.csv", "LKDS-00001,1,2,3,4")
    series(tmp_path / "csv" / "train" / "seriesuids.csv", "seriesuid", "LKDS-00001", "LKDS-00002")
    table(tmp_path / "csv" / "val" / "annotations.csv", "LKDS-00003,1,2,3,4")
    series(tmp_path / "csv" / "val" / "seriesuids.csv", "LKDS-00003")
    series(tmp_path / "csv" / "test" / "seriesuids.csv", "LKDS-00004")
    found = find_training_set([tmp_path])
    assert names(found) == ["LKDS-00001", "LKDS-00002", "LKDS-00003"]
    assert sorted(merge_tables(found.annotations)) == ["LKDS-00001", "LKDS-00003"]
    assert any("LKDS-00004; --background" in note for note in found.notes)
    (tmp_path / "csv" / "test" / "seriesuids.csv").unlink()
    assert names(find_training_set([tmp_path])) == ["LKDS-00001", "LKDS-00002", "LKDS-00003"]


def test_a_mask_beside_its_scan_is_left_out_unless_it_is_named_itself(tmp_path: Path) -> None:
    scan(tmp_path / "a.mhd")
    scan(tmp_path / "a_lungmask.mhd")
    scan(tmp_path / "subset.mhd")
    table(tmp_path / "annotations.csv")
    assert names(find_training_set([tmp_path])) == ["a", "subset"]
    assert names(find_training_set([tmp_path / "a_lungmask.mhd"])) == ["a_lungmask"]


def test_two_scans_of_one_name_are_both_named(tmp_path: Path) -> None:
    scan(tmp_path / "subset0" / "a.mhd")
    scan(tmp_path / "copy of subset0" / "a.mhd")
    table(tmp_path / "annotations.csv")
    with pytest.raises(ScanError, match=r"copy of subset0.*subset0/a\.mhd|subset0/a\.mhd.*copy of subset0"):
        find_training_set([tmp_path])


def test_no_annotations_anywhere_is_said(tmp_path: Path) -> None:
    scan(tmp_path / "scans" / "a.mhd")
    with pytest.raises(DatasetError, match=r"no annotations\.csv in or beside them; add --annotations"):
        find_training_set([tmp_path / "scans"])


def test_linked_subsets_and_dicom_series_are_found(tmp_path: Path) -> None:
    scan(tmp_path / "disk" / "a.mhd")
    root = tmp_path / "set"
    root.mkdir()
    (root / "subset0").symlink_to(tmp_path / "disk")
    (root / "subset1").symlink_to(root)  # a circle
    write_dicom(root / "patient", small_scan()[:1], small_grid())
    table(root / "annotations.csv")
    assert sorted(names(find_training_set([root]))) == [SERIES_UID, "a"]


def test_a_fingerprint_changes_with_the_voxels_alone(tmp_path: Path) -> None:
    scan(tmp_path / "one" / "a.mhd")
    scan(tmp_path / "two" / "a.mhd")
    table(tmp_path / "annotations.csv")
    one, two = (find_training_set([tmp_path / name]).scans[0] for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    (tmp_path / "two" / "a.raw").write_bytes(b"1235")
    assert fingerprint(one) != fingerprint(two)
