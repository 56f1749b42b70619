"""What several commands share: options, the model that comes along, and how results and progress are printed."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parent.parent
NET = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"
WEIGHTS = ROOT / "caffe_models" / "rpn3d.caffemodel"

Out = Annotated[Path, typer.Option("-o", "--out", help="Where the results go.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of text.")]
Cpus = Annotated[int | None, typer.Option(help="Cores to use; default: what affinity and quota allow.")]
Memory = Annotated[str | None, typer.Option(help="Memory to use, such as 4G; default: what is free.")]
Precision = Annotated[str, typer.Option(help="auto, f32, bf16 or int8.")]
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
