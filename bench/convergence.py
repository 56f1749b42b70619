"""What each part of the training recipe is worth: small runs that differ in one thing.

    rpn3d train --phantoms 50 --phantom-nodules 24 --show-sampling -o study    (leaves the scans in study/prepared)
    python -m bench.convergence study/prepared --validation 6 --iterations 450 -o docs

All first runs go through the same number of voxels from the same fillers and see crops of the same scans; those of the
levels go on from one of them. All are tried on the same scans, which none of them trains on. `WORK` keeps every run:
what was stopped goes on with the same command. Written are `convergence.json`, `convergence.png`, and the rows of the
table in docs/convergence.md.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import typer

from bench.save_picture import save_picture
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from caffe_models.generators.rpn3d import STAGES, WEIGHT_DECAY, train_net
from caffe_models.rpn.anchors import ANCHORS_VOXEL
from caffe_models.weights import read_caffemodel
from runtime.budget import Budget, make_budget
from runtime.outputs import file_sha256
from train import mine
from train.dataset import load_folder
from train.prepared_files import base_of
from train.prepared_scan import PreparedScan
from train.run import RunSettings, fast_bf16, level_name, train
from train.validation import Validation, engine_of

DEPLOY = Path(__file__).resolve().parent.parent / "prototxt" / "rpn3d" / "deploy.prototxt"
UNIT_VOXELS = 4 * 64**3
"""Of an iteration at crop 64, by which lengths are told."""
LEVEL_SHARE = 0.5
"""Length of what follows the first level, of that of the first level."""
MINED_SHARE = 0.3
SEED = 3


@dataclass(frozen=True)
class Step:
    """A part of a run: a solver of its own.

    Attributes:
        crop: edge of the crops; the batch and the learning rate are those of the shipped schedule at that crop.
        share: of the run's voxels.
        weighted: with the weighted loss.
        frozen: with BatchNorm's statistics as the run before left them.
        easy: with hard negatives from few, as the first part of the shipped schedule.
    """

    crop: int
    share: float = 1.0
    weighted: bool = False
    frozen: bool = False
    easy: bool = False

    @property
    def name(self) -> str:
        """Of its solver."""
        return f"{self.crop}{'_easy' * self.easy}"


@dataclass(frozen=True)
class Recipe:
    """One run.

    Attributes:
        name: as in the table.
        steps: one after the other.
        dropout: 0.1 before the head, or none.
        anchors: in voxels.
        after: the run from whose weights it goes on; "": from the fillers.
        mined: whether it draws from what that run, and those before it that were mined, got wrong.
        seed: of the fillers, the crops and dropout.
    """

    name: str
    steps: tuple[Step, ...]
    dropout: bool = True
    anchors: tuple[float, ...] = ANCHORS_VOXEL
    after: str = ""
    mined: bool = False
    seed: int = SEED

    @property
    def folder(self) -> str:
        """A name for its folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


PLAIN = (Step(64, 0.5, easy=True), Step(64, 0.5))
SCHEDULE = (Step(32, 0.5, easy=True), Step(64, 0.3), Step(128, 0.2))
HARD = (Step(32, 0.5), *SCHEDULE[1:])
ALL = "crop 32, 64, 128"
RECIPES = (
    Recipe(ALL, SCHEDULE),
    Recipe("crop 64", PLAIN),
    Recipe(f"{ALL}, no dropout", SCHEDULE, dropout=False),
    Recipe("crop 64, no dropout", PLAIN, dropout=False),
    Recipe(f"{ALL}, another seed", SCHEDULE, seed=SEED + 1),
    Recipe(f"{ALL}, hardest negatives from the start", HARD),
    Recipe(f"{ALL}, anchors 10, 30, 60", SCHEDULE, anchors=(10.0, 30.0, 60.0)),
    Recipe("level 1 goes on", (Step(64),), after=ALL),
    Recipe("level 2", (Step(64),), after=ALL, mined=True),
    Recipe("level 3, plain loss", (Step(128, frozen=True),), after="level 2", mined=True),
    Recipe("level 3, weighted loss", (Step(128, weighted=True, frozen=True),), after="level 2", mined=True),
)


