"""Opening Caffe's binary files, and saying what a file is when it is not the one that was meant."""

import os
from pathlib import Path

from caffe_models.errors import WeightsError

MAX_BYTES = (1 << 31) - 1
"""Protobuf's own limit for one file."""

_SIGNATURES = {
    b"\x80\x02": "a Python pickle (perhaps PyTorch weights)",
    b"\x89PNG": "a picture",
    b"\xff\xfe": "a text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "a text in UTF-16; save it as UTF-8",
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
        with file.open("rb") as stream:
            sample = stream.read(_SAMPLE_BYTES)
            _check(sample, source, meant)
            stream.seek(0)
            return stream.read()
    except OSError as error:
        raise WeightsError(f"{source}: cannot be read: {error.strerror or error}") from error


def recognised(sample: bytes) -> str | None:
    """What a file is that begins with `sample` and is surely no file of Caffe's."""
    return next((what for signature, what in _SIGNATURES.items() if sample.startswith(signature)), None)


def _check(sample: bytes, source: str, meant: str) -> None:
    if not sample:
        raise WeightsError(f"{source}: is empty; a {meant} is needed")
    if what := recognised(sample):
        raise WeightsError(f"{source}: not a {meant}: it is {what}")
    if _is_text(sample):
        raise WeightsError(f"{source}: not a {meant}: it is a text file (a prototxt?); give the binary one")
    if sample[0] >> 3 == 0:
        raise WeightsError(f"{source}: byte 0: not a {meant}: no message begins like this")


def _is_text(sample: bytes) -> bool:
    """Whether there are only printable characters and white space; a text has a line's end, or is short."""
    if any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in sample):
        return False
    try:
        sample[:-4].decode()
    except UnicodeDecodeError:
        return False
    return True
