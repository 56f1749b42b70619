"""`rpn3d train`: the detector's training run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import NET, Cpus, Out, Quiet, say, show

WORKER_BYTES = 2 << 30
"""What one process that prepares a scan, or makes a phantom, may need."""

app = typer.Typer()


@app.command(epilog="Example: rpn3d train -o run --phantoms 40 --nodules cubes.npz --background lungs.npz")
def train(
    out: Out,
    phantoms: Annotated[int, typer.Option(min=0, help="Synthetic CTs to train on.")] = 20,
    phantom_nodules: Annotated[
        int | None, typer.Option(min=0, help="Nodules in each of them; default: 0 to 12, drawn.")
    ] = None,
    scans: Annotated[
        list[Path] | None,
        typer.Option(help="Annotated scans: a file, a folder, the whole of LUNA16 or Tianchi; may be repeated."),
    ] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="Their nodules, as in LUNA16; default: annotations.csv there; repeatable.")
    ] = None,
    excluded: Annotated[
        list[Path] | None,
        typer.Option(help="Findings that count neither way; default: annotations_excluded.csv there; repeatable."),
    ] = None,
    background: Annotated[list[Path] | None, typer.Option(help="Other scans, to put nodules into.")] = None,
    nodules: Annotated[Path | None, typer.Option(help="Real nodules to put in (.npz).")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A nodule of --nodules that is not put in; repeatable.")
    ] = None,
    copies: Annotated[int, typer.Option(min=0, help="Copies with inserted nodules of each real scan.")] = 8,
    validation: Annotated[
        str | None,
        typer.Option(metavar="FILE|SHARE", help="Hold out: a list of seriesuids, or a share of patients such as 0.1."),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV seriesuid,patient: which series are of one patient.")
    ] = None,
    crops: Annotated[str, typer.Option(help="Schedule, each from the weights before.")] = "32,64,128",
    levels: Annotated[
        int, typer.Option(min=1, help="Levels of hard mining: the schedule is the first, each other mines before it.")
    ] = 3,
    mine_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of each scan's slices that is mined between two levels.")
    ] = 0.3,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of each stage; default: max_iter.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, crops and dropout.")] = 1,
    cpus: Cpus = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Compute in bfloat16 (weights stay float32); default: where it is fast."),
    ] = None,
    mined: Annotated[Path | None, typer.Option(help="Hard examples to draw crops from, of `rpn3d mine`.")] = None,
    validate_on: Annotated[
        int, typer.Option(min=0, help="Scans tried while training: of those held out, else synthetic CTs; 0: none.")
    ] = 3,
    validate_every: Annotated[
        int | None,
        typer.Option(min=0, help="Iterations between validations; 0: at a level's end alone; default: 5 % of time."),
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Snapshots kept of each level, the last ones; 0: all.")] = 3,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Share each batch and the cores; torchrun on many machines works as well.")
    ] = 1,
    show_sampling: Annotated[
        bool, typer.Option("--show-sampling", help="Draw the crops that training would get, and do not train.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train the detector; a run that was stopped goes on from its last snapshot.

    Ctrl-C and SIGTERM end the run after the present iteration with a snapshot (exit code 130, 143); SIGHUP writes one.
    """
    from runtime.budget import make_budget
    from train.device import choose_device
    from train.distributed import in_processes, torchrun_share
    from train.levels import Mining, level_solvers, train_in_levels
    from train.mine import load
    from train.prepare import Sources, StoppedError
    from train.run import RunSettings, TrainingJob, TrainingStopped, fast_bf16
    from train.splits import parse_validation, read_patients
    from train.training_scans import held_out, training_scans
    from train.validation import Validation

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
    later = level_solvers(NET.parent, levels)
    hold_out = None if validation is None else parse_validation(validation)
    same_patient = None if patients is None else read_patients(patients)
    sources = Sources(
        scans=tuple(scans or ()),
        annotations=tuple(annotations or ()),
        excluded=tuple(excluded or ()),
        backgrounds=tuple(background or ()),
        nodules=nodules,
        leave_out=tuple(leave_out or ()),
        copies=copies,
        phantoms=phantoms,
        phantom_nodules=phantom_nodules,
        workers=max(1, min(budget.cpus, budget.memory_bytes // WORKER_BYTES)),
        seed=seed,
    )
    bar = not quiet and sys.stderr.isatty()
    settings = RunSettings(
        seed=seed,
        autocast=fast if bf16 is None else bf16,
        threads=max(1, budget.cpus // processes),
        iterations=iterations,
        keep=keep,
        quiet=quiet,
        device=device,
    )
    with torchrun_share() as share:
        leads = share is None or share.leads

        def report(text: str) -> None:
            say(text, quiet or not leads)

        try:
            training, others = training_scans(
                sources, out, hold_out, same_patient, report, keep=not show_sampling, bar=bar, share=share
            )
            if show_sampling:
                from train.sampling_pictures import level_to_show, show_level

                level = level_to_show(solvers)
                report(f"drawing crops of {level.stem}")
                show(str(show_level(level, training, out, seed)), None, False, quiet)
                return
            tried = held_out(others, validate_on, sources, out, report, bar=bar) if leads else ()
        except StoppedError as error:
            print(f"rpn3d: {error}", file=sys.stderr)
            raise typer.Exit(130) from None
        precision = "bf16" if settings.autocast and fast_bf16() else "f32"
        job = TrainingJob(
            tuple(solvers),
            tuple(training),
            out,
            settings,
            weights,
            tuple(load(mined, training)) if mined is not None else (),
            Validation(tried, NET, validate_every, budget, precision) if tried else None,
        )

        def start(one: TrainingJob) -> Path:
            return in_processes(processes, one, report) if share is None else one(share, report)

        mining = Mining(NET, precision, budget, mine_share, seed)
        try:
            done = train_in_levels(
                job, later, mining, start, report, leads=leads, wait=share.wait if share is not None else lambda: None
            )
        except TrainingStopped as stopped:
            report(str(stopped))
            raise typer.Exit(128 + stopped.number) from stopped
    show(str(done), None, False, quiet or not leads)
