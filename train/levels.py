"""Hierarchical hard mining: the schedule is the first level; each further one draws from what the one before got wrong.

    crop 32, 64, 128 -> mine -> level 2 -> mine -> level 3 (with the weighted loss)

Each mining stands in `mined1`, `mined2` of the run's folder and goes on where it was, like everything else there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from caffe_models.errors import Rpn3dError
from caffe_models.weights import read_caffemodel
from runtime.budget import Budget
from runtime.outputs import file_sha256
from train import mine
from train.run import TrainingJob
from train.validation import engine_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Mining:
    """How to mine between two levels.

    Attributes:
        deploy: prototxt of the net as detection runs it.
        precision: f32, or bf16 where the processor has it.
        budget: cores and memory.
        share: of each scan's slices that is looked at.
        seed: of which slices; each level looks at others.
    """

    deploy: Path
    precision: str
    budget: Budget
    share: float
    seed: int


def level_solvers(schedule: Path, levels: int) -> list[Path]:
    """The solvers of levels 2 to `levels`: solver_level2.prototxt and so on beside those of the schedule.

    Args:
        schedule: the folder of the schedule's solvers.

    Raises:
        Rpn3dError: there are not so many levels.
    """
    found = [schedule / f"solver_level{level}.prototxt" for level in range(2, levels + 1)]
    for path in found:
        if not path.is_file():
            raise Rpn3dError(f"--levels {levels}: there is no {path}; give a smaller number")
    return found


def train_in_levels(
    job: TrainingJob,
    solvers: list[Path],
    mining: Mining,
    train: Callable[[TrainingJob], Path],
    say: Say,
    *,
    leads: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> Path:
    """Train `job`, then one level for each of `solvers`; the path of the last weights.

    A level draws from the false positives of all minings before it, and takes how sure the model was of a nodule from
    the last one that asked for it.

    Args:
        train: runs a job, in one process or in several.
        leads: whether this process is the one that mines; the others wait for it.
        wait: until all processes are here.

    Raises:
        Whatever `train` and `train.mine` raise.
    """
    weights = train(replace(job, later=tuple(solvers)))
    hard = list(job.hard)
    for number, solver in enumerate(solvers, 1):
        folder = job.out / f"mined{number}"
        if leads:
            say(f"mining for {solver.stem.removeprefix('solver_')}: {len(job.scans)} scans, into {folder}")
            engine = engine_of(read_caffemodel(weights), mining.deploy, mining.precision, mining.budget.cpus)
            seed, digest = mining.seed + number, file_sha256(weights)
            mine.mine(job.scans, engine, digest, mining.budget, folder, say, share=mining.share, seed=seed)
        wait()
        found = mine.load(folder, job.scans)
        if leads:
            for line in mine.summary(found):
                say(line)
        hard += found
        weights = train(
            replace(job, solvers=(solver,), later=tuple(solvers[number:]), weights=weights, hard=tuple(hard))
        )
    return weights
