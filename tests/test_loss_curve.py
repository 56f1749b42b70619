"""The picture of a run's losses."""

from pathlib import Path

import pytest

from bench.loss_curve import draw_losses, main, read_log
from caffe_models.errors import Rpn3dError

LINE = '{"iteration": %d, "lr": 0.01, "losses": {"loss_pos": %g, "loss_reg": 0.5}}\n'


def test_each_level_gets_a_panel(tmp_path: Path) -> None:
    for name in ("crop64", "crop128", "level2"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "log.jsonl").write_text("".join(LINE % (k, 1 / (k + 1)) for k in range(60)))
    assert read_log(tmp_path / "crop64" / "log.jsonl")["loss_pos"][:2] == [1.0, 0.5]
    main([str(tmp_path), "-o", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rpn3dError, match=r"has no crop\*/log\.jsonl and no level"):
        draw_losses(tmp_path, tmp_path / "x.png")
