"""The CSV, the JSON and the terminal's table."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import outputs
from runtime.errors import ScanError
from runtime.findings import Finding
from runtime.mark_files import read_submission
from runtime.outputs import (
    ResultFolder,
    ScanResult,
    from_json,
    read_results,
    safe_name,
    submission_csv,
    to_json,
    versions,
)
from runtime.report_table import plain_lines, print_report

FIRST = Finding(1, 0.999686, 56.20840547, 86.34341278, -115.8675792, 23.35064438, 218, 409, 293)
SECOND = Finding(2, 0.25, -0.0000001, 1.0, 2.0, 6.0, 3, 4, 5)
RESULT = ScanResult(
    seriesuid="1.3.6.1",
    source="scans/1.3.6.1.mhd",
    findings=(FIRST, SECOND),
    mask_volume_ml=4321.5,
    fallbacks=("only one lung was found",),
    notes=("a note",),
    engine="openvino",
    precision="bf16",
    model_sha256="ab" * 32,
    plan={"windows": 1, "margin_voxel": 32},
    seconds={"read": 0.5, "network": 2.25},
    peak_memory_bytes=123456789,
    cpus=2,
    versions={"rpn3d": "0.1.0"},
)
CSV = """seriesuid,coordX,coordY,coordZ,probability
1.3.6.1,56.208405,86.343413,-115.867579,0.999686000000
1.3.6.1,0.000000,1.000000,2.000000,0.250000000000
"""


def test_csv_by_hand() -> None:
    assert submission_csv([RESULT]) == CSV


def test_csv_is_in_the_order_of_scans_and_ranks_whatever_the_order_of_work() -> None:
    other = replace(RESULT, seriesuid='a,"b"', findings=(SECOND, FIRST))
    none = replace(RESULT, seriesuid="0", findings=())
    text = submission_csv([other, none, RESULT])
    assert text == submission_csv([RESULT, other, none])
    assert text.splitlines()[1:] == [
        *CSV.splitlines()[1:],
        '"a,""b""",56.208405,86.343413,-115.867579,0.999686000000',
        '"a,""b""",0.000000,1.000000,2.000000,0.250000000000',
    ]


def test_close_probabilities_stay_apart_in_the_csv() -> None:
    near = [replace(FIRST, rank=i + 1, probability=1 - 10.0 ** -(12 - i)) for i in range(2)]
    assert len(set(submission_csv([replace(RESULT, findings=tuple(near))]).splitlines())) == 3


def test_json_round_trip() -> None:
    assert from_json(to_json(RESULT)) == RESULT
    content = json.loads(to_json(RESULT))
    assert content["schema_version"] == 1
    assert content["findings"][0]["slice_index"] == 218
    assert content["seconds"] == {"read": 0.5, "network": 2.25}


def test_json_has_null_where_there_is_no_number() -> None:
    text = to_json(replace(RESULT, mask_volume_ml=math.nan, seconds={"read": math.inf}))
    assert json.loads(text)["mask_volume_ml"] is None
    assert json.loads(text)["seconds"]["read"] is None
    assert math.isnan(from_json(text).mask_volume_ml)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"r\.json: not JSON"),
        ("[]", "not the result of a scan"),
        ('{"a": 1}', "not the result of a scan"),
        ('{"program": "rpn3d", "schema_version": 99}', "schema_version 99, this version of rpn3d reads 1"),
        ('{"program": "rpn3d", "schema_version": 1}', "incomplete result of a scan"),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        from_json(text, "r.json")


def test_versions_name_what_computes() -> None:
    found = versions()
    assert set(found) == {"rpn3d", "openvino", "numpy", "SimpleITK", "python"}
    assert found["numpy"][0].isdigit()


@pytest.mark.parametrize("uid", ["1.3.6.1.4.1", "LCTSC-Test-S1-201", "a_b"])
def test_ordinary_names_stay(uid: str) -> None:
    assert safe_name(uid) == uid