def write_texts(recipe: Recipe, iterations: int, folder: Path) -> list[Path]:
    """Net and solver of each step, in `folder`; the solvers' paths.

    Args:
        iterations: of the whole run, were it all at crop 64 in batches of 4.

    A run from the fillers has the shipped learning rate until three quarters of its last step, a tenth of it from there
    on; what goes on from a run falls to nothing, as the shipped levels do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    solvers = []
    for number, step in enumerate(recipe.steps):
        stage = next(one for one in STAGES if one.name == str(step.crop))
        count = max(1, round(iterations * step.share * UNIT_VOXELS / (stage.batch * step.crop**3)))
        last = number == len(recipe.steps) - 1
        policy = f'lr_policy: "step" gamma: 0.1 stepsize: {max(1, round(0.75 * count)) if last else count}'
        if recipe.after:
            policy = 'lr_policy: "poly" power: 1'
        net = folder / f"train_{step.name}.prototxt"
        anchors = recipe.anchors
        text = train_net(
            step.crop,
            stage.batch,
            step.weighted,
            frozen=step.frozen,
            easy=step.easy,
            dropout=recipe.dropout,
            anchors=anchors,
        )
        solver = (
            f'net: "{net.name}" type: "SGD" base_lr: {stage.base_lr:g} {policy} momentum: 0.9\n'
            f"weight_decay: {WEIGHT_DECAY:g} max_iter: {count} snapshot: {max(1, count // 4)}\n"
            f'snapshot_prefix: "{step.name}" random_seed: {recipe.seed} solver_mode: CPU\n'
        )
        solvers.append(folder / f"solver_{step.name}.prototxt")
        for path, content in ((net, text), (solvers[-1], solver)):
            if not path.is_file() or path.read_text(encoding="utf-8") != content:
                with replacing(path) as part:
                    part.write_text(content, encoding="utf-8")
    return solvers


def hold_out(scans: Sequence[PreparedScan], count: int) -> tuple[list[PreparedScan], list[PreparedScan]]:
    """Scans to train on, and the last `count` phantoms to try the models on.

    Raises:
        Rpn3dError: there are not so many.
    """
    phantoms = sorted(scan.seriesuid for scan in scans if scan.seriesuid.startswith("phantom"))
    if len(phantoms) <= count:
        raise Rpn3dError(f"--validation {count}: there are {len(phantoms)} prepared phantoms; some must be left")
    held = set(phantoms[len(phantoms) - count :])
    apart = [scan for scan in scans if base_of(scan.seriesuid) in held]
    return [scan for scan in scans if base_of(scan.seriesuid) not in held], apart


@dataclass(frozen=True)
class Study:
    """What all runs have in common.

    Attributes:
        scans, held: to train on, and to try on.
        work: folder that keeps the runs.
        iterations: length of a first run, at crop 64 in batches of 4.
        settings, budget: how to run.
    """

    scans: Sequence[PreparedScan]
    held: Sequence[PreparedScan]
    work: Path
    iterations: int
    settings: RunSettings
    budget: Budget

    @property
    def precision(self) -> str:
        """What all is computed in: training, mining and trying."""
        return "bf16" if self.settings.autocast else "f32"

    def run(self, recipes: Sequence[Recipe]) -> dict[str, dict[str, Any]]:
        """All of them in order; the figures of each by name.

        Raises:
            Rpn3dError, TrainingStopped: see `train.run.train`. Run again, it goes on.
        """
        weights: dict[str, Path] = {}
        hard: dict[str, list[mine.Hard]] = {}
        for recipe in recipes:
            folder = self.work / recipe.folder
            before = weights.get(recipe.after)
            if before is not None and recipe.mined and recipe.after not in hard:
                known = next((hard[one.after] for one in recipes if one.name == recipe.after and one.mined), [])
                hard[recipe.after] = [*known, *self._mined(before, recipe.after)]
            length = round(self.iterations * (LEVEL_SHARE if recipe.after else 1.0))
            solvers = write_texts(recipe, length, folder / "prototxt")
            validation = Validation(tuple(self.held), DEPLOY, 0, self.budget, self.precision, anchors=recipe.anchors)
            # Each level of a run ends with a validation, of which only the last is asked for.
            for part, tried in ((solvers[:-1], None), (solvers[-1:], validation)):
                if part:
                    before = train(
                        part,
                        self.scans,
                        folder,
                        replace(self.settings, seed=recipe.seed),
                        print,
                        before,
                        hard=hard.get(recipe.after, ()) if recipe.mined else (),
                        validation=tried,
                        later=() if tried else solvers[-1:],
                    )
            assert before is not None
            weights[recipe.name] = before
        return {recipe.name: figures(recipe, self.work / recipe.folder) for recipe in recipes}

    def _mined(self, weights: Path, name: str) -> list[mine.Hard]:
        engine = engine_of(read_caffemodel(weights), DEPLOY, self.precision, self.budget.cpus)
        folder = self.work / f"mined-{Path(weights).parent.parent.name}"
        print(f"mining with {name}: {len(self.scans)} scans, into {folder}")
        digest, options = file_sha256(weights), {"share": MINED_SHARE, "seed": SEED}
        mine.mine(self.scans, engine, digest, self.budget, folder, print, **options)  # type: ignore[arg-type]
        return mine.load(folder, self.scans)


def figures(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the logs of a run say: loss over voxels, time, and what the last validation found."""
    voxels: list[float] = []
    losses: list[float] = []
    seconds = 0.0
    for step in recipe.steps:
        stage = next(one for one in STAGES if one.name == str(step.crop))
        level = folder / level_name(Path(f"solver_{step.name}.prototxt"))
        for line in (level / "log.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            voxels.append((voxels[-1] if voxels else 0.0) + stage.batch * step.crop**3 / 1e6)
            losses.append(0.5 * row["losses"]["loss_pos"] + 0.5 * row["losses"]["loss_neg"] + row["losses"]["loss_reg"])
            seconds += row["seconds"]
    found = json.loads((level / "validation.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        **{key: value for key, value in asdict(recipe).items() if key != "name"},
        "megavoxels": [round(one, 2) for one in voxels],
        "loss": [round(one, 4) for one in losses],
        "loss_at_the_end": fmean(losses[-max(1, len(losses) // 5) :]),
        "minutes": seconds / 60,
        "cpm": found["cpm"],
        "sensitivity": {key: value for key, value in found.items() if key.startswith("sensitivity_at_")},
        "counts": found["counts"],
    }


def draw(runs: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Left: losses of the runs from the fillers over what they went through; right: what each run finds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    first = [name for name, run in runs.items() if not run["after"]]
    for name in first:
        loss, voxels = np.asarray(runs[name]["loss"]), np.asarray(runs[name]["megavoxels"])
        width = max(1, len(loss) // 10)
        left.plot(voxels[width - 1 :], np.convolve(loss, np.full(width, 1 / width), "valid"), label=name, linewidth=1.2)
    left.set_xlabel("million voxels")
    left.set_ylabel("loss, mean over a tenth of the run")
    left.set_ylim(0, 1)
    left.grid(alpha=0.3)
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    names = list(runs)[::-1]
    right.barh(names, [runs[name]["cpm"] for name in names], color=["C0" if name in first else "C1" for name in names])
    right.set_xlabel("CPM")
    right.grid(alpha=0.3, axis="x")
    save_picture(figure, out)


def markdown(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of the table, from the JSON alone."""
    lines = ["| run | goes on from | minutes | loss at the end | CPM | found at 1 / at 8 false positives a scan |"]
    lines.append("|---|---|---|---|---|---|")
    for name, run in runs.items():
        at = [run["sensitivity"][f"sensitivity_at_{rate}"] for rate in (1, 8)]
        lines.append(
            f"| {name} | {run['after'] or 'the fillers'} | {run['minutes']:.1f} | {run['loss_at_the_end']:.3f} "
            f"| {run['cpm']:.3f} | {at[0]:.3f} / {at[1]:.3f} |"
        )
    return "\n".join(lines)


def main(
    prepared: Annotated[
        Path, typer.Argument(metavar="PREPARED", help="Folder of prepared scans, phantoms among them.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="For convergence.json and convergence.png.")],
    work: Annotated[Path, typer.Option(help="Keeps the runs.")] = Path("convergence"),
    validation: Annotated[int, typer.Option(help="Phantoms to try the models on, the last ones.")] = 6,
    iterations: Annotated[int, typer.Option(help="Of a first run, at crop 64 in batches of 4.")] = 450,
    only: Annotated[
        list[str] | None, typer.Option(help="Names of runs; default: all. What they need is run, too.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores.")] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Train in bfloat16; default: where it is fast.")
    ] = None,
) -> None:
    """Train each recipe, and show what it finds."""
    scans, held = hold_out(load_folder(prepared), validation)
    budget = make_budget(cpus=cpus)
    autocast = fast_bf16() if bf16 is None else bf16
    settings = RunSettings(seed=SEED, autocast=autocast, threads=budget.cpus, tensorboard=False, say_every=10, keep=1)
    chosen = with_what_they_need(only)
    work.mkdir(parents=True, exist_ok=True)
    study = Study(scans, held, work, iterations, settings, budget)
    found = study.run(chosen)
    content = {"iterations": iterations, "scans": len(scans), "held": len(held), "seed": SEED, "in": study.precision}
    content["runs"] = found
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "convergence.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(found, out / "convergence.png")
    print(markdown(found))


def with_what_they_need(names: Sequence[str] | None) -> list[Recipe]:
    """The recipes of these names and those that they go on from, in the order of `RECIPES`.

    Raises:
        Rpn3dError: there is none of that name.
    """
    known = {recipe.name: recipe for recipe in RECIPES}
    if unknown := [name for name in names or () if name not in known]:
        raise Rpn3dError(f'--only "{unknown[0]}" is no run; allowed: {"; ".join(known)}')
    wanted: set[str] = set()
    waiting = list(names or known)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        if before := known[name].after:
            waiting.append(before)
    return [recipe for recipe in RECIPES if recipe.name in wanted]


if __name__ == "__main__":
    import sys

    try:
        typer.run(main)
    except Rpn3dError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
