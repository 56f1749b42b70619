"""Validation while training: the figures, the best model, and that a kill changes neither."""

import json
import signal
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training

import train.level_validation
from caffe_models.errors import Rpn3dError
from caffe_models.weights import Weights, read_caffemodel
from runtime.budget import Budget
from runtime.candidates import Candidates
from runtime.engines.base import EngineOptions, load_engine
from runtime.froc import FrocResult
from train.dataset import PreparedScan
from train.mine import score
from train.prepare import Sources
from train.run import RunSettings, TrainingStopped
from train.run import train as train_all
from train.training_scans import held_out
from train.validation import Score, Validation, draw_froc, froc_of, validate

SETTINGS = RunSettings(seed=3, autocast=False, threads=1, tensorboard=False)
BUDGET = Budget(1, 2 << 30, "")


def candidates(*rows: tuple[float, float, float, float]) -> Candidates:
    """Of logit, z, y, x."""
    table = np.array(rows, np.float32).reshape(-1, 4)
    return Candidates(table[:, 0], table[:, 1:], np.full(len(table), 6, np.float32))


def test_froc_of_prepared_scans_by_hand() -> None:
    """Two scans. A: its nodule of 10 is hit at 4.9 voxels. B: missed, since the mark lies 5 off; two false positives.

    Ranked: an ignored place, the hit, then the false positives: half of the nodules at every rate.
    """
    a = tiny_training.scan("a")
    b = PreparedScan("b", a.voxels, a.lung, np.array([[30, 30, 30, 10, 1], [9, 9, 9, 8, 0]], np.float32), True)
    found = [candidates((2, 31.5, 31.5, 36.4)), candidates((5, 9, 9, 9), (1, 30, 35, 30), (0, 50, 50, 50))]
    froc = froc_of([a, b], found)
    assert froc.cpm == 0.5
    assert froc.counts["false_positives"] == 2
    assert froc.counts["ignored_on_excluded"] == 1
    assert [nodule.marks for nodule in froc.nodules] == [1, 0]
    assert draw_froc(froc).shape == (320, 400, 3)


def test_weights_are_validated_as_detection_would_run_them(tmp_path: Path) -> None:
    """Against the torch engine on prototxt and caffemodel."""
    solver = tiny_training.write(tmp_path, max_iter=40)
    weights = train_all([solver], [tiny_training.scan()], tmp_path / "out", SETTINGS, lambda _: None)
    scan = tiny_training.scan("other", 1)
    deploy = solver.with_name("deploy.prototxt")
    found = validate(read_caffemodel(weights), Validation((scan,), deploy, 0, BUDGET))
    assert found is not None
    engine = load_engine("torch", deploy, EngineOptions(precision="f32", weights=weights))
    wanted = froc_of([scan], [score(scan, engine, BUDGET)])
    assert found.froc.sensitivities == wanted.sensitivities
    np.testing.assert_allclose(found.froc.thresholds, wanted.thresholds, rtol=1e-4)
    assert found.froc.counts == wanted.counts
    assert found.froc.counts["candidates"] > 0


def of_cpm(cpm: float) -> Score:
    empty = np.zeros(0)
    return Score(FrocResult(empty, empty, empty, (cpm,) * 7, cpm, (), (), empty, empty, np.zeros(0, np.intp)), 0.1)


def cpm_of(weights: Weights) -> float:
    """Like chance, yet the same for the same weights."""
    return zlib.crc32(b"".join(blob.tobytes() for blob in weights["head"])) % 1000 / 1000


