"""`rpn3d caffe ...`: run, train and look into any Caffe net."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from commands.options import DialectOption, Json, Quiet, known_dialect, show

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
    dialect: DialectOption = None,
) -> None:
    """Run any Caffe net on arrays, in one of three engines."""
    from convert.command import run_caffe_net

    wanted = [name for name in blobs.split(",") if name]
    run_caffe_net(net, weights, inputs, outputs, engine, wanted, known_dialect(dialect))


@app.command(name="train", epilog="Example: rpn3d caffe train solver.prototxt --feed inputs.npz --log log.jsonl")
def caffe_train(
    solver: Annotated[Path, typer.Argument(metavar="SOLVER", help="The solver prototxt.")],
    feed: Annotated[Path, typer.Option(help=".npz: each Input blob as (iterations, iter_size, *shape).")],
    log: Annotated[Path, typer.Option(help="Where a JSON object goes for each iteration.")],
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Go on from this .solverstate.")] = None,
    dialect: DialectOption = None,
) -> None:
    """Train any Caffe net on arrays, as its solver says."""
    from train.caffe_train import train_on_arrays

    train_on_arrays(solver, feed, log, weights, snapshot, known_dialect(dialect))


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


@app.command(
    name="translate",
    epilog="Example: rpn3d caffe translate old.prototxt old.caffemodel --to extended -o translated/",
)
def caffe_translate(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net; or a .caffemodel alone, which holds one.")],
    weights: Annotated[Path | None, typer.Argument(metavar="[CAFFEMODEL]", help="Its weights.")] = None,
    *,
    to: Annotated[str, typer.Option("--to", help="bvlc, intel or extended.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="X.prototxt, or a folder.")],
    weights_out: Annotated[
        Path | None, typer.Option(help="Where the weights go (.h5: HDF5); default: beside the text.")
    ] = None,
    batch_norm: Annotated[
        str,
        typer.Option(
            help="keep; split: gamma and beta as a Scale layer (bvlc: always); merge: Scale into BatchNorm (MKL2017)."
        ),
    ] = "keep",
    dialect: DialectOption = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a net and its weights, or a solver, in another dialect of Caffe, with the same outputs.

    Old forms (V0, V1, input fields) come out in today's. Comments are lost.
    """
    import train.python_layers  # noqa: F401  so that our own train nets can be read
    from caffe_models.translate_files import translate_files

    done = translate_files(net, to, out, weights, weights_out, known_dialect(dialect), batch_norm)
    show("\n".join(done.lines()), done.as_json(), as_json, quiet)
