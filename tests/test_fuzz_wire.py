"""The binary reader on damaged caffemodels and solver states: arrays or an error of ours, as protobuf's own reader."""

import os
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, data_folder
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from mutations import byte_damages, damaged_bytes, fuzz, tried
from protobuf_oracle import message_class

from caffe_models.errors import WeightsError
from caffe_models.weights import read_caffemodel, read_solverstate
from caffe_models.wire import decode, encode


def models() -> list[bytes]:
    """Caffemodels and solver states of real Caffe, small ones."""
    root = data_folder() / "caffe_golden"
    paths = [*sorted(root.glob("ops/*/*/weights.caffemodel"))[::40], *sorted(root.glob("train/*/*.solverstate"))[::20]]
    paths += [
        *sorted(root.glob("nets/topology/*/*.caffemodel")),
        *sorted((ROOT / "tests/golden").rglob("*.caffemodel")),
    ]
    return [path.read_bytes() for path in paths if path.stat().st_size < 60_000]


MODELS = models()


@fuzz(250)
@given(st.sampled_from(MODELS), byte_damages)
def test_as_protobuf(data: bytes, steps: list[tuple[str, float, int]]) -> None:
    """What protobuf refuses is refused; what it reads is read, but groups, which Caffe never had."""
    damaged = damaged_bytes(data, steps)
    try:
        message_class("NetParameter", "extended").FromString(damaged)
        accepted = True
    except DecodeError:
        accepted = False
    ours, refusal = tried(lambda: decode(damaged, "NetParameter", source="x.caffemodel"))
    if ours is None:
        assert not accepted or "wire type" in refusal
        assert refusal.startswith("x.caffemodel: byte ")
        return
    assert accepted
    assert decode(encode(ours), "NetParameter").equals(ours)


@fuzz(150)
@given(st.sampled_from(MODELS), byte_damages)
def test_files(tmp_path_factory: pytest.TempPathFactory, data: bytes, steps: list[tuple[str, float, int]]) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged-{os.getpid()}"
    path.write_bytes(damaged_bytes(data, steps))
    for read in (read_caffemodel, read_solverstate):
        _, refusal = tried(partial(read, path))
        assert not refusal or refusal.startswith(str(path))
        assert "\n" not in refusal


@fuzz(150)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    try:
        decode(data)
    except WeightsError:
        return
    message_class("NetParameter", "extended").FromString(data)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """A caffemodel of real Caffe, and its beginnings: an error, or the layers that are there."""
    data = min(MODELS, key=len)
    path, read = tmp_path / "cut.caffemodel", 0
    path.write_bytes(data)
    whole = len(read_caffemodel(path))
    for size in range(len(data)):
        path.write_bytes(data[:size])
        found, refusal = tried(partial(read_caffemodel, path))
        if found is None:
            assert refusal.startswith(str(path))
            continue
        assert len(found) <= whole
        read += 1
    assert read < len(data) / 10
