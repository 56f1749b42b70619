"""What a full disk and a kill do to a run's files: messages that name the file, and half-written files removed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caffe_models.errors import Rpn3dError

LEFTOVER = re.compile(r"\..+-[a-z0-9_]{8}\.(caffemodel|solverstate|json|jsonl)")
"""Names of `caffe_models.atomic.replacing`'s temporary files: a kill while writing leaves one, of up to 21 MB."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of writing `path` becomes an Rpn3dError with its name, which a full disk does not say."""
    try:
        yield
    except OSError as error:
        raise Rpn3dError(
            f"{error.filename or path}: cannot be written ({error.strerror or error}); make room, then run the same "
            "command again: it goes on from the last snapshot"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a run that was killed while it wrote; no other run may be at work in `folder`."""
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink()
