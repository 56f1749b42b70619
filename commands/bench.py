"""`rpn3d bench ...`: figures under a budget."""

from pathlib import Path
from typing import Annotated

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

app = typer.Typer(help="Measure under a budget.", no_args_is_help=True, rich_markup_mode=None)


@app.command(name="scan", epilog="Example: rpn3d bench scan scan.mhd --precision f32 --cpus 2")
def bench_scan(
    scan: Annotated[str, typer.Argument(metavar="SCAN", help="A file, DICOM folder or folder of scans.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_scan.json.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs; medians are shown.")] = 3,
    precision: Precision = "auto",
    cpus: Cpus = None,
    memory: Memory = None,
    model: ModelOption = None,
    pictures: Annotated[bool, typer.Option(help="Draw pictures, too.")] = False,
    as_json: Json = False,
) -> None:
    """Seconds by stage and peak memory from file to CSV, each run a process of its own."""
    from bench.scan import bench_scan as measure
    from bench.scan import table, write_json

    options = ["--precision", precision, "--pictures" if pictures else "--no-pictures"]
    for name, value in (("--cpus", cpus), ("--memory", memory), ("--model", model)):
        options += [] if value is None else [name, str(value)]
    result = measure(scan, runs=runs, options=options, say=say)
    if out is not None:
        write_json(result, out / "bench_scan.json")
    show(table(result.as_json()), result.as_json(), as_json)


@app.command(name="engines", epilog="Example: rpn3d bench engines net.prototxt net.caffemodel -o out --runs 5")
def bench_engines(
    net: Annotated[Path, typer.Argument(metavar="[PROTOTXT]", help="The net; default: ours.")] = NET,
    weights: Annotated[Path, typer.Argument(metavar="[CAFFEMODEL]", help="Its weights.")] = WEIGHTS,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bench_engines.json.")] = None,
    arrays: Annotated[Path | None, typer.Option("--inputs", help=".npz, an array for each input blob.")] = None,
    inputs: InputShapes = None,
    engines: Annotated[str, typer.Option(help="Of torch,onnxruntime,openvino,opencv.")] = "",
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each; medians are shown.")] = 5,
    cpus: Cpus = None,
    as_json: Json = False,
) -> None:
    """The same net through every engine and importer: seconds, and how far from torch f32."""
    from bench.engines import FAMILIES, Task, inputs_for, table, write_json
    from bench.engines import bench_engines as measure
    from runtime.budget import make_budget

    if weights == WEIGHTS and net != NET:
        raise Rpn3dError(f"{net}: no weights given; usage: rpn3d bench engines PROTOTXT CAFFEMODEL")
    families = tuple(name.strip() for name in engines.split(",") if name.strip()) or FAMILIES
    fed = inputs_for(net, arrays, read_shapes(inputs or []))
    result = measure(Task(net, weights, fed, families, runs, make_budget(cpus=cpus).cpus), say)
    if out is not None:
        write_json(result, out / "bench_engines.json")
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

    try:
        edges = tuple(int(crop) for crop in crops.split(","))
    except ValueError as error:
        raise Rpn3dError(f"--crops {crops}: give numbers with commas between them, such as 64,96") from error
    threads = make_budget(cpus=cpus).cpus
    result = measure(NET, WEIGHTS, crops=edges, runs=runs, threads=threads, backward=backward, memory=peak, say=say)
    if out is not None:
        write_json(result, out / "bench_caffe.json")
    show(table(result.as_json()), result.as_json(), as_json)
