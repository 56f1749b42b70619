"""What several commands share: options, the model that comes along, and how results and progress are printed."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from caffe_models.errors import Rpn3dError
from caffe_models.schema import DIALECTS

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
InputShapes = Annotated[
    list[str] | None, typer.Option("--input", metavar="BLOB=N,C,...", help="Another shape of an input; repeatable.")
]
Phase = Annotated[str, typer.Option(help="TEST or TRAIN.")]
DialectOption = Annotated[str | None, typer.Option("--dialect", help="bvlc, intel or extended; default: detected.")]


def known_dialect(dialect: str | None) -> str | None:
    """What was given as --dialect. Raises Rpn3dError if it is none of the three."""
    if dialect not in (None, *DIALECTS):
        raise Rpn3dError(f'--dialect "{dialect}" is not known; allowed: {", ".join(DIALECTS)}')
    return dialect


def read_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by blob from texts such as data=1,1,64,64,64 (or 1x1x64x64x64).

    Raises:
        Rpn3dError: no such text, or an extent that is no positive number.
    """
    shapes = {}
    for text in texts:
        name, _, extents = text.rpartition("=")
        parts = extents.replace("x", ",").split(",")
        if not name or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise Rpn3dError(f'--input "{text}" is no shape; write it as data=1,1,64,64,64')
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


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
