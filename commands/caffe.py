"""`rpn3d caffe ...`: run, train and look into any Caffe net."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import Cpus, Json, Quiet, show

app = typer.Typer(help="Run, train and look into any Caffe net.", no_args_is_help=True, rich_markup_mode=None)


@app.command(
    name="run", epilog="Example: rpn3d caffe run net.prototxt net.caffemodel --inputs in.npz --outputs out.npz"
)
def caffe_run(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net.")],
    weights: Annotated[Path, typer.Argument(metavar="CAFFEMODEL", help="Its weights.")],
    inputs: Annotated[Path, typer.Option(help=".npz with one array for each input blob.")],
    outputs: Annotated[Path, typer.Option(help=".npz to write, one array for each output blob.")],
    engine: Annotated[str, typer.Option(help="torch, onnxruntime or openvino.")] = "torch",
    blobs: Annotated[str, typer.Option(help="Further blobs to write, A,B (torch only).")] = "",
) -> None:
    """Run any Caffe net on arrays, in one of three engines."""
    from convert.command import run_caffe_net

    run_caffe_net(net, weights, inputs, outputs, engine, [name for name in blobs.split(",") if name])


@app.command(name="train", epilog="Example: rpn3d caffe train solver.prototxt --feed inputs.npz --log log.jsonl")
def caffe_train(
    solver: Annotated[Path, typer.Argument(metavar="SOLVER", help="The solver prototxt.")],
    feed: Annotated[Path, typer.Option(help=".npz: each Input blob as (iterations, iter_size, *shape).")],
    log: Annotated[Path, typer.Option(help="Where a JSON object goes for each iteration; - is standard output.")],
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Go on from this .solverstate, and with its log.")] = None,
    test_feed: Annotated[
        list[Path] | None, typer.Option(help=".npz: each Input blob of a test net as (passes, *shape); one a test net.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of fillers and dropout; default: random_seed.")] = None,
    cpus: Cpus = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train any Caffe net on arrays, as its solver says.

    Ctrl-C and SIGTERM end the run after the present iteration with a snapshot (exit code 130, 143); SIGHUP writes one.
    """
    from runtime.budget import make_budget
    from train.caffe_train import train_on_arrays

    if as_json and str(log) == "-":
        raise Rpn3dError("--json and --log - both write to standard output; give one of them")
    done = train_on_arrays(
        solver,
        feed,
        log,
        weights,
        snapshot,
        test_feeds=test_feed or (),
        seed=seed,
        threads=make_budget(cpus=cpus).cpus,
        quiet=quiet,
    )
    written = None if done.snapshot is None else str(done.snapshot)
    result = {"iterations": done.solver.iteration, "snapshot": written, "stopped_by": done.stopped_by}
    text = f"{done.solver.iteration} iterations" + (f", {written}" if written else "")
    show(text, result, as_json, quiet or str(log) == "-")
    if done.stopped_by is not None:
        raise typer.Exit(128 + done.stopped_by)


@app.command(name="inspect", epilog="Example: rpn3d caffe inspect deploy.prototxt")
def caffe_inspect(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net.")],
    phase: Annotated[str, typer.Option(help="TEST or TRAIN.")] = "TEST",
    as_json: Json = False,
) -> None:
    """List a net's layers with their shapes, parameters and multiply-adds."""
    import train.python_layers  # noqa: F401  so that our own train nets can be read
    from caffe_models.net_table import inspect_net, table

    rows = inspect_net(net, phase)
    show(table(rows), [asdict(row) for row in rows], as_json)
