"""The files of an evaluation."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.evaluation import evaluate
from bench.evaluation_content import text_lines
from commands.scans import app
from runtime.errors import ScanError
from runtime.mark_files import MarksError


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "s.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,probability\n<a>,0,0,0,0.9\n<a>,90,1.5,2,0.7\nb,0,0,0,0.8\nother,0,0,0,1\n"
    )
    (tmp_path / "a.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n<a>,0,0,0,7\n<a>,40,0,0,22\n")
    (tmp_path / "e.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\nb,0,0,0,-1\n")
    (tmp_path / "u.csv").write_text("<a>\nb\n")
    return tmp_path


def test_all_files_are_written_and_agree(inputs: Path) -> None:
    out = inputs / "out"
    evaluate(inputs / "s.csv", inputs / "a.csv", inputs / "e.csv", inputs / "u.csv", out, draws=50)
    names = ["CADAnalysis.txt", "evaluation.html", "froc.csv", "froc.json", "froc.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    content = json.loads((out / "froc.json").read_text())
    assert content["cpm"] == 0.5
    assert content["sensitivity"] == [0.5] * 7
    assert content["counts"] == {
        "scans": 2,
        "nodules": 2,
        "candidates": 3,
        "true_positives": 1,
        "false_positives": 1,
        "false_negatives": 1,
        "ignored_on_excluded": 1,
        "doubles": 0,
        "dropped_by_limit": 0,
        "on_unknown_series": 1,
    }
    assert content["unknown_series"] == {"other": 1}
    assert (out / "froc.csv").read_text().splitlines() == [
        "fps_per_scan,sensitivity,threshold",
        "0.000000000,0.000000000,inf",
        "0.000000000,0.500000000,0.900000000",
        "0.500000000,0.500000000,0.700000000",
    ]
    assert (out / "froc.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_holds_everything_and_fetches_nothing(inputs: Path) -> None:
    out = inputs / "out"
    evaluate(inputs / "s.csv", inputs / "a.csv", inputs / "e.csv", inputs / "u.csv", out, draws=50)
    page = (out / "evaluation.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert "0.900000: 7.0 mm at 0.0, 0.0, 0.0" in page
    assert "missed: 22.0 mm at 40.0, 0.0, 0.0" in page
    assert "0.700000: 90.0, 1.5, 2.0" in page
    assert "other: 1 marks" in page
    # of two scans and two nodules: the false one of 0.7 is the only mark from 0.7 to below 0.9, the hit that from 0.9
    cells = [
        "".join(f"<td>{v}</td>" for v in row)
        for row in (
            ("0.7", "0.50", "0.500", "0.500", "0.7 to below 0.9", 1, "0.000"),
            ("0.9", "0.00", "0.500", "0.500", "0.9 to 1", 1, "1.000"),
        )
    ]
    assert all(row in page for row in cells)
    content = json.loads((out / "froc.json").read_text())
    assert content["by_probability"][-1] == {
        "probability": 0.9,
        "fps_per_scan": 0,
        "sensitivity": 0.5,
        "sensitivity_6_mm_and_more": 0.5,
        "marks": 1,
        "on_nodules": 1,
    }


def test_the_page_of_a_comparison_and_of_types(inputs: Path) -> None:
    (inputs / "other").mkdir()
    (inputs / "other" / "s.csv").write_text("seriesuid,coordX,coordY,coordZ,probability\nnew,0,0,0,0.5\n")
    (inputs / "a.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm,type\n<a>,0,0,0,7,solid;isolated\n<a>,40,0,0,22,<odd>\n"
    )
    out = inputs / "out"
    evaluate(inputs / "s.csv", inputs / "a.csv", out_dir=out, compare=inputs / "other" / "s.csv", draws=50)
    content = json.loads((out / "froc.json").read_text())
    # the best mark is false, one in four scans: nothing is found at 1/8, one of two nodules from 1/4 on
    assert content["cpm"] == content["compare"]["cpm_difference"] == pytest.approx(3 / 7)
    assert content["compare"]["cpm"] == 0
    assert content["compare"]["submission"] == "other/s"
    assert content["counts"]["scans"] == 4  # those of both: <a>, b, other, new
    assert "the 4 scans that the files of both submissions name" in content["notes"][0]
    assert [(g["class"], g["nodules"], g["found"]) for g in content["by_texture"]] == [("<odd>", 1, 0), ("solid", 1, 1)]
    assert [(g["class"], g["nodules"]) for g in content["by_place"]] == [("isolated", 1), ("not stated", 1)]
    assert [p["why"] for p in content["largest_misses"]] == ["no mark"]
    page = (out / "evaluation.html").read_text()
    for text in ("<h2>Compared with other/s</h2>", "<b>+0.4286</b>", "<h2>By texture</h2>", "&lt;odd&gt;", "no mark"):
        assert text in page
    assert "<odd>" not in page


def test_what_is_not_known_is_left_out_of_the_page(inputs: Path) -> None:
    evaluate(inputs / "s.csv", inputs / "a.csv", out_dir=inputs / "out", draws=5)
    page = (inputs / "out" / "evaluation.html").read_text()
    assert "By texture" not in page
    assert "Compared with" not in page
    content = json.loads((inputs / "out" / "froc.json").read_text())
    assert (content["compare"], content["by_texture"], content["by_place"]) == (None, [], [])


def test_the_terminal_is_told_everything(inputs: Path) -> None:
    lines = text_lines(evaluate(inputs / "s.csv", inputs / "a.csv", inputs / "e.csv", inputs / "u.csv"))
    assert lines[0] == "CPM 0.5000"
    assert [line.split() for line in lines[2:9]] == [
        [rate, "0.5000"] for rate in ("1/8", "1/4", "1/2", "1", "2", "4", "8")
    ]
    assert "ignored on excluded: 1" in lines
    assert lines[-1] == "note: other: 1 marks, not in the list of scans, not counted"


def test_without_nodules_the_figures_are_null(inputs: Path) -> None:
    (inputs / "a.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    evaluate(inputs / "s.csv", inputs / "a.csv", out_dir=inputs / "out", draws=5)
    content = json.loads((inputs / "out" / "froc.json").read_text())
    assert (content["cpm"], content["cpm_95"]) == (None, [None, None])
    assert any("no list of scans" in note for note in content["notes"])


def test_a_faulty_input_leaves_earlier_results_alone(inputs: Path) -> None:
    (inputs / "out").mkdir()
    (inputs / "out" / "froc.json").write_text("before")
    (inputs / "s.csv").write_text("no header\n")
    with pytest.raises(MarksError):
        evaluate(inputs / "s.csv", inputs / "a.csv", out_dir=inputs / "out")
    assert [p.read_text() for p in (inputs / "out").iterdir()] == ["before"]


def test_folders_of_scans_that_hold_none_are_refused_before_anything_is_written(inputs: Path) -> None:
    with pytest.raises(ScanError, match="no such file or folder"):
        evaluate(inputs / "s.csv", inputs / "a.csv", out_dir=inputs / "out", scans=[inputs / "nowhere"])
    assert not (inputs / "out").exists()


def test_the_command_prints_the_json_that_it_wrote(inputs: Path) -> None:
    files = [str(inputs / "s.csv"), "--annotations", str(inputs / "a.csv"), "-o", str(inputs / "out")]
    compared = ["--compare", str(inputs / "s.csv"), "--json", "--quiet"]
    done = CliRunner().invoke(app, ["evaluate", *files, *compared])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((inputs / "out" / "froc.json").read_text())
    assert printed["compare"]["cpm_difference_95"] == [0, 0]
    assert CliRunner().invoke(app, ["evaluate", *files, "--quiet"]).output == ""
