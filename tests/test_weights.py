"""Weights and snapshots: real Caffe's files, round trips, and files that are something else."""

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import need

from caffe_models.errors import WeightsError
from caffe_models.text_format import parse_text
from caffe_models.weights import (
    SolverState,
    Weights,
    read_caffemodel,
    read_solverstate,
    write_caffemodel,
    write_solverstate,
)
from caffe_models.wire import decode, encode


def small() -> Weights:
    draw = np.random.default_rng(0)
    return {
        "conv": [draw.normal(size=(2, 3, 3, 3, 3)).astype(np.float32), np.array([1, -0.0], np.float32)],
        "norm/ä": [
            np.array([np.nan, np.inf, 1e-45], np.float32),
            np.zeros((), np.float32),
            np.zeros((0, 4), np.float32),
        ],
    }


def same(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(
        left.shape == right.shape and left.tobytes() == right.tobytes()
        for name in one
        for left, right in zip(one[name], other[name], strict=True)
    )


def save(path: Path, text: str, message: str = "NetParameter") -> Path:
    path.write_bytes(encode(parse_text(text, message)))
    return path


def test_round_trip_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    write_caffemodel(path, small(), "tiny", {"conv": "Convolution", "norm/ä": "BatchNorm", "absent": "ReLU"})
    found = read_caffemodel(path)
    assert same(found, small())
    assert all(blob.flags.writeable and blob.flags.c_contiguous for blobs in found.values() for blob in blobs)
    net = decode(path.read_bytes())
    assert net.get_str("name") == "tiny"
    assert [layer.get_str("type") for layer in net.get_messages("layer")] == ["Convolution", "BatchNorm"]


def test_other_arrays_are_written_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    strided = np.arange(12.0).reshape(3, 4).T
    write_caffemodel(path, {"a": [strided]}, "n", {})
    np.testing.assert_array_equal(read_caffemodel(path)["a"][0], strided)


def test_forms_of_blobs(tmp_path: Path) -> None:
    text = """
    layers { name: "old" blobs { num: 1 channels: 2 height: 1 width: 3 data: [1, 2, 3, 4, 5, 6] } }
    layer { name: "double" blobs { shape { dim: 2 } double_data: [0.1, 2] } }
    layer { name: "relu" }
    layer { name: "scalar" blobs { data: 7 } }
    """
    found = read_caffemodel(save(tmp_path / "x.caffemodel", text))
    assert {name: [blob.shape for blob in blobs] for name, blobs in found.items()} == {
        "old": [(1, 2, 1, 3)],
        "double": [(2,)],
        "scalar": [()],
    }
    assert found["double"][0].dtype == np.float32
    np.testing.assert_array_equal(found["double"][0], np.array([0.1, 2], np.float32))
    np.testing.assert_array_equal(found["old"][0][0, 1, 0], [4, 5, 6])


def test_a_net_without_weights(tmp_path: Path) -> None:
    assert read_caffemodel(save(tmp_path / "x.caffemodel", 'layer { name: "relu" }')) == {}


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        ("shape { dim: 2 dim: 2 } data: [1, 2, 3]", "has shape (2, 2) but 3 numbers"),
        ("shape { dim: 2 }", "has shape (2,) but 0 numbers"),
        ("shape { dim: -1 dim: -2 } data: [1, 2]", "has shape (-1, -2)"),
        ("shape { dim: [4294967296, 4294967296, 4294967296] } data: 1", "but 1 numbers"),
        ("num: 2 channels: 1 data: 1", "has shape (2, 1, 0, 0)"),
        ("data: [1, 2]", "has shape () but 2 numbers"),
        (f"shape {{ dim: {[1] * 33} }} data: 1", "of 33 axes"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, blob: str, expected: str) -> None:
    path = save(tmp_path / "x.caffemodel", f'layer {{ name: "c" blobs {{ data: 1 }} blobs {{ {blob} }} }}')
    with pytest.raises(WeightsError) as caught:
        read_caffemodel(path)
    assert str(caught.value).startswith(f'{path}: layer "c": blob 1: ')
    assert expected in str(caught.value)


def test_layers_of_one_name(tmp_path: Path) -> None:
    twice = 'layer { name: "c" blobs { data: 1 } } layer { name: "c" blobs { data: %d } }'
    assert list(read_caffemodel(save(tmp_path / "equal.caffemodel", twice % 1))) == ["c"]
    with pytest.raises(WeightsError, match='two layers are named "c" and have different blobs'):
        read_caffemodel(save(tmp_path / "x.caffemodel", twice % 2))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b'name: "net"\nlayer { name: "c" }\n', "it is a text file (a prototxt?)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not a whole HDF5 file"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x08\x05\x12\x01x", "starts like a .solverstate"),
        (b"\x0a\x01n", "there is no layer in it"),
        (b"\xa2\x06\x02\x3a\x00", "its layers have no names"),
        (b"\xff" * 100, "byte 0"),
    ],
)
def test_files_that_are_no_caffemodel(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_caffemodel(path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_caffemodel(tmp_path / "absent.caffemodel")
    with pytest.raises(WeightsError, match="is not a file"):
        read_caffemodel(tmp_path)


def test_a_file_cut_short_never_gives_weights(tmp_path: Path) -> None:
    """Cut anywhere but behind a whole layer, the file is refused; there fewer layers are all that is left of it."""
    whole = tmp_path / "whole.caffemodel"
    write_caffemodel(whole, small(), "tiny", {})
    data, wrong = whole.read_bytes(), 0
    for size in range(len(data)):
        path = tmp_path / "cut.caffemodel"
        path.write_bytes(data[:size])
        try:
            found = read_caffemodel(path)
        except WeightsError:
            continue
        wrong += 1
        assert list(found) == ["conv"]
        assert same(found, {"conv": small()["conv"]})
    assert wrong == 1


def test_solver_state_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.solverstate"
    history = [np.ones((2, 3, 1, 1, 1), np.float32), np.zeros(4, np.float32)]
    for state in (
        SolverState(0, "", 0),
        SolverState(123, "snap_iter_123.caffemodel", 2, history),
        SolverState(7, "x", 1, history, minimum_loss=0.25, iter_last_event=5),
    ):
        write_solverstate(path, state)
        found = read_solverstate(path)
        assert same({"history": found.history}, {"history": state.history})
        assert (found.iteration, found.learned_net, found.current_step, found.minimum_loss, found.iter_last_event) == (
            (state.iteration, state.learned_net, state.current_step, state.minimum_loss, state.iter_last_event)
        )


def test_a_caffemodel_is_no_solver_state(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "x.caffemodel", small(), "tiny", {})
    with pytest.raises(WeightsError, match=r"looks like a \.caffemodel"):
        read_solverstate(tmp_path / "x.caffemodel")
    (tmp_path / "x.solverstate").write_bytes(b"\x20\x01")
    with pytest.raises(WeightsError, match="how many iterations"):
        read_solverstate(tmp_path / "x.solverstate")


def test_every_reference_file_reads(data_dir: Path) -> None:
    root = need(data_dir / "caffe_golden")
    models = sorted(root.rglob("*.caffemodel"))
    assert len(models) > 700
    for path in models:
        read_caffemodel(path)


def test_saved_by_caffe_and_saved_again_is_the_same_file(data_dir: Path, tmp_path: Path) -> None:
    """Whole files of each dialect, topology too, come out byte for byte: no field of theirs is unknown to us."""
    root = need(data_dir / "caffe_golden")
    for dialect in ("bvlc", "intel", "extended"):
        for path in sorted((root / "ops" / dialect).rglob("*.caffemodel"))[::7]:
            assert encode(decode(path.read_bytes(), dialect=dialect)) == path.read_bytes(), path
    states = sorted(root.rglob("*.solverstate"))
    assert len(states) == 72
    for path in states:
        if path.parent.name.startswith("bvlc_"):
            assert read_solverstate(path).minimum_loss is None
        write_solverstate(tmp_path / "x.solverstate", read_solverstate(path))
        assert (tmp_path / "x.solverstate").read_bytes() == path.read_bytes(), path


def test_a_large_file_reads_fast(tmp_path: Path) -> None:
    """21 MB as in the full net; measured at 0.03 s, with room for a busy machine."""
    blob = np.random.default_rng(0).normal(size=(64, 64, 3, 3, 3)).astype(np.float32)
    path = tmp_path / "x.caffemodel"
    write_caffemodel(path, {f"conv{index}": [blob] for index in range(48)}, "big", {})
    assert path.stat().st_size > 21_000_000
    start = time.perf_counter()
    read_caffemodel(path)
    assert time.perf_counter() - start < 1.0
