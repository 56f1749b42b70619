"""`rpn3d calibrate`: probabilities that say how often a mark is a nodule."""

from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import NET, Quiet, say, show

app = typer.Typer()


@app.command(
    epilog="Example: rpn3d calibrate found/submission.csv --annotations annotations.csv --weights run/best.caffemodel "
    "-o calibrated.caffemodel"
)
def calibrate(
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="What `rpn3d detect` marked with these weights, in f32.")
    ],
    annotations: Annotated[Path, typer.Option(help="The nodules of these scans; the weights must not know the scans.")],
    weights: Annotated[Path, typer.Option(help="The detector's .caffemodel.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .caffemodel to write.")],
    excluded: Annotated[Path | None, typer.Option(help="Findings that count neither way.")] = None,
    seriesuids: Annotated[Path | None, typer.Option(help="The scans that were searched, one a line.")] = None,
    quiet: Quiet = False,
) -> None:
    """Make probabilities mean what they say, by Platt's scaling; findings and their order stay as they are."""
    from caffe_models.net import Net
    from caffe_models.weights import read_caffemodel, write_caffemodel
    from runtime.froc import evaluate_files
    from train.calibrate import apply, fit, logits_of, table

    if out.exists() and out.samefile(weights):
        raise Rpn3dError(f"-o {out}: is the file of --weights, which is kept as it is; give another name")
    net = Net.from_prototxt(NET)
    before = read_caffemodel(weights)
    net.load(before, str(weights), strict=True)
    froc = evaluate_files(submission, annotations, excluded, seriesuids)
    for note in froc.notes:
        say(f"note: {note}", quiet)
    nodules, others = logits_of(froc)
    found = fit(nodules, others)
    write_caffemodel(out, apply(before, found, str(weights)), net.name, net.layer_types)
    show("\n".join(table(found, nodules, others)), None, False, quiet)
