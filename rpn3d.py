"""rpn3d's command line. Thin: each command is one call into a room, with the same words.

A user's mistake is answered with one line on standard error and exit code 2; anything else is a defect of ours and
keeps its traceback. Rooms are imported when their command runs, so that `rpn3d --help` is quick and detection never
loads what only training needs.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caffe_models.errors import Rpn3dError

if TYPE_CHECKING:
    from caffe_models.net import Net
    from convert.run_net import Arrays

ROOT = Path(__file__).resolve().parent
NET = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"
WEIGHTS = ROOT / "caffe_models" / "rpn3d.caffemodel"

app = typer.Typer(
    help="Find lung nodules in chest CT on plain CPUs; bring 3-D Caffe nets to ONNX and OpenVINO.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
caffe_app = typer.Typer(help="Run, train and look into any Caffe net.", no_args_is_help=True, rich_markup_mode=None)
bench_app = typer.Typer(help="Measure under a budget.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(caffe_app, name="caffe")
app.add_typer(bench_app, name="bench")

Out = Annotated[Path, typer.Option("-o", "--out", help="Where the results go.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of text.")]
Cpus = Annotated[int | None, typer.Option(help="Cores to use; default: what affinity and quota allow.")]
Memory = Annotated[str | None, typer.Option(help="Memory to use, such as 4G; default: what is free.")]
Precision = Annotated[str, typer.Option(help="auto, f32 or bf16.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(help="Folder of built models, .xml, .onnx or .caffemodel; default: ours."),
]


def say(text: str, quiet: bool = False) -> None:
    """A line of progress on standard error; standard output holds results alone."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def show(text: str, content: Any, as_json: bool, quiet: bool = False) -> None:
    """The result on standard output, as text or as JSON."""
    if as_json:
        print(json.dumps(content, indent=1))
    elif not quiet:
        print(text)


