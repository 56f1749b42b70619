"""Fixtures that every room's tests share."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A shell starts `... &` with Ctrl-C ignored, and all that the tests start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def data_folder() -> Path:
    """The reference data: `RPN3D_DATA`, else `../shared/data` beside the repository."""
    return Path(os.environ.get("RPN3D_DATA") or ROOT.parent / "shared" / "data")


def need(path: Path) -> Path:
    """`path`, or skip the test with a reason; where CI is set a missing file fails it."""
    if path.exists():
        return path
    reason = f"{path.name} is not there: set RPN3D_DATA to the reference data folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return need(data_folder())


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
