"""docs/layers.md says what the code does."""

from pathlib import Path

from conftest import ROOT, data_folder, need

from caffe_models.layer import layer_types
from caffe_models.schema import DIALECTS
from convert import layer_table


def test_the_page_is_what_the_generator_makes(tmp_path: Path) -> None:
    layer_table.main(["--docs", str(tmp_path)])
    fresh = (tmp_path / "layers.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "layers.md").read_text(encoding="utf-8") == fresh, "run `make docs`"


def test_the_counts_are_those_of_the_data() -> None:
    counted = layer_table.count_cases(need(data_folder() / "caffe_golden" / "ops"))
    assert layer_table.read_counts(ROOT / "docs" / "golden_cases.csv") == counted


def test_a_row_for_every_type_and_a_reason_for_every_no() -> None:
    text = layer_table.table({})
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 9]
    assert [row[0].removeprefix("| ") for row in rows[1:]] == list(layer_types())
    for row in rows[1:]:
        assert "no" not in row[4:7] or len(row[9].removesuffix(" |")) > 10, row


def test_the_cases_come_from_a_caffe_that_has_the_type() -> None:
    """What the classes say of the dialects, held against what the real programs ran."""
    counts = layer_table.read_counts(ROOT / "docs" / "golden_cases.csv")
    for name, cls in layer_types().items():
        for dialect, cases in zip(DIALECTS, counts.get(name, (0, 0, 0)), strict=True):
            assert not cases or dialect in cls.dialects, (name, dialect)
