"""Nobody on both sides, the split kept over a resume, and what contradicts it refused."""

from pathlib import Path

import numpy as np
import pytest

from caffe_models.errors import Rpn3dError
from train.dataset import DatasetError, PreparedScan
from train.splits import HoldOut, parse_validation, patient_of, read_patients, split, split_for_run


def scan(seriesuid: str, mining: bool = True) -> PreparedScan:
    cube = np.zeros((2, 2, 2), np.uint8)
    return PreparedScan(seriesuid, cube, cube > 0, np.zeros((0, 5), np.float32), mining)


def a_set() -> list[PreparedScan]:
    """20 real scans with 2 copies each, 10 phantoms, 2 backgrounds with a copy."""
    real = [scan(f"1.3.{k}{copy}") for k in range(20) for copy in ("", "+0", "+1")]
    phantoms = [scan(f"phantom-{1000 + k:06d}") for k in range(10)]
    return [*real, *phantoms, *(scan(f"lung{k}{copy}", mining=False) for k in range(2) for copy in ("", "+0"))]


def uids(scans: list[PreparedScan]) -> list[str]:
    return [one.seriesuid for one in scans]


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 0.9])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_patient_is_on_both_sides(share: float, seed: int) -> None:
    scans = a_set()
    patients = {f"1.3.{k}": f"P{k // 2}" for k in range(20)}  # two series a patient
    training, validation = split(scans, HoldOut(share=share), patients, seed)
    sides = [{patient_of(uid, patients) for uid in uids(side)} for side in (training, validation)]
    assert not sides[0] & sides[1]
    assert sorted(uids(training) + uids(validation)) == sorted(uids(scans))
    held_real = {patient for patient in sides[1] if patient.startswith("P")}
    held_phantoms = {patient for patient in sides[1] if patient.startswith("phantom-")}
    assert (len(held_real), len(held_phantoms)) == (round(share * 10), round(share * 10))
    assert not any(uid.startswith("lung") for uid in uids(validation))
    assert split(scans[::-1], HoldOut(share=share), patients, seed)[1] == validation[::-1]


def test_another_seed_draws_others() -> None:
    one, two = (uids(split(a_set(), HoldOut(share=0.3), None, seed)[1]) for seed in (1, 2))
    assert one != two


def test_a_list_takes_the_copies_and_the_patient_s_other_series_along(tmp_path: Path) -> None:
    (tmp_path / "held.csv").write_text("seriesuid\n1.3.4\nphantom-001003\n")
    (tmp_path / "patients.csv").write_text("patient,seriesuid\nA,1.3.4\nA,1.3.7\nB,1.3.8\n")
    hold_out = parse_validation(str(tmp_path / "held.csv"))
    _, validation = split(a_set(), hold_out, read_patients(tmp_path / "patients.csv"))
    assert uids(validation) == ["1.3.4", "1.3.4+0", "1.3.4+1", "1.3.7", "1.3.7+0", "1.3.7+1", "phantom-001003"]


@pytest.mark.parametrize("text", ["0", "1", "-0.1", "1.5", "nan", "no_such_file.csv"])
def test_what_is_no_validation_is_refused(text: str) -> None:
    with pytest.raises(Rpn3dError, match=rf"--validation \"?{text}"):
        parse_validation(text)


def test_a_listed_scan_that_is_not_there_is_named_with_its_nearest() -> None:
    with pytest.raises(DatasetError, match=r"held\.csv: phantom-01003 .*nearest: phantom-001003"):
        split(a_set(), HoldOut(series=("phantom-01003",), source="held.csv"))


def test_a_side_without_scans_is_said() -> None:
    with pytest.raises(DatasetError, match="no scan is left for training"):
        split([scan("a")], HoldOut(series=("a",)))
    with pytest.raises(DatasetError, match="no scan is left for validation"):
        split([scan("a"), scan("b")], HoldOut(share=0.1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uid,patient\na,1\n", r"p\.csv:1: no column seriesuid"),
        ("seriesuid,patient\na,\n", r"p\.csv:2: an empty cell"),
        ("seriesuid,patient\na,1\na,2\n", r"p\.csv:3: a is of patient 2 here, of 1 above"),
    ],
)
def test_a_table_of_patients_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_patients(tmp_path / "p.csv")


def run(scans: list[PreparedScan], out: Path, hold_out: HoldOut | None, seed: int = 1) -> tuple[list[str], list[str]]:
    training, validation = split_for_run(scans, hold_out, None, seed, out, lambda _: None)
    return uids(training), uids(validation)


def test_a_run_keeps_its_split(tmp_path: Path) -> None:
    scans = [scan("a"), scan("a+0"), scan("b"), scan("c"), scan("d")]
    first = run(scans, tmp_path, HoldOut(share=0.25))
    assert len(set(map(patient_of, first[1], [{}] * 9))) == 1
    text = (tmp_path / "split.csv").read_text()
    assert text.splitlines()[0] == "seriesuid,patient,side"
    assert len(text.splitlines()) == 6
    assert run(scans, tmp_path, HoldOut(share=0.25), seed=9) == first
    assert run(scans, tmp_path, None) == first
    held = patient_of(first[1][0], {})
    grown = run([*scans, scan(f"{held}+1"), scan("e")], tmp_path, None)
    assert grown == ([*first[0], "e"], [*first[1], f"{held}+1"])


def test_a_run_s_split_is_not_changed_later(tmp_path: Path) -> None:
    scans = [scan(name) for name in "abcd"]
    run(scans, tmp_path / "one", HoldOut(series=("a",), source="x.csv"))
    with pytest.raises(DatasetError, match=r"split\.csv: \w is in \w+, y\.csv says otherwise"):
        run(scans, tmp_path / "one", HoldOut(series=("b",), source="y.csv"))
    run(scans, tmp_path / "two", None)
    with pytest.raises(DatasetError, match="began without --validation"):
        run(scans, tmp_path / "two", HoldOut(share=0.5))
    (tmp_path / "three" / "crop32").mkdir(parents=True)
    (tmp_path / "three" / "crop32" / "log.jsonl").write_text("{}\n")
    with pytest.raises(DatasetError, match=r"a run without split\.csv has trained here"):
        run(scans, tmp_path / "three", HoldOut(share=0.5))
