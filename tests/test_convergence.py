"""The convergence study: what its runs are, what they start from, and what becomes of their logs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import convergence
from bench.convergence import RECIPES, Recipe, Step, Study, draw, hold_out, markdown, with_what_they_need, write_texts
from caffe_models.errors import Rpn3dError
from caffe_models.generators.rpn3d import EASY_POOL, STAGES
from caffe_models.net import Net
from caffe_models.solver_settings import read_settings
from caffe_models.text_format import read_text
from runtime.budget import make_budget
from train.run import RunSettings, level_name


class Scan:
    """As much of a prepared scan as is asked for."""

    def __init__(self, name: str) -> None:
        self.seriesuid = name
        self.nodules = np.array([[1, 1, 1, 5, 1]], dtype=np.float32)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.folder)
def test_all_runs_go_through_the_same_number_of_voxels(recipe: Recipe, tmp_path: Path) -> None:
    solvers = write_texts(recipe, 200, tmp_path)
    went = 0.0
    for solver, step in zip(solvers, recipe.steps, strict=True):
        stage = next(one for one in STAGES if one.name == str(step.crop))
        settings = read_settings(read_text(solver, "SolverParameter"))
        went += settings.max_iter * stage.batch * step.crop**3
        net = Net.from_prototxt(solver.parent / f"train_{step.name}.prototxt", "TRAIN")
        names = [layer.spec.name for layer in net.layers]
        assert ("drop" in names) == recipe.dropout
        targets = next(layer for layer in net.layers if layer.spec.name == "targets")
        settings_of_targets = json.loads(targets.spec.message.get("python_param").get("param_str"))
        assert tuple(settings_of_targets["anchors"]) == recipe.anchors
        assert settings.policy.name == ("poly" if recipe.after else "step")
        choice = next(layer for layer in net.layers if layer.spec.name == "hard_negatives")
        pool = json.loads(choice.spec.message.get("python_param").get("param_str"))["pool"]
        assert pool == (EASY_POOL if step.easy else 800 * (step.crop // 64 or 1) ** 3)
    assert went == pytest.approx(200 * convergence.UNIT_VOXELS, rel=0.01)


def test_the_last_phantoms_are_held_out_with_their_copies() -> None:
    scans: Any = [Scan(name) for name in ("1.3", "1.3+0", "phantom-000002", "phantom-000001", "phantom-000003")]
    kept, held = hold_out(scans, 2)
    assert [scan.seriesuid for scan in held] == ["phantom-000002", "phantom-000003"]
    assert [scan.seriesuid for scan in kept] == ["1.3", "1.3+0", "phantom-000001"]
    with pytest.raises(Rpn3dError, match="there are 3 prepared phantoms"):
        hold_out(scans, 3)


def test_what_a_run_needs_is_run_before_it() -> None:
    assert [one.name for one in with_what_they_need(["level 3, weighted loss"])] == [
        "crop 32, 64, 128",
        "level 2",
        "level 3, weighted loss",
    ]
    assert with_what_they_need(None) == list(RECIPES)
    with pytest.raises(Rpn3dError, match=r'--only "level 9" is no run; allowed: crop 32, 64, 128; crop 64;'):
        with_what_they_need(["level 9"])


def test_levels_go_on_from_what_was_trained_and_draw_from_what_was_mined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for training, which writes the logs of a run, and one for mining."""
    trained: list[tuple[str, Path | None, list[str]]] = []
    mined: list[Path] = []
    seeds: dict[str, int] = {}

    def train(
        solvers: Sequence[Path], scans: Any, out: Path, settings: Any, say: Any, weights: Path | None, **how: Any
    ) -> Path:
        trained.append((out.name, weights, list(how["hard"])))
        seeds[out.name] = settings.seed
        for number, solver in enumerate(solvers):
            level = out / level_name(solver)
            level.mkdir(parents=True)
            losses = {"loss_pos": 1.0, "loss_neg": 0.5, "loss_reg": 0.25 - 0.05 * number}
            row = {"losses": losses, "seconds": 30.0}
            (level / "log.jsonl").write_text(2 * (json.dumps(row) + "\n"))
            if how["validation"] is None:
                continue
            found = {"cpm": 0.7, "sensitivity_at_1": 0.5, "sensitivity_at_8": 0.75, "counts": {}}
            (level / "validation.jsonl").write_text(json.dumps(found) + "\n")
        return level / "last.caffemodel"

    def mining(study: Study, weights: Path, name: str) -> list[str]:
        mined.append(weights)
        return [f"mistakes of {name}"]

    monkeypatch.setattr(convergence, "train", train)
    monkeypatch.setattr(Study, "_mined", mining)
    scans: Any = [Scan("phantom-000001")]
    runs = Study(scans, scans, tmp_path, 40, RunSettings(), make_budget(cpus=1)).run(RECIPES)
    first = tmp_path / "crop-32-64-128" / "crop128" / "last.caffemodel"
    second = tmp_path / "level-2" / "crop64" / "last.caffemodel"
    assert [weights for name, weights, _ in trained if name == "crop-32-64-128"] == [
        None,
        tmp_path / "crop-32-64-128" / "crop64" / "last.caffemodel",
    ]
    assert seeds["crop-32-64-128"] != seeds["crop-32-64-128-another-seed"]
    told = {name: (weights, hard) for name, weights, hard in trained}
    assert told["crop-64"] == (tmp_path / "crop-64" / "64_easy" / "last.caffemodel", [])
    assert told["level-1-goes-on"] == (first, [])
    assert told["level-2"] == (first, ["mistakes of crop 32, 64, 128"])
    for name in ("level-3-plain-loss", "level-3-weighted-loss"):
        assert told[name] == (second, ["mistakes of crop 32, 64, 128", "mistakes of level 2"])
    assert mined == [first, second]
    schedule = runs["crop 32, 64, 128"]
    assert schedule["minutes"] == 3.0
    assert schedule["cpm"] == 0.7
    assert schedule["loss"] == pytest.approx([1.0, 1.0, 0.95, 0.95, 1.0, 1.0])
    assert schedule["megavoxels"][-1] == pytest.approx(2 * (16 * 32**3 + 4 * 64**3 + 128**3) / 1e6, abs=0.01)
    draw(json.loads(json.dumps(runs)), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert "| level 2 | crop 32, 64, 128 | 1.0 | 1.000 | 0.700 | 0.500 / 0.750 |" in markdown(runs)
    assert RECIPES[0].steps[0] == Step(32, 0.5, easy=True)
