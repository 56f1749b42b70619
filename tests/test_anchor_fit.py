"""How well anchors fit nodules: cases that can be worked out by hand, and the table."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import anchors
from bench.anchors import fit, markdown


def test_a_nodule_of_an_anchors_size_is_at_most_half_a_cell_away() -> None:
    one = fit([20.0], (20.0,), places=200)
    assert one.best.max() <= 1
    # two voxels off along all three axes: 18^3 of 20^3 shared
    assert one.best.min() >= 18**3 / (2 * 20**3 - 18**3)
    assert (one.enough >= 1).all()


def test_a_small_nodule_in_a_large_anchor_shares_its_own_volume_at_most() -> None:
    one = fit([4.0], (10.0,), places=50)
    np.testing.assert_allclose(one.best, 4.0**3 / 10**3)
    assert not one.enough.any()


def test_more_anchors_never_fit_worse_and_seeds_give_the_same_again() -> None:
    few, many = (fit([3.0, 9.0, 31.0], edges) for edges in ((10.0,), (5.0, 10.0, 20.0)))
    assert (many.best >= few.best).all()
    assert (many.enough >= few.enough).all()
    np.testing.assert_array_equal(many.best, fit([3.0, 9.0, 31.0], (5.0, 10.0, 20.0)).best)


def test_the_table_has_a_row_for_each_class_that_there_is_and_each_set() -> None:
    lines = markdown(np.array([4.0, 4.5, 25.0])).splitlines()[2:]
    assert [line.split("|")[1:4] for line in lines] == [
        [" under 5 mm ", " 2 ", " 5, 10, 20 "],
        [" under 5 mm ", " 2 ", " 10, 30, 60 "],
        [" 20 mm and more ", " 1 ", " 5, 10, 20 "],
        [" 20 mm and more ", " 1 ", " 10, 30, 60 "],
    ]


@pytest.mark.parametrize("rows", ["", "a,0,0,0,0\n"])
def test_a_file_without_diameters_is_refused(rows: str, tmp_path: Path) -> None:
    import typer

    path = tmp_path / "annotations.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n" + rows)
    app = typer.Typer()
    app.command()(anchors.main)
    result = CliRunner().invoke(app, [str(path)])
    assert result.exit_code != 0
    assert "holds no nodule with a diameter above 0" in str(result.exception)
