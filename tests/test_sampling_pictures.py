"""What `rpn3d train --show-sampling` draws: the crops that training gets, and sizes before and after augmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import rpn3d
from caffe_models.generators.rpn3d import Stage, solver, train_net
from train import prepare, run, sampling_pictures
from train.crops import Choice, CropSource, Sampling
from train.dataset import IGNORE, TARGET, PreparedScan, save
from train.mine import Hard
from train.sampling_pictures import (
    SamplingReport,
    Shown,
    diameters_in_scan,
    draw_crop,
    level_to_show,
    show_level,
    show_sampling,
)

FALSE_POSITIVE = np.array([(60, 20, 20, 5, 0.9)], np.float32)
SAMPLING = Sampling(crop=32, batch=4)


@pytest.fixture(scope="module")
def scan() -> PreparedScan:
    """Two targets, of 6 and 14 mm, and one ignored place."""
    rng = np.random.default_rng(0)
    nodules = np.array([(30, 30, 30, 6, TARGET), (60, 60, 60, 14, TARGET), (30, 60, 30, 9, IGNORE)], np.float32)
    voxels = rng.integers(20, 60, (90, 90, 90)).astype(np.uint8)
    return PreparedScan("s", voxels, np.ones(voxels.shape, bool), nodules, True)


def test_two_pictures_and_the_shares_of_what_was_drawn(scan: PreparedScan, tmp_path: Path) -> None:
    hard = [Hard("s", FALSE_POSITIVE, np.zeros((0, 5), np.float32))]
    source = CropSource([scan], replace(SAMPLING, hard_share=0.4, random_share=0.5, small_weight=3.0), 1, hard)
    report = show_sampling(source, tmp_path / "new", crops=60)
    source.close()
    assert [path.name for path in report.pictures] == ["sampling.png", "crops.png"]
    assert all(imread(path).std() > 0.05 for path in report.pictures)
    assert report.hard == pytest.approx(0.4, abs=0.15)
    assert report.random == pytest.approx(0.3, abs=0.15)
    assert 0.3 <= report.with_target < 0.8
    assert report.small == pytest.approx(0.75, abs=0.15)  # three in four by weight
    assert f"60 crops of 32 voxels: {report.with_target:.0%} hold a target" in str(report)
    assert f"{report.hard:.0%} round a false positive" in str(report)


def test_the_crops_shown_are_those_of_training(scan: PreparedScan) -> None:
    source = CropSource([scan], SAMPLING, 5)
    shown = list(sampling_pictures._draw(source, 6))
    second = source(1)
    assert np.array_equal(shown[5].voxels, second.data[1, 0] * 128 + 128)
    assert len(shown[5].nodules) == (second.nodules[1, :, 4] >= 0).sum()
    source.close()


def test_a_choice_is_why_the_crop_is_as_it_is(scan: PreparedScan) -> None:
    source = CropSource([scan], SAMPLING, 2)
    for iteration in range(6):
        batch = source.draw(iteration)
        for rows, choice in zip(batch.nodules, source.chosen(iteration), strict=True):
            if choice.kind == "nodule":
                assert np.linalg.norm(rows[:, :3] - choice.target, axis=1).min() < 0.1
                assert np.linalg.norm(scan.nodules[:2, :3] - choice.place, axis=1).min() == 0
    source.close()


def test_sizes_before_augmentation_are_those_of_the_scan(scan: PreparedScan) -> None:
    """Whatever scale and warp made of them: each target is found again by where its cell lies in the scan."""
    source = CropSource([scan], replace(SAMPLING, warp_share=1.0, random_share=0.0), 3)
    shown = list(sampling_pictures._draw(source, 24))
    for one in shown:
        assert set(one.before.tolist()) <= {6.0, 14.0}
        ratio = one.targets[:, 3] / one.before
        assert ((ratio > 0.65) & (ratio < 1.5)).all()
    assert {6.0, 14.0} == {size for one in shown for size in one.before.tolist()}
    none = diameters_in_scan(np.zeros((0, 5), np.float32), np.zeros((3, 8, 8, 8), np.float32), scan)
    assert none.shape == (0,)
    source.close()


def test_circles_are_as_large_as_the_slice_cuts_the_nodules() -> None:
    """Slice 16 goes through the middle of one; 3 voxels off another of radius 5 it cuts a circle of radius 4."""
    rows = np.array([(16, 10, 12, 8, TARGET), (19, 24, 22, 10, IGNORE), (25, 5, 5, 6, TARGET)], np.float32)
    one = Shown(np.zeros((32, 32, 32), np.float32), rows, rows[:2, 3], Choice("hard", 0, np.zeros(3), np.full(3, 15.5)))
    axes = Figure().subplots()
    draw_crop(axes, one)
    circles = [(patch.center, round(patch.radius, 3), patch.get_linestyle()) for patch in axes.patches]  # type: ignore[attr-defined]
    assert circles == [((12.0, 10.0), 4.0, "solid"), ((22.0, 24.0), 4.0, "dashed")]
    assert axes.get_title() == "hard: 8 mm"
    assert len(axes.lines) == 1, "the false positive's place is marked"


def test_the_level_shown_is_64_or_the_first() -> None:
    levels = [Path(f"solver_{crop}.prototxt") for crop in (32, 64, 128)]
    assert level_to_show(levels) == levels[1]
    assert level_to_show([levels[2]]) == levels[2]


def test_a_level_is_shown_with_the_crop_and_batch_of_its_net(
    scan: PreparedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_pictures, "CROPS", 8)
    monkeypatch.setattr(sampling_pictures, "SHEET_ROWS", 1)
    (tmp_path / "train_16.prototxt").write_text(train_net(16, 2))
    path = tmp_path / "solver_16.prototxt"
    path.write_text(solver(Stage(name="16", crop=16, batch=2, base_lr=0.01, max_iter=4, stepsize=3, snapshot=2)))
    report = show_level(path, [scan], tmp_path / "out", 1)
    assert (report.edge, report.crops) == (16, 8)


def test_the_command_draws_and_does_not_train(
    scan: PreparedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = SamplingReport(200, 64, 0.7, 0.6, 0.3, 0.0, ())
    asked: list[tuple[str, str, Path, int]] = []

    def show(level: Path, scans: list[PreparedScan], folder: Path, seed: int) -> SamplingReport:
        asked.append((level.name, scans[0].seriesuid, folder, seed))
        return report

    def refuse(*_: object) -> None:
        raise AssertionError("trained")

    (tmp_path / "prepared").mkdir()
    save(scan, tmp_path / "prepared")
    monkeypatch.setattr(prepare, "prepare_all", lambda sources, folder, say, bar: folder)
    monkeypatch.setattr(sampling_pictures, "show_level", show)
    monkeypatch.setattr(run, "train", refuse)
    monkeypatch.setattr("sys.argv", ["rpn3d", "train", "--show-sampling", "-o", str(tmp_path), "--seed", "4"])
    with pytest.raises(SystemExit) as end:
        rpn3d.main()
    assert not end.value.code
    assert asked == [("solver_64.prototxt", "s", tmp_path, 4)]
    assert capsys.readouterr().out.strip() == str(report)
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"], "a look binds the run to no split"