@pytest.mark.parametrize("uid", ["", "..", "../../etc/passwd", "a/b", "a\\b", "-rf", ".hidden", "ä b", "x" * 300, "a."])
def test_every_other_name_is_made_safe_and_unlike_the_rest(uid: str) -> None:
    name = safe_name(uid)
    assert 0 < len(name) <= 100
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0] not in ".-"
    assert name != safe_name(uid + "x")


def test_every_finished_scan_is_in_the_csv(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "out")
    path = folder.add(RESULT)
    assert path == tmp_path / "out" / "1.3.6.1.json"
    assert (tmp_path / "out" / "submission.csv").read_text() == CSV
    folder.add(replace(RESULT, seriesuid="0", findings=(SECOND,), source="b"))
    assert len(read_submission(tmp_path / "out" / "submission.csv").value) == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.json", "1.3.6.1.json", "submission.csv"]


def test_an_interrupted_run_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ResultFolder(tmp_path)
    folder.add(replace(RESULT, seriesuid="0", source="b"))
    before = (tmp_path / "submission.csv").read_bytes()

    def stop(results: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the JSON and the CSV of the second scan
        patch.setattr(outputs, "submission_csv", stop)
        with pytest.raises(KeyboardInterrupt):
            folder.add(RESULT)
    assert (tmp_path / "submission.csv").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.json", "1.3.6.1.json", "submission.csv"]
    folder.write_csv()
    assert (tmp_path / "submission.csv").read_text().count("1.3.6.1") == 2


def test_a_submission_holds_the_scans_of_this_run_only(tmp_path: Path) -> None:
    ResultFolder(tmp_path).add(replace(RESULT, seriesuid="earlier", source="b"))
    ResultFolder(tmp_path).add(RESULT)
    assert (tmp_path / "submission.csv").read_text() == CSV
    assert [r.seriesuid for r in read_results(tmp_path)] == ["1.3.6.1", "earlier"]


def test_a_scan_done_anew_replaces_its_old_result(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.add(RESULT)
    folder.add(replace(RESULT, findings=()))
    assert (tmp_path / "submission.csv").read_text().count("\n") == 1


def test_two_scans_of_one_seriesuid_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.add(RESULT)
    with pytest.raises(ScanError, match=r"other\.mhd: has the seriesuid 1\.3\.6\.1 of scans/1\.3\.6\.1\.mhd"):
        folder.add(replace(RESULT, source="other.mhd"))
    assert read_results(tmp_path) == [RESULT]


def test_foreign_json_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "froc.json").write_text('{"cpm": 1}')
    ResultFolder(tmp_path).add(RESULT)
    assert read_results(tmp_path) == [RESULT]
    assert (tmp_path / "submission.csv").read_text() == CSV


def test_an_empty_folder_has_a_header_alone(tmp_path: Path) -> None:
    assert ResultFolder(tmp_path).write_csv().read_text() == "seriesuid,coordX,coordY,coordZ,probability\n"


def test_plain_report_by_hand() -> None:
    assert plain_lines(RESULT) == [
        "1.3.6.1: 2 findings, openvino bf16, 2.8 s",
        "  1st, slice 218, 0.999686, [409, 293], x 56.2 y 86.3 z -115.9 mm, diameter 23.4 mm",
        "  2nd, slice 3, 0.250000, [4, 5], x 0.0 y 1.0 z 2.0 mm, diameter 6.0 mm",
        "  fallback: only one lung was found",
        "  note: a note",
    ]
    assert plain_lines(RESULT, limit=1)[2] == "  and 1 less probable, in the CSV and JSON"
    assert plain_lines(ScanResult("u", "s")) == ["u: 0 findings"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_and_others_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    plain, terminal = io.StringIO(), Terminal()
    print_report(RESULT, stream=plain)
    assert plain.getvalue().splitlines() == plain_lines(RESULT)
    print_report(RESULT, stream=terminal)
    row = next(line for line in terminal.getvalue().splitlines() if "1st" in line)
    for cell in ("218", "0.999686", "[409, 293]", "56.2", "86.3", "-115.9", "23.4"):
        assert cell in row
