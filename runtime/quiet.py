"""Keeps what C++ libraries print away from the terminal, and hands it over."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def uncaptured() -> Iterator[None]:
    """Within it no other thread captures what is printed: for progress and errors of a program that reads meanwhile."""
    with _LOCK:
        yield


@contextmanager
def captured_prints() -> Iterator[list[str]]:
    """Catch what is written to the process's error output (file descriptor 2), by C++ too.

    ITK's own warnings can be switched off, but the libraries beneath it (MetaIO, NIfTI, GDCM) write to the descriptor
    itself. It is redirected for the whole process, so keep the block short; what other threads print meanwhile lands
    in the list as well.

    Yields:
        A list that holds the lines once the block has ended, with or without an exception.
    """
    lines: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            text = caught.read(1 << 16).decode("utf-8", "replace")
            lines += [line.strip() for line in text.splitlines() if line.strip()]
