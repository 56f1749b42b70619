"""`rpn3d caffe ...`: run, train and look into any Caffe net."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import (
    Cpus,
    DialectOption,
    InputShapes,
    Json,
    Phase,
    Quiet,
    known_dialect,
    read_shapes,
    say,
    show,
)

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
    log: Annotated[Path, typer.Option(help="Where a JSON object goes for each iteration; - is standard output.")],
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Go on from this .solverstate, and with its log.")] = None,
    test_feed: Annotated[
        list[Path] | None, typer.Option(help=".npz: each Input blob of a test net as (passes, *shape); one a test net.")
    ] = None,
    dialect: DialectOption = None,
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
        known_dialect(dialect),
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


@app.command(name="inspect", epilog="Example: rpn3d caffe inspect deploy.prototxt --input data=1,1,64,64,64")
def caffe_inspect(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net; or a weights file alone, to list it.")],
    weights: Annotated[Path | None, typer.Argument(metavar="[CAFFEMODEL]", help="Its weights: do they fit?")] = None,
    inputs: InputShapes = None,
    phase: Phase = "TEST",
    dialect: DialectOption = None,
    precision: Annotated[str, typer.Option(help="Of values, for the bytes: f32, bf16, f16, int8.")] = "f32",
    as_json: Json = False,
) -> None:
    """Layers with shapes, parameters, multiply-adds, memory and receptive fields; and how weights fit."""
    from caffe_models.weights_table import looks_like_weights, stored_layers

    if looks_like_weights(net):
        if weights is not None:
            raise Rpn3dError(f"{net}: is a weights file; the prototxt comes first, then the weights")
        from caffe_models.net_table_text import stored_text

        stored = stored_layers(net)
        show(stored_text(str(net), stored), [asdict(layer) for layer in stored], as_json)
        return
    import train.python_layers  # noqa: F401  so that our own train nets can be read
    from caffe_models.net_table import inspect_net
    from caffe_models.net_table_text import net_text

    table = inspect_net(
        net,
        phase.upper(),
        weights=weights,
        dialect=known_dialect(dialect),
        input_shapes=read_shapes(inputs or []),
        precision=precision,
    )
    show(net_text(table), table.as_json(), as_json)


@app.command(name="draw", epilog="Example: rpn3d caffe draw deploy.prototxt -o net.svg")
def caffe_draw(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="X.svg or X.png.")],
    inputs: InputShapes = None,
    phase: Phase = "TEST",
    dialect: DialectOption = None,
    full: Annotated[bool, typer.Option("--full", help="Draw every layer, nothing grouped.")] = False,
    quiet: Quiet = False,
) -> None:
    """A picture of a net: layers grouped into blocks, skip connections, shapes, totals."""
    import train.python_layers  # noqa: F401  so that our own train nets can be read
    from caffe_models.draw import draw_net

    shapes = read_shapes(inputs or [])
    drawn = draw_net(net, out, phase.upper(), dialect=known_dialect(dialect), input_shapes=shapes, full=full)
    say(f"wrote {out}: {drawn}", quiet)


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
