"""`rpn3d caffe translate`: from files to files."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_models.atomic import replacing
from caffe_models.binary_topology import read_topology
from caffe_models.errors import NetError
from caffe_models.message import Message
from caffe_models.text_format import read_text
from caffe_models.translate import Translation, check_wishes, translate
from caffe_models.translate_solver import is_solver, translate_solver
from caffe_models.weights import read_caffemodel, write_caffemodel


@dataclass(frozen=True)
class Written:
    """The files of a translation."""

    translation: Translation
    files: tuple[Path, ...]

    def lines(self) -> list[str]:
        """For people."""
        done = self.translation
        head = [f"read as {done.origin}: {done.reason}", *done.changes]
        if not done.changes:
            head.append(f"nothing had to change for {done.target}")
        return [*head, f"wrote {', '.join(map(str, self.files))}"]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        done = self.translation
        return {
            "from": done.origin,
            "reason": done.reason,
            "to": done.target,
            "changes": list(done.changes),
            "files": [str(file) for file in self.files],
        }


def translate_files(
    net_path: Path,
    target: str,
    out: Path,
    weights_path: Path | None = None,
    weights_out: Path | None = None,
    dialect: str | None = None,
    batch_norm: str = "keep",
) -> Written:
    """`translate` from files to files.

    Args:
        net_path: a prototxt of a net or a solver; or a .caffemodel alone, which holds a net (`binary_topology`).
        out: X.prototxt, or a folder that gets files of the same names.
        weights_out: None: beside the text, named as it (X.caffemodel), or in the folder as the weights were.
        dialect: of the net; None: found out from its text.

    Raises:
        As `translate` and the readers of both files; NetError: a result would replace what is read.
    """
    check_wishes(target, batch_norm)
    net: Message | None = None
    if net_path.suffix == ".caffemodel":
        net, weights_path = read_topology(net_path, dialect), weights_path or net_path
    elif not is_solver(net_path):
        net = read_text(net_path, "NetParameter", dialect)
    elif weights_path is not None:
        raise NetError(f"{net_path}: is a solver, which has no weights; translate its net with {weights_path}")
    text_out = out if out.suffix == ".prototxt" else out / net_path.with_suffix(".prototxt").name
    if weights_out is not None and weights_path is None:
        raise NetError(f"{weights_out}: no weights given to write there; name them after the prototxt")
    if weights_path is not None and weights_out is None:
        weights_out = out.with_suffix(".caffemodel") if out.suffix == ".prototxt" else out / weights_path.name
    for read, written in ((net_path, text_out), (weights_path, weights_out)):
        if read is not None and written is not None and written.exists() and os.path.samefile(read, written):
            raise NetError(f"{written}: would replace what is read; name another file or folder with -o")
    weights = None if weights_path is None else read_caffemodel(weights_path)
    if net is None:
        done = _solver(read_text(net_path, "SolverParameter", dialect), target)
    else:
        done = translate(net, target, weights, str(weights_path), batch_norm)
    files = [text_out]
    if weights_out is not None and done.weights is not None:
        write_caffemodel(weights_out, done.weights, done.net.get_str("name"), done.layer_types)
        files.append(weights_out)
    with replacing(text_out) as temporary:
        temporary.write_text(done.text, encoding="utf-8")
    return Written(done, tuple(files))


def _solver(message: Message, target: str) -> Translation:
    made, text, changes = translate_solver(message, target)
    return Translation(made, text, None, changes, message.spec.dialect, message.dialect_reason)
