"""`rpn3d mine`: what a model gets wrong on the scans it is trained on."""

from pathlib import Path
from typing import Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import NET, WEIGHTS, Cpus, Memory, ModelOption, Out, Precision, Quiet, say, show

app = typer.Typer()


@app.command(epilog="Example: rpn3d mine run/prepared -o run/hard1 --model run/crop64/rpn3d_64_iter_1200.caffemodel")
def mine(
    prepared: Annotated[Path, typer.Argument(help="Prepared scans: the folder `prepared` of a training run.")],
    out: Out,
    model: ModelOption = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of each scan's slices; less time, as many scans.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of which slices those are.")] = 1,
    precision: Precision = "auto",
    cpus: Cpus = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Find false positives and missed nodules for the next level of training; goes on where it was stopped."""
    from convert.model_file import model_file
    from runtime.budget import make_budget
    from runtime.cores import hold_to
    from runtime.engines.base import EngineOptions, load_engine
    from runtime.outputs import file_sha256
    from train.dataset import load_folder
    from train.mine import load, summary
    from train.mine import mine as run

    if out.is_file():
        raise Rpn3dError(f"-o {out}: is a file; give a folder")
    budget = make_budget(cpus=cpus, memory=memory)
    hold_to(budget.cpus)
    scans = load_folder(prepared)
    file = model_file(model, precision, net=NET, weights=WEIGHTS)
    engine = load_engine("openvino", file, EngineOptions(precision=precision, threads=budget.cpus))
    binary = file.with_suffix(".bin")
    digest = file_sha256(binary if binary.is_file() else file)
    run(scans, engine, digest, budget, out, lambda text: say(text, quiet), share=share, seed=seed)
    show("\n".join(summary(load(out, scans))), None, False, quiet)
