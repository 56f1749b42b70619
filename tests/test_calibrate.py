"""Calibration: the fit, the weights it changes, and the command from a submission to a .caffemodel."""

from pathlib import Path

import numpy as np
import pytest

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from commands.calibrate import calibrate
from runtime.findings import sigmoid
from train.calibrate import Calibration, apply, fit, reliability


def drawn(scale: float, shift: float, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of marks of which sigmoid(scale * logit + shift) are nodules."""
    rng = np.random.default_rng(5)
    logits = rng.normal(1.0, 3.0, count)
    right = rng.random(count) < sigmoid(scale * logits + shift)
    return logits[right], logits[~right]


@pytest.mark.parametrize(("scale", "shift"), [(0.7, -3.0), (1.0, 0.0), (2.0, 4.0)])
def test_the_fit_finds_what_the_marks_were_drawn_with(scale: float, shift: float) -> None:
    found = fit(*drawn(scale, shift))
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert found.shift == pytest.approx(shift, abs=0.1)


def test_calibrated_probabilities_are_shares_of_nodules() -> None:
    nodules, others = drawn(0.7, -3.0)
    found = fit(nodules, others)
    before = [row for row in reliability(nodules, others) if row.marks > 500]
    after = [row for row in reliability(found.logits(nodules), found.logits(others)) if row.marks > 500]
    assert max(abs(row.mean - row.share) for row in before) > 0.3
    assert max(abs(row.mean - row.share) for row in after) < 0.03


def test_reliability_counts_every_mark_once_and_keeps_empty_rows() -> None:
    """p = 0.5 begins the row of 0.5, 1 lies in the last one."""
    rows = reliability(np.array([0.0, 800.0]), np.array([-1e-9, -800.0]))
    by_low = {row.low: (row.marks, row.share) for row in rows if row.marks}
    assert by_low == {0.0: (1, 0.0), 0.3: (1, 0.0), 0.5: (1, 1.0), 0.9: (1, 1.0)}


@pytest.mark.parametrize(
    ("nodules", "others", "words"),
    [
        (np.arange(9.0), np.arange(100.0), "9 marks on nodules and 100 on nothing"),
        (np.arange(50.0) + 100, np.arange(50.0), "every mark on a nodule is more certain"),
        (np.arange(50.0), np.arange(50.0) + 1, "no more certain than the others"),
        (np.ones(50), np.ones(50), "no more certain than the others"),
    ],
)
def test_marks_that_say_nothing_are_refused(nodules: np.ndarray, others: np.ndarray, words: str) -> None:
    with pytest.raises(Rpn3dError, match=words):
        fit(nodules, others)


def test_the_head_gives_calibrated_logits_and_the_same_boxes(root: Path) -> None:
    source = root / "caffe_models" / "rpn3d.caffemodel"
    before = read_caffemodel(source)
    calibration = Calibration(0.6, -2.0, 100, 100)
    after = apply(before, calibration, str(source))
    kernel = before["head"][0].reshape(15, -1)
    x = np.random.default_rng(1).normal(size=kernel.shape[1])
    was = kernel @ x + before["head"][1]
    now = after["head"][0].reshape(15, -1) @ x + after["head"][1]
    assert now[::5] == pytest.approx(calibration.logits(was[::5]), rel=1e-5)
    boxes = np.arange(15) % 5 > 0
    assert np.array_equal(now[boxes], was[boxes])
    others = [(before[name], after[name]) for name in before if name != "head"]
    assert all(np.array_equal(a, b) for one, two in others for a, b in zip(one, two, strict=True))


def test_a_net_without_such_a_head_is_refused() -> None:
    with pytest.raises(WeightsError, match=r'other.caffemodel: layer "head": blobs of shapes none'):
        apply({}, Calibration(1, 0, 10, 10), "other.caffemodel")
    with pytest.raises(WeightsError, match=r"\(16, 4\), \(16,\)"):
        apply({"head": [np.zeros((16, 4), np.float32), np.zeros(16, np.float32)]}, Calibration(1, 0, 10, 10), "x")


def files(folder: Path) -> tuple[Path, Path]:
    """A submission and annotations: 20 nodules, most of them marked with more certainty than 200 other places."""
    rng = np.random.default_rng(2)
    hits, others = sigmoid(rng.normal(4.0, 2.0, 20)), sigmoid(rng.normal(0.0, 2.0, 200))
    marks = [f"s,{100 * n},0,0,{p:.12f}" for n, p in enumerate(hits)]
    marks += [f"t{n},0,50,0,{p:.12f}" for n, p in enumerate(others)]
    submission, annotations = folder / "submission.csv", folder / "annotations.csv"
    submission.write_text("\n".join(["seriesuid,coordX,coordY,coordZ,probability", *marks]) + "\n")
    rows = [f"s,{100 * n},0,0,10" for n in range(20)]
    annotations.write_text("\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *rows]) + "\n")
    return submission, annotations


def test_the_command_writes_weights_that_fit_the_net(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = root / "caffe_models" / "rpn3d.caffemodel"
    submission, annotations = files(tmp_path)
    out = tmp_path / "calibrated.caffemodel"
    calibrate(submission, annotations, source, out, None, None, False)
    printed = capsys.readouterr().out
    assert "from 20 marks on nodules and 200 on nothing" in printed
    net = Net.from_prototxt(root / "prototxt" / "rpn3d" / "deploy.prototxt")
    net.load(read_caffemodel(out), str(out), strict=True)
    before, after = read_caffemodel(source)["head"], read_caffemodel(out)["head"]
    scale = float(after[0][0].ravel()[0] / before[0][0].ravel()[0])
    assert f"logit = {scale:.4f} logit" in printed
    assert not np.array_equal(before[1][::5], after[1][::5])


def test_the_weights_are_never_written_over(root: Path, tmp_path: Path) -> None:
    submission, annotations = files(tmp_path)
    own = tmp_path / "own.caffemodel"
    own.write_bytes((root / "caffe_models" / "rpn3d.caffemodel").read_bytes())
    with pytest.raises(Rpn3dError, match="is the file of --weights"):
        calibrate(submission, annotations, own, own, None, None, True)
