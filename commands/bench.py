"""`rpn3d bench ...`: figures under a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import (
    NET,
    WEIGHTS,
    Cpus,
    InputShapes,
    Json,
    Memory,
    ModelOption,
    Precision,
    read_shapes,
    say,
    show,
)

if TYPE_CHECKING:
    from bench.warm import WarmTask

app = typer.Typer(help="Measure under a budget.", no_args_is_help=True, rich_markup_mode=None)


@app.command(name="scan", epilog="Example: rpn3d bench scan scan.mhd --precision f32 --cpus 2")
def bench_scan(
    scan: Annotated[str, typer.Argument(metavar="SCAN", help="A file, DICOM folder or folder of scans.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for bench_scan.json and bench_scan.png.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs; medians are shown.")] = 3,
    warm: Annotated[int, typer.Option(min=0, help="Scans in a warm process, nothing beside them; 0: none.")] = 2,
    precision: Precision = "auto",
    cpus: Cpus = None,
    memory: Memory = None,
    model: ModelOption = None,
    pictures: Annotated[bool, typer.Option(help="Draw pictures, too.")] = False,
    as_json: Json = False,
) -> None:
    """Seconds by stage and peak memory from file to CSV, each run a process of its own; a folder's pace."""
    from bench.scan import bench_scan as measure
    from bench.scan import draw_scan, table, write_json

    options = ["--precision", precision, "--pictures" if pictures else "--no-pictures"]
    for name, value in (("--cpus", cpus), ("--memory", memory), ("--model", model)):
        options += [] if value is None else [name, str(value)]
    task = _warm_task(scan, model, precision, cpus, memory, pictures, warm) if warm else None
    result = measure(scan, runs=runs, options=options, warm=task, say=say)
    if out is not None:
        write_json(result, out / "bench_scan.json")
        draw_scan(result.as_json(), out / "bench_scan.png")
    show(table(result.as_json()), result.as_json(), as_json)


@app.command(name="engines", epilog="Example: rpn3d bench engines net.prototxt net.caffemodel -o out --runs 5")
def bench_engines(
    net: Annotated[Path, typer.Argument(metavar="[PROTOTXT]", help="The net; default: ours.")] = NET,
    weights: Annotated[Path, typer.Argument(metavar="[CAFFEMODEL]", help="Its weights.")] = WEIGHTS,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for bench_engines.json and bench_engines.png.")
    ] = None,
    arrays: Annotated[Path | None, typer.Option("--inputs", help=".npz, an array for each input blob.")] = None,
    inputs: InputShapes = None,
    engines: Annotated[
        str, typer.Option(help="Of torch,onnxruntime,openvino,rpn3d,opencv,benchmark_app; or one, such as torch-bf16.")
    ] = "",
    int8: Annotated[Path | None, typer.Option(help="The net's int8 .xml; default: that of our own net.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each; medians are shown.")] = 5,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """The same net through every engine and importer: seconds, how far from torch f32, and OpenVINO's bound."""
    from bench.engine_job import Task, inputs_for, words_for
    from bench.engine_kinds import FAMILIES
    from bench.engines import bench_engines as measure
    from bench.engines import draw_engines, table, write_json
    from runtime.budget import make_budget

    if weights == WEIGHTS and net != NET:
        raise Rpn3dError(f"{net}: no weights given; usage: rpn3d bench engines PROTOTXT CAFFEMODEL")
    families = tuple(name.strip() for name in engines.split(",") if name.strip()) or FAMILIES
    fed = inputs_for(net, arrays, read_shapes(inputs or []))
    task = Task(
        net,
        weights,
        fed,
        families,
        runs,
        make_budget(cpus=cpus).cpus,
        int8=int8 or (_own_int8() if net == NET else None),
        inputs_are=words_for(net, arrays, read_shapes(inputs or [])),
    )
    result = measure(task, say)
    if out is not None:
        write_json(result, out / "bench_engines.json")
        draw_engines(result, out / "bench_engines.png")
    show(table(result), result, as_json)


