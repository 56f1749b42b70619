"""The log of a training run: one JSON object a line, written through at once, and continued on resume."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from caffe_models.atomic import replacing

STDOUT = Path("-")
"""Stands for standard output."""


class StepLog:
    """A log that is open for writing; a context manager."""

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        """Start the log anew, or, resuming at an iteration, go on with what there is of the iterations before it.

        Raises:
            OSError: it cannot be written.
        """
        self._own = path != STDOUT
        if not self._own:
            self._file: TextIO = sys.stdout
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume_at is not None and path.is_file():
            cut(path, resume_at)
        self._file = path.open("w" if resume_at is None else "a", encoding="utf-8")

    def write(self, content: Mapping[str, Any]) -> None:
        """One line. Numbers that JSON does not have (a loss that became NaN) are null."""
        self._file.write(json.dumps(_finite(content), allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._file.close()


def cut(path: Path, iteration: int) -> None:
    """Leave out the lines of `iteration` and later, which will be done again, and half a line at the end, which a kill
    left. Every other line stays as it is; the file is replaced whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and not _is_from(line, iteration)]
    if kept != lines:
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8", errors="surrogateescape")


def _is_from(line: str, iteration: int) -> bool:
    try:
        content: Any = json.loads(line)
    except ValueError:
        return False
    number = content.get("iteration") if isinstance(content, dict) else None
    return isinstance(number, int) and number >= iteration


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
