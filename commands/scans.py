"""`rpn3d detect`, `phantom`, `evaluate`: scans in, findings out, and how good they are."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from commands.options import Cpus, Json, Memory, ModelOption, Out, Precision, Quiet, say, show

app = typer.Typer()


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
    deadline: Annotated[
        str, typer.Option(help="Time for all scans, such as 55m, 90s or 1h30m; a number alone is minutes.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: scans whose results lie in OUT already are not searched again.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say how each scan is cut into windows, and why.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find nodules: submission.csv, and a JSON and pictures for each scan."""
    from runtime.budget import make_budget
    from runtime.cores import hold_to
    from runtime.duration import parse_duration

    budget = make_budget(cpus=cpus, memory=memory)
    deadline_s = parse_duration(deadline) if deadline else float("inf")
    nodes = hold_to(budget.cpus)  # before numpy and the engines are loaded
    from commands.models import chosen_model
    from convert.model_file import cache_folder
    from runtime.detect import Settings
    from runtime.on_nodes import detect_on_nodes
    from runtime.outputs import ResultFolder
    from runtime.resume import take_up

    chosen = chosen_model(model, precision, engine, say=lambda text: say(text, quiet))
    settings = Settings(
        budget=budget,
        engine=engine,
        precision=chosen.precision,
        threshold=threshold,
        max_per_scan=max_per_scan,
        pictures=pictures,
        cache_folder=cache_folder() / "compiled",
        explain=(lambda line: say("  " + line)) if explain else None,
        precision_why=chosen.why,
        faster=chosen.faster,
    )
    folder = ResultFolder(out)
    left, before = take_up(scans, folder, chosen.file, settings) if resume else (scans, [])
    if resume:
        say(f"{len(before)} of {len(before) + len(left)} scans were searched before", quiet)
    outcome = detect_on_nodes(
        chosen.file,
        settings,
        left,
        folder,
        nodes,
        report=None if quiet or as_json else sys.stdout,
        say=lambda text: say(text, quiet),
        complain=say,
        deadline_s=deadline_s,
    )
    outcome = replace(outcome, results=(*before, *outcome.results))
    if as_json:
        print(json.dumps(outcome.as_json(), indent=1))
    if outcome.failures or outcome.unfinished:
        raise typer.Exit(2)


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


@app.command(epilog="Example: rpn3d evaluate submission.csv --annotations annotations.csv --scans scans -o report")
def evaluate(
    submission: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="The marks: submission.csv of detect.")],
    annotations: Annotated[
        Path, typer.Option(help="seriesuid,coordX,coordY,coordZ,diameter_mm; a column type may follow.")
    ],
    out: Out,
    excluded: Annotated[Path | None, typer.Option(help="Findings that count neither way.")] = None,
    seriesuids: Annotated[Path | None, typer.Option(help="The scans that were searched, one a line.")] = None,
    scans: Annotated[
        list[str] | None,
        typer.Option(metavar="SCAN", help="Scan, DICOM folder or folder of scans for the pictures; repeatable."),
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="Another submission, to compare with this one.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """FROC and CPM as LUNA16 computes them: froc.json, froc.csv, a plot, and a page with all figures and pictures."""
    from bench.evaluation import evaluate as evaluate_files
    from bench.evaluation_content import summary, text_lines

    found = evaluate_files(
        submission,
        annotations,
        excluded,
        seriesuids,
        out,
        compare=compare,
        scans=scans or (),
        say=lambda text: say(text, quiet),
    )
    show("\n".join(text_lines(found)), summary(found), as_json, quiet)