@app.command(name="caffe", epilog="Example: rpn3d bench caffe --crops 64,96 --cpus 2 -o figures")
def bench_caffe(
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_caffe.json.")] = None,
    crops: Annotated[str, typer.Option(help="Edges of the input in voxels, multiples of 16.")] = "64,96,128",
    runs: Annotated[int, typer.Option(min=1, help="Timed passes of each; medians are shown.")] = 5,
    backward: Annotated[bool, typer.Option(help="Time forward and backward, too.")] = True,
    peak: Annotated[bool, typer.Option(help="Measure the memory, too.")] = True,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """Executing the prototxt against a hand-written PyTorch module of the same net; reading, building, exporting."""
    from bench.caffe_engine import bench_caffe as measure
    from bench.caffe_engine import table, write_json
    from runtime.budget import make_budget

    edges = _numbers("--crops", crops, "64,96")
    threads = make_budget(cpus=cpus).cpus
    result = measure(NET, WEIGHTS, crops=edges, runs=runs, threads=threads, backward=backward, memory=peak, say=say)
    if out is not None:
        write_json(result, out / "bench_caffe.json")
    show(table(result.as_json()), result.as_json(), as_json)


@app.command(name="train", epilog="Example: rpn3d bench train --crops 32,64 --steps 10 -o figures")
def bench_train(
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_train.json.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of prepared scans; default: two small phantoms, made now.")
    ] = None,
    crops: Annotated[str, typer.Option(help="Crop sizes, of those that have a solver.")] = "32,64,128",
    precisions: Annotated[
        str | None, typer.Option("--precision", help="f32,bf16; default: f32, and bf16 where the processor has it.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each loop; medians are shown.")] = 8,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before them.")] = 2,
    contiguous: Annotated[
        bool, typer.Option("--contiguous", help="Time the plain loop in PyTorch's default memory format, too.")
    ] = False,
    curves: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ITERATIONS",
            help="Instead: train so many iterations at the first crop size in f32 and in bf16, and draw both losses.",
        ),
    ] = None,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """Training: crops a second of our step against a plain PyTorch loop of the same net, waits for data, memory."""
    from tempfile import TemporaryDirectory

    from bench.training import Task, bench_training, make_data, solver_of, table, write_json
    from runtime.budget import make_budget
    from train.run import fast_bf16

    edges = _numbers("--crops", crops, "32,64")
    for crop in edges:
        solver_of(NET.parent, crop)  # before minutes of preparing
    if curves is not None and out is None:
        raise Rpn3dError("--curves trains: give a folder for its snapshots and its picture with -o")
    fast, threads = fast_bf16(), make_budget(cpus=cpus).cpus
    asked = tuple(name.strip() for name in (precisions or ("f32,bf16" if fast else "f32")).split(","))
    left_out = "" if fast or precisions else "bf16 left out: this processor emulates it (--precision bf16 measures it)"
    with TemporaryDirectory(prefix="rpn3d-bench-") as made:
        data_is = str(data) if data is not None else make_data(Path(made), say)
        folder = data if data is not None else Path(made)
        if curves is not None and out is not None:
            _bench_curves(solver_of(NET.parent, edges[0]), folder, data_is, out, curves, threads, as_json)
            return
        task = Task(
            data=folder,
            data_is=data_is,
            nets=NET.parent,
            weights=WEIGHTS,
            threads=threads,
            crops=edges,
            precisions=asked,
            left_out=left_out,
            steps=steps,
            warmup=warmup,
            contiguous=contiguous,
        )
        result = bench_training(task, say)
    if out is not None:
        write_json(result, out / "bench_train.json")
    show(table(result), result, as_json)


def _bench_curves(
    solver: Path, data: Path, data_is: str, out: Path, iterations: int, threads: int, as_json: bool
) -> None:
    from bench.training_curves import draw_curves, table, train_both, write_json

    result = train_both(solver, data, data_is, out, iterations, threads, say)
    write_json(result, out / "bench_train_curves.json")
    draw_curves(result, out / "bench_train_curves.png")
    show(table(result), result, as_json)


def _warm_task(
    scan: str, model: Path | None, precision: str, cpus: int | None, memory: str | None, pictures: bool, repeats: int
) -> "WarmTask":
    """What `rpn3d detect` with these options would do, for one scan after the other in one process."""
    from bench.warm import WarmTask
    from convert.model_file import cache_folder, model_file
    from runtime.budget import make_budget

    budget = make_budget(cpus=cpus, memory=memory)
    path = model_file(model, precision, net=NET, weights=WEIGHTS, say=say)
    compiled = str(cache_folder() / "compiled")
    return WarmTask(scan, str(path), precision, budget.cpus, budget.memory_bytes, pictures, repeats, compiled)


def _own_int8() -> Path | None:
    """The int8 model that comes with ours, if there is one made from its weights."""
    from caffe_models.errors import NetError
    from convert.model_file import model_file

    try:
        return model_file(None, "int8", net=NET, weights=WEIGHTS)
    except NetError:
        return None


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise Rpn3dError(f"{option} {text}: give numbers with commas between them, such as {example}") from error


