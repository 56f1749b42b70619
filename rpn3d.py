"""rpn3d's command line and Python API. Thin: each command is one call into a room, with the same words.

A user's mistake is answered with one line on standard error and exit code 2; anything else is a defect of ours and
keeps its traceback. Rooms are imported when their command runs, so that `rpn3d --help` is quick and detection never
loads what only training needs.
"""

import sys
import warnings
from typing import Any

import typer

import commands.bench
import commands.caffe
import commands.calibrate
import commands.convert
import commands.mine
import commands.scans
import commands.train
from caffe_models.errors import CaffeWarning, Rpn3dError
from commands.options import NET, WEIGHTS

__all__ = ["NET", "WEIGHTS", "app", "main"]

app = typer.Typer(
    help="Find lung nodules in chest CT on plain CPUs; bring 3-D Caffe nets to ONNX and OpenVINO.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for group in (commands.scans, commands.convert, commands.train, commands.mine, commands.calibrate):
    app.add_typer(group.app)
app.add_typer(commands.caffe.app, name="caffe")
app.add_typer(commands.bench.app, name="bench")


def show_warnings_in_one_line() -> None:
    """Print each CaffeWarning once, like an error; other libraries' warnings as Python does."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, CaffeWarning):
            print(f"rpn3d: warning: {message}", file=sys.stderr)
        else:
            others(message, category, *place, **more)

    warnings.simplefilter("once", CaffeWarning)
    warnings.showwarning = show


EXTRAS = {"torch": "train", "onnxruntime": "bench", "nncf": "int8", "cv2": "bench"}
"""Packages that some commands alone need -> the extra of setup.py that brings them."""


def main() -> None:
    """Entry point of the command line."""
    show_warnings_in_one_line()
    try:
        app()
    except Rpn3dError as error:
        print(f"rpn3d: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        how = f"pip install --constraint constraints.txt '.[{EXTRAS[error.name]}]'"
        print(f"rpn3d: this needs the Python package {error.name}, which is not installed: {how}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # a full disk, a folder that may not be written: the user's to mend, and Python's message names the file
        where = f"{error.filename}: " if error.filename else ""
        print(f"rpn3d: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