@app.command(epilog="Example: rpn3d detect scan.mhd dicom_folder -o out --cpus 2 --memory 4G")
def detect(
    scans: Annotated[list[str], typer.Argument(metavar="SCAN...", help="Files, DICOM folders, or folders of scans.")],
    out: Out,
    precision: Precision = "auto",
    cpus: Cpus = None,
    memory: Memory = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least probability that is reported.")] = 0.01,
    max_per_scan: Annotated[int, typer.Option(min=1, help="At most this many findings a scan.")] = 100,
    model: ModelOption = None,
    engine: Annotated[str, typer.Option(help="openvino or onnxruntime (with an .onnx).")] = "openvino",
    pictures: Annotated[bool, typer.Option(help="Draw the findings and the lung mask.")] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find nodules: submission.csv, and a JSON and pictures for each scan."""
    from convert.build import cache_folder, model_file
    from runtime.budget import make_budget
    from runtime.detect import Detector, Settings, detect_all

    settings = Settings(
        budget=make_budget(cpus=cpus, memory=memory),
        engine=engine,
        precision=precision,
        threshold=threshold,
        max_per_scan=max_per_scan,
        pictures=pictures,
        cache_folder=cache_folder() / "compiled",
    )
    path = model_file(model, precision, net=NET, weights=WEIGHTS, say=lambda text: say(text, quiet))
    outcome = detect_all(
        Detector(path, settings),
        scans,
        out,
        report=None if quiet or as_json else sys.stdout,
        say=lambda text: say(text, quiet),
        complain=say,
    )
    if as_json:
        print(json.dumps(outcome.as_json(), indent=1))
    if outcome.failures:
        raise typer.Exit(2)


@app.command(epilog="Example: rpn3d convert deploy.prototxt net.caffemodel -o net.xml --precision bf16")
def convert(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net; or an .onnx to make an IR from.")],
    weights: Annotated[Path | None, typer.Argument(metavar="CAFFEMODEL", help="Its weights.")] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="X.onnx, or X.xml for OpenVINO.")],
    precision: Annotated[str, typer.Option(help="Of an .xml: f32 or bf16.")] = "f32",
    scan: Annotated[str | None, typer.Option(help="Measure on a crop of this scan (detectors).")] = None,
    parity: Annotated[bool, typer.Option(help="Measure that all engines agree, and fail if not.")] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Convert a Caffe net to ONNX or OpenVINO, and print how far the engines differ."""
    from convert.command import convert_net

    def inputs(loaded: "Net") -> "tuple[str, Arrays]":
        return parity_inputs(loaded, scan)

    result = convert_net(net, weights, out, precision, inputs if parity else None)
    show("\n".join(result.lines()), result.as_json(), as_json, quiet)


def parity_inputs(net: "Net", scan: str | None) -> "tuple[str, Arrays]":
    """What engines are compared on: a real crop of 64 voxels for a detector, random numbers for any other net.

    The crop comes from the middle of the lungs of `scan`, or of a small synthetic CT.
    """
    from convert.parity import crop_inputs, random_inputs
    from runtime.lung_mask import find_lungs
    from runtime.volume import read_volume
    from runtime.working_volume import make_working_volume

    if {name: shape[1] for name, shape in net.inputs.items()} != {"data": 1, "coord": 3}:
        if scan is not None:
            raise Rpn3dError(f"{scan}: only detectors (inputs data, coord) can be measured on a scan; leave --scan out")
        return "random numbers in [-1, 1]", random_inputs(net.inputs)
    if scan is None:
        from train.phantom import make_phantom

        volume, what = make_phantom(seed=1).volume, "a crop of a synthetic CT"
    else:
        volume, what = read_volume(scan), f"a crop of {scan}"
    working = make_working_volume(volume, find_lungs(volume))
    edge = 64
    starts = [max(0, n // 2 - edge // 2) for n in working.voxels.shape]
    starts[2] = max(0, working.voxels.shape[2] // 4 - edge // 2)  # in a lung, not in the heart between them
    z, y, x = starts
    crop = working.voxels[z : z + edge, y : y + edge, x : x + edge]
    if crop.shape != (edge, edge, edge):
        raise Rpn3dError(f"{scan}: the lungs' box of {working.voxels.shape} mm is too small for a crop of {edge} mm")
    return what, crop_inputs(crop, working.voxels.shape, starts)


@app.command(epilog="Example: rpn3d phantom -o phantoms -n 10 --seed 1")
def phantom(
    out: Out,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first; the next ones follow.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Make synthetic chest CTs with nodules, and their annotations.csv."""
    from train.phantom import write_phantoms

    write_phantoms(out, count, seed, progress=lambda text: say(text, quiet))


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
    seed: Annotated[int, typer.Option(help="Of weights, crops and dropout.")] = 1,
    cpus: Cpus = None,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 (weights stay float32).")] = True,
    quiet: Quiet = False,
) -> None:
    """Train the detector; a run that was stopped goes on from its last snapshot."""
    from runtime.budget import make_budget
    from train.dataset import load_folder
    from train.prepare import Sources, prepare_all
    from train.run import RunSettings
    from train.run import train as run

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
    settings = RunSettings(seed=seed, autocast=bf16, threads=budget.cpus, iterations=iterations)
    done = run(solvers, load_folder(prepared), out, settings, lambda text: say(text, quiet), weights)
    show(str(done), None, False, quiet)


@app.command(epilog="Example: rpn3d evaluate submission.csv --annotations annotations.csv -o report")
def evaluate(
    submission: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="The marks: submission.csv of detect.")],
    annotations: Annotated[Path, typer.Option(help="seriesuid,coordX,coordY,coordZ,diameter_mm")],
    out: Out,
    excluded: Annotated[Path | None, typer.Option(help="Findings that count neither way.")] = None,
    seriesuids: Annotated[Path | None, typer.Option(help="The scans that were searched, one a line.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """FROC and CPM as LUNA16 computes them: froc.json, froc.csv, a plot and a page."""
    from bench.evaluation import evaluate as evaluate_files
    from bench.evaluation import text_lines

    result = evaluate_files(submission, annotations, excluded, seriesuids, out)
    show("\n".join(text_lines(result)), json.loads((out / "froc.json").read_text()), as_json, quiet)


@caffe_app.command(
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


@caffe_app.command(name="train", epilog="Example: rpn3d caffe train solver.prototxt --feed inputs.npz --log log.jsonl")
def caffe_train(
    solver: Annotated[Path, typer.Argument(metavar="SOLVER", help="The solver prototxt.")],
    feed: Annotated[Path, typer.Option(help=".npz: each Input blob as (iterations, iter_size, *shape).")],
    log: Annotated[Path, typer.Option(help="Where a JSON object goes for each iteration.")],
    weights: Annotated[Path | None, typer.Option(help="Start from this .caffemodel.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Go on from this .solverstate.")] = None,
) -> None:
    """Train any Caffe net on arrays, as its solver says."""
    from train.caffe_train import train_on_arrays

    train_on_arrays(solver, feed, log, weights, snapshot)


@caffe_app.command(name="inspect", epilog="Example: rpn3d caffe inspect deploy.prototxt")
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


@bench_app.command(name="scan", epilog="Example: rpn3d bench scan scan.mhd --precision f32 --cpus 2")
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


def main() -> None:
    """Entry point of the command line."""
    try:
        app()
    except Rpn3dError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # a full disk, a folder that may not be written: the user's to mend, and Python's message names the file
        where = f"{error.filename}: " if error.filename else ""
        print(f"rpn3d: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
