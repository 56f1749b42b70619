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
    iterations: Annotated[int | None, typer.Option(min=1, help="Of each level; default: max_iter.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, crops and dropout.")] = 1,
    cpus: Cpus = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Compute in bfloat16 (weights stay float32); default: where it is fast."),
    ] = None,
    show_sampling: Annotated[
        bool, typer.Option("--show-sampling", help="Draw the crops that training would get, and do not train.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train the detector; a run that was stopped goes on from its last snapshot."""
    from runtime.budget import make_budget
    from train.dataset import load_folder
    from train.prepare import Sources, StoppedError, prepare_all
    from train.run import RunSettings, fast_bf16
    from train.run import train as run
    from train.splits import parse_validation, read_patients, split_for_run

    fast = fast_bf16()  # asks PyTorch, whose absence is better told before minutes of preparing
    budget = make_budget(cpus=cpus)
    solvers = [NET.with_name(f"solver_{crop.strip()}.prototxt") for crop in crops.split(",")]
    for solver in solvers:
        if not solver.is_file():
            known = ", ".join(
                sorted(path.stem.removeprefix("solver_") for path in NET.parent.glob("solver_*.prototxt"))
            )
            raise Rpn3dError(f"--crops {crops}: there is no {solver.name}; crops are {known}")
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
    try:
        prepared = prepare_all(sources, out / "prepared", lambda text: say(text, quiet), bar=bar)
    except StoppedError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        raise typer.Exit(130) from None
    training, _ = split_for_run(
        load_folder(prepared),
        hold_out,
        same_patient,
        seed,
        out,
        lambda text: say(text, quiet),
        keep=not show_sampling,
    )
    if show_sampling:
        from train.sampling_pictures import level_to_show, show_level

        level = level_to_show(solvers)
        say(f"drawing crops of {level.stem}", quiet)
        report = show_level(level, training, out, seed)
        show(str(report), None, False, quiet)
        return
    settings = RunSettings(
        seed=seed, autocast=fast if bf16 is None else bf16, threads=budget.cpus, iterations=iterations
    )
    done = run(solvers, training, out, settings, lambda text: say(text, quiet), weights)
    show(str(done), None, False, quiet)
