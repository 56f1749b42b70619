"""Opening Caffe's binary files, and saying what a file is when it is not the one that was meant."""

import os
from pathlib import Path

from caffe_models.errors import WeightsError

MAX_BYTES = (1 << 31) - 1
"""Protobuf's own limit for one file."""

_SIGNATURES = {
    b"PK\x03\x04": "a zip archive (perhaps PyTorch weights)",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with `git lfs pull`",
    b"<!DOCTYPE": "a web page; the download went wrong",
    b"<html": "a web page; the download went wrong",
}
_SAMPLE_BYTES = 4096


def read_binary(path: str | os.PathLike[str], meant: str) -> bytes:
    """The bytes of `path`; `meant` says what should be there, for errors (".caffemodel", ".solverstate").

    Raises:
        WeightsError: no such file, empty, too large, or recognisably something else (a prototxt, ...).
    """
    file, source = Path(path), os.fspath(path)
    try:
        if file.exists() and not file.is_file():
            raise WeightsError(f"{source}: is not a file; name the {meant}")
        if (size := file.stat().st_size) > MAX_BYTES:
            raise WeightsError(f"{source}: has {size} bytes; a {meant} has at most {MAX_BYTES}")
        data = file.read_bytes()
    except OSError as error:
        raise WeightsError(f"{source}: cannot be read: {error.strerror or error}") from error
    if not data:
        raise WeightsError(f"{source}: is empty; a {meant} is needed")
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            raise WeightsError(f"{source}: not a {meant}: it is {what}")
    if _is_text(data[:_SAMPLE_BYTES]):
        raise WeightsError(f"{source}: not a {meant}: it is a text file (a prototxt?); give the binary one")
    return data


def _is_text(sample: bytes) -> bool:
    """Whether there are only printable characters and white space; a text has a line's end, or is short."""
    if any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in sample):
        return False
    try:
        sample[:-4].decode()
    except UnicodeDecodeError:
        return False
    return True