@app.command(name="scaling", epilog="Example: rpn3d bench scaling --cpus 2 --precision f32,int8 -o figures")
def bench_scaling(
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_scaling.json and .png.")] = None,
    model: ModelOption = None,
    cpus: Cpus = None,
    precisions: Annotated[
        str, typer.Option("--precision", help="Of f32,bf16,int8; default: those this processor computes in.")
    ] = "",
    sweeps: Annotated[str, typer.Option(help="Of cores,streams,windows,scans,isa,roof,layers; default: all.")] = "",
    edge: Annotated[int, typer.Option(help="Window for cores, streams and instruction sets; a multiple of 16.")] = 96,
    windows: Annotated[str, typer.Option(help="Edges of the windows; default: 64,96,128,192.")] = "",
    scans: Annotated[str, typer.Option(help="Scans in a set; default: 1,2,4.")] = "",
    scan: Annotated[
        Path | None, typer.Option(help="One file, for the sets; default: a small phantom, made now.")
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Turns of each point; default: 3.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller windows, fewer scans and turns.")] = False,
    as_json: Json = False,
) -> None:
    """Throughput against cores, streams, window, scans in a set, instruction set; the machine's roof and our share."""
    from bench import scaling
    from bench import scaling_points as points
    from runtime.budget import make_budget

    edges, sets, turns = points.QUICK if quick else points.FULL
    task = points.Task(
        net=NET,
        weights=WEIGHTS,
        model=model,
        cpus=make_budget(cpus=cpus).cpus,
        precisions=_words(precisions),
        sweeps=_words(sweeps) or points.SWEEPS,
        edge=edge,
        windows=_numbers("--windows", windows, "64,96") if windows else edges,
        scans=_numbers("--scans", scans, "1,2") if scans else sets,
        runs=runs or turns,
        scan=scan,
    )
    result = scaling.bench_scaling(task, say)
    if out is not None:
        scaling.write_json(result, out / "bench_scaling.json")
        scaling.draw_scaling(result, out / "bench_scaling.png")
    show(scaling.table(result), result, as_json)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


@app.command(name="naive", epilog="Example: rpn3d bench naive scan.mhd --model build --cpus 2 -o figures")
def bench_naive(
    scan: Annotated[str, typer.Argument(metavar="SCAN", help="A file or DICOM folder.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_naive.json and .png.")] = None,
    model: ModelOption = None,
    precision: Annotated[
        str, typer.Option(help="auto (those that the model and this processor have), or some of f32,bf16,int8.")
    ] = "auto",
    tiles: Annotated[int, typer.Option(min=0, help="Timed tiles of the classic way and of MONAI; 0: all.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="Runs of ours; medians are shown.")] = 3,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """How many times faster than the classic way (2017's pre-processing, eager PyTorch tiles) and than MONAI."""
    from bench.naive import Task, write_json
    from bench.naive import bench_naive as measure
    from bench.naive_report import draw_naive, table
    from runtime.budget import make_budget

    weights = model if model is not None and model.suffix == ".caffemodel" else WEIGHTS
    task = Task(scan, NET, weights, make_budget(cpus=cpus).cpus, model, precision, tiles, runs)
    result = measure(task, say)
    if out is not None:
        write_json(result, out / "bench_naive.json")
        draw_naive(result, out / "bench_naive.png")
    show(table(result), result, as_json)


@app.command(name="budget", epilog="Example: rpn3d bench budget scan.mhd -o out --scans 200 --within 60m")
def bench_budget(
    scans: Annotated[list[str], typer.Argument(metavar="SCAN...", help="Files, DICOM folders, or folders of scans.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for bench_budget.json and bench_budget.png.")
    ] = None,
    cpus: Annotated[str, typer.Option(help="Numbers of cores; default: 1, 2, 4, ... and all.")] = "",
    memory: Annotated[str, typer.Option(help="Sizes of memory.")] = "1G,2G,4G",
    precision: Annotated[
        str, typer.Option(help="f32,bf16,int8; default: these, bf16 only where the processor has it.")
    ] = "",
    model: ModelOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each cell; medians are shown.")] = 1,
    count: Annotated[int | None, typer.Option("--scans", help="Say whether so many scans fit into --within.")] = None,
    within: Annotated[str | None, typer.Option(help="A time such as 60m or 1h30m.")] = None,
    pictures: Annotated[bool, typer.Option(help="Draw pictures, too.")] = False,
    as_json: Json = False,
) -> None:
    """Scans an hour for cores x memory x precision, each cell held to its budget, and what fits into a given time."""
    from bench.budget import Task, ask, write_json
    from bench.budget import bench_budget as measure
    from bench.budget_report import draw_budget, table

    options = ["--pictures" if pictures else "--no-pictures", *([] if model is None else ["--model", str(model)])]
    task = Task(
        scans=tuple(scans),
        cpus=_numbers("--cpus", cpus, "1,2") if cpus else (),
        memory=_words(memory),
        precisions=_words(precision),
        options=tuple(options),
        rounds=runs,
        asked=ask(count, within),
    )
    result = measure(task, say)
    if out is not None:
        write_json(result, out / "bench_budget.json")
        draw_budget(result, out / "bench_budget.png")
    show(table(result), result, as_json)