@pytest.fixture
def by_weights(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation costs nothing; what it gave."""
    given: list[float] = []

    def give(weights: Weights, validation: Validation, stopped: Callable[[], bool]) -> Score | None:
        if stopped():
            return None
        given.append(cpm_of(weights))
        return of_cpm(given[-1])

    monkeypatch.setattr(train.level_validation, "validate", give)
    return given


def run(solver: Path, out: Path, name: str = "v", **settings: Any) -> None:
    validation = Validation((tiny_training.scan(name),), solver.with_name("deploy.prototxt"), 1, BUDGET)
    train_all(
        [solver],
        [tiny_training.scan()],
        out,
        RunSettings(**{**vars(SETTINGS), **settings}),
        lambda _: None,
        validation=validation,
    )


def test_a_killed_run_keeps_the_same_best_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_weights: list[float]
) -> None:
    """Killed before each renaming: of snapshots (every third iteration), of best.caffemodel, of best.json."""
    solver = tiny_training.write(tmp_path / "nets", snapshot=3)
    whole = tmp_path / "whole"
    with tiny_training.copied_before_each_renaming(whole, tmp_path / "copies", monkeypatch) as copies:
        run(solver, whole)
    cpms = list(by_weights)
    assert len(cpms) == 6
    best = json.loads((whole / "best.json").read_text())
    assert (best["cpm"], best["iteration"]) == (max(cpms), 1 + cpms.index(max(cpms)))
    assert cpm_of(read_caffemodel(whole / "best.caffemodel")) == max(cpms)
    wanted = tiny_training.results(whole)
    assert [line["cpm"] for line in wanted["crop16/validation.jsonl"]] == cpms
    for copy in copies:
        run(solver, copy)
        assert tiny_training.results(copy) == wanted, copy


def test_a_run_told_to_stop_while_it_validates_does_it_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_weights: list[float]
) -> None:
    solver = tiny_training.write(tmp_path / "nets", snapshot=3)
    give: Callable[..., Score | None] = vars(train.level_validation)["validate"]

    def then_stop(weights: Weights, validation: Validation, stopped: Callable[[], bool]) -> Score | None:
        if len(by_weights) == 3:
            signal.raise_signal(signal.SIGTERM)
        return give(weights, validation, stopped)

    with monkeypatch.context() as patch:
        patch.setattr(train.level_validation, "validate", then_stop)
        with pytest.raises(TrainingStopped, match="stopped after iteration 4 of crop16"):
            run(solver, tmp_path / "out")
    run(solver, tmp_path / "out")
    run(solver, tmp_path / "whole")
    again, whole = tiny_training.results(tmp_path / "out"), tiny_training.results(tmp_path / "whole")
    for name in ("crop16/validation.jsonl", "best.json", "best.caffemodel"):
        assert again[name] == whole[name]


def test_the_best_of_other_scans_is_put_aside(tmp_path: Path, by_weights: list[float]) -> None:
    solver = tiny_training.write(tmp_path / "nets")
    run(solver, tmp_path / "out", iterations=3)
    before = json.loads((tmp_path / "out" / "best.json").read_text())
    run(solver, tmp_path / "out", name="w", iterations=4)
    aside = tmp_path / "out" / f"best_crop16_iter_{before['iteration']}.json"
    assert json.loads(aside.read_text()) == before
    assert aside.with_suffix(".caffemodel").is_file()
    assert json.loads((tmp_path / "out" / "best.json").read_text())["scans"] == ["w"]


def test_validations_come_as_seldom_as_they_cost(tmp_path: Path) -> None:
    """Two scans of 64^3, 524288 voxels in all; an iteration goes three times through 4 crops of 16^3, 49152: with 5 %
    of them, 213.3 iterations."""
    scans = (tiny_training.scan("a"), tiny_training.scan("b"))
    assert Validation(scans, tmp_path, None, BUDGET).interval(4 * 16**3) == 214
    assert Validation(scans, tmp_path, 30, BUDGET).interval(4 * 16**3) == 30


def test_scans_without_a_nodule_cannot_validate(tmp_path: Path) -> None:
    scan = tiny_training.scan()
    bare = PreparedScan("bare", scan.voxels, scan.lung, np.array([[9, 9, 9, 8, 0]], np.float32), True)
    with pytest.raises(Rpn3dError, match="the 1 scans given hold no nodule"):
        Validation((bare,), tmp_path, 1, BUDGET)


def test_a_full_disk_at_the_best_model_names_it(tmp_path: Path, by_weights: list[float]) -> None:
    solver = tiny_training.write(tmp_path / "nets", snapshot=10)
    with tiny_training.full_disk(3000), pytest.raises(Rpn3dError, match=r"out/best\.caffemodel: cannot be written \("):
        run(solver, tmp_path / "out")


def test_few_of_the_scans_held_out_are_tried(tmp_path: Path) -> None:
    """Those with nodules, and fully annotated ones alone; which of them does not depend on their order."""
    scans = [tiny_training.scan(f"s{k}") for k in range(9)]
    bare = [replace(scans[k], nodules=np.zeros((0, 5), np.float32)) for k in range(3)]
    unmarked = [replace(scans[k], mining=False) for k in range(3, 6)]
    held = [*bare, *unmarked, *scans[6:]]
    chosen = held_out(held, 2, Sources(), tmp_path, print)
    assert len(chosen) == 2
    assert {scan.seriesuid for scan in chosen} < {"s6", "s7", "s8"}
    assert [scan.seriesuid for scan in held_out(held[::-1], 2, Sources(), tmp_path, print)] == [
        scan.seriesuid for scan in chosen
    ]
    assert held_out(held, 0, Sources(), tmp_path, print) == ()
