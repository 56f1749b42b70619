"""`rpn3d train`: the detector's training run."""

from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import NET, Cpus, Out, Quiet, say, show

app = typer.Typer()

VALIDATION_SEED = 500
"""Of the first synthetic CT to validate on; those that are trained on begin at 1000."""


@app.command(epilog="Example: rpn3d train -o run --phantoms 40 --nodules cubes.npz --background lungs.npz")
def train(
    out: Out,
    phantoms: Annotated[int, typer.Option(min=0, help="Synthetic CTs to train on.")] = 20,
    scans: Annotated[
        list[Path] | None, typer.Option(help="Annotated scans (a file or folder; may be repeated).")
    ] = None,
    annotations: Annotated[Path | None, typer.Option(help="Their nodules, as in LUNA16.")] = None,
    excluded: Annotated[Path | None, typer.Option(help="Findings in them that count neither way.")] = None,
    background: Annotated[list[Path] | None, typer.Option(help="Other scans, to put nodules into.")] = None,
    nodules: Annotated[Path | None, typer.Option(help="Real nodules to put in (.npz).")] = None,
    copies: Annotated[int, typer.Option(min=0, help="Copies with inserted nodules of each real scan.")] = 8,
    crops: Annotated[str, typer.Option(help="Schedule, each from the weights before.")] = "32,64,128",
    iterations: Annotated[int | None, typer.Option(min=1, help="Of each level; default: max_iter.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    mined: Annotated[Path | None, typer.Option(help="Hard examples to draw crops from, of `rpn3d mine`.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Folder of prepared scans to validate on.")] = None,
    validation_phantoms: Annotated[
        int, typer.Option(min=0, help="Synthetic CTs to validate on, if no --validation is given.")
    ] = 2,
    validate_every: Annotated[
        int | None,
        typer.Option(min=0, help="Iterations between validations; 0: at a level's end alone; default: 5 % of time."),
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Snapshots kept of each level, the last ones; 0: all.")] = 3,
    seed: Annotated[int, typer.Option(help="Of weights, crops and dropout.")] = 1,
    cpus: Cpus = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Share each batch and the cores; torchrun on many machines works as well.")
    ] = 1,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Compute in bfloat16 (weights stay float32); default: where it is fast."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train the detector; a run that was stopped goes on from its last snapshot.

    Ctrl-C and SIGTERM end the run after the present iteration with a snapshot (exit code 130, 143); SIGHUP writes one.
    """
    from runtime.budget import make_budget
    from train.device import choose_device
    from train.distributed import in_processes
    from train.prepare import Sources, prepare_all
    from train.run import RunSettings, TrainingJob, TrainingStopped, fast_bf16

    device = choose_device(device, processes)
    fast = fast_bf16(device)  # asks PyTorch, whose absence is better told before minutes of preparing
    budget = make_budget(cpus=cpus)
    solvers = [NET.with_name(f"solver_{crop.strip()}.prototxt") for crop in crops.split(",")]
    for solver in solvers:
        if not solver.is_file():
            known = ", ".join(
                sorted(path.stem.removeprefix("solver_") for path in NET.parent.glob("solver_*.prototxt"))
            )
            raise Rpn3dError(f"--crops {crops}: there is no {solver.name}; crops are {known}")
    sources = Sources(
        scans=tuple(scans or ()),
        annotations=annotations,
        excluded=excluded,
        backgrounds=tuple(background or ()),
        nodules=nodules,
        copies=copies,
        phantoms=phantoms,
        workers=budget.cpus,
        seed=seed,
    )
    prepared = prepare_all(sources, out / "prepared", lambda text: say(text, quiet))
    if validation is None and validation_phantoms:
        others = Sources(phantoms=validation_phantoms, phantom_seed=VALIDATION_SEED, workers=budget.cpus)
        validation = prepare_all(others, out / "validation", lambda text: say(text, quiet))
    if validation is None:
        say("nothing to validate on: no best model is kept (--validation, --validation-phantoms)", quiet)
    settings = RunSettings(
        seed=seed,
        autocast=fast if bf16 is None else bf16,
        threads=max(1, budget.cpus // processes),
        iterations=iterations,
        keep=keep,
        quiet=quiet,
        device=device,
    )
    job = TrainingJob(tuple(solvers), prepared, out, settings, weights, mined, validation, NET, validate_every, budget)
    try:
        done = in_processes(processes, job, lambda text: say(text, quiet))
    except TrainingStopped as stopped:
        say(str(stopped), quiet)
        raise typer.Exit(128 + stopped.number) from stopped
    show(str(done), None, False, quiet)
