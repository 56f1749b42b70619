"""The wire format: against bytes typed by hand, against protobuf, and against broken files."""

import random
import time

import numpy as np
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from protobuf_oracle import message_class, random_message

from caffe_models.errors import WeightsError
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text
from caffe_models.wire import MAX_FIELDS, MAX_MESSAGES, decode, encode


def test_bytes_typed_by_hand() -> None:
    shape = parse_text("dim: 2 dim: 300", "BlobShape")
    assert encode(shape) == bytes([0x0A, 3, 2, 0xAC, 0x02])  # field 1, length 3: 2, 300 = 0b10_0101100
    state = parse_text("iter: -1 current_step: 5", "SolverState")
    assert encode(state) == bytes([0x08, *[0xFF] * 9, 0x01, 0x20, 5])
    layer = parse_text('name: "ä" phase: TEST', "LayerParameter")
    assert encode(layer) == b"\x0a\x02\xc3\xa4\x50\x01"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_agrees_with_protobuf(dialect: str) -> None:
    for seed in range(1000, 1080):
        for name in ("NetParameter", "SolverParameter", "BlobProto", "SolverState"):
            ours = random_message(name, dialect, seed)
            data = encode(ours)
            assert decode(data, name, dialect).equals(ours)
            theirs = message_class(name, dialect).FromString(data)
            assert theirs.SerializeToString(deterministic=True) == data
            assert theirs.IsInitialized()


def test_packed_floats_are_views() -> None:
    blob = random_message("BlobProto", "bvlc", 3)
    blob.set("data", np.arange(1000, dtype=np.float32))
    data = encode(blob)
    found = decode(data, "BlobProto").get_array("data")
    assert found.dtype == np.float32
    assert not found.flags.owndata
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, np.arange(1000))


def unpacked(values: np.ndarray) -> bytes:
    """A BlobProto's `data` (field 5) as single values: tag 5 << 3 | 5, four bytes, again and again."""
    table = np.empty((values.size, 5), np.uint8)
    table[:, 0] = 5 << 3 | 5
    table[:, 1:] = values.astype("<f4").view(np.uint8).reshape(-1, 4)
    return table.tobytes()


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 1), (500, 1, 7), (100_000,)])
def test_floats_sent_one_by_one(sizes: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=sum(sizes)).astype(np.float32)
    height = b"\x18\x07"  # another field between the runs
    parts = np.split(values, np.cumsum(sizes)[:-1])
    data = height.join(unpacked(part) for part in parts) + b"\x2a\x04" + values[:1].tobytes()  # and one packed
    expected = np.concatenate([values, values[:1]])
    found = decode(data, "BlobProto")
    np.testing.assert_array_equal(found.get_array("data"), expected)
    assert found.get_int("height") == (7 if len(sizes) > 1 else 0)
    if values.size < 1000:
        np.testing.assert_array_equal(message_class("BlobProto", "bvlc").FromString(data).data, expected)


def test_integers_packed_or_not() -> None:
    assert decode(b"\x0a\x02\x05\x06\x08\x07", "BlobShape").get_ints("dim") == (5, 6, 7)
    assert decode(b"\x18\x03\x18\x04", "ConvolutionParameter").get_ints("pad") == (3, 4)
    assert decode(b"\x1a\x02\x03\x04", "ConvolutionParameter").get_ints("pad") == (3, 4)


def test_merging_and_last_one_wins() -> None:
    one, two = b"\xd2\x06\x02\x08\x03", b"\xd2\x06\x02\x28\x02"  # convolution_param { num_output: 3 }, { group: 2 }
    layer = decode(b"\x0a\x01a" + one + b"\x0a\x01b" + two, "LayerParameter")
    conv = layer.get_message("convolution_param")
    assert (layer.get_str("name"), conv.get_int("num_output"), conv.get_int("group")) == ("b", 3, 2)


def test_what_the_schema_does_not_know_is_skipped() -> None:
    unknown = b"\xfa\x7f\x03abc" + b"\xf8\x7f\x05" + b"\xfd\x7f1234" + b"\xf9\x7f12345678"
    assert decode(unknown + b"\x0a\x01a", "LayerParameter").get_str("name") == "a"
    assert not decode(b"\x08\x05", "LayerParameter").has("name"), "a number where a text is meant"
    assert not decode(b"\x50\x09", "LayerParameter").has("phase"), "a number the enum does not have"


def test_a_pooling_saved_by_another_dialect_is_misread() -> None:
    """Why topology is never taken from a caffemodel: extended's kernel_size (3) is stride to BVLC, its stride pad."""
    saved = encode(parse_text("pool: MAX kernel_size: 2 stride: 3", "PoolingParameter", "extended"))
    found = decode(saved, "PoolingParameter", "bvlc")
    assert (found.has("kernel_size"), found.get_int("stride"), found.get_int("pad")) == (False, 2, 3)


def test_texts_that_are_no_utf8_stay_distinct() -> None:
    names = {decode(b"\x0a\x02" + text, "LayerParameter").get_str("name") for text in (b"\xff\xfe", b"\xfe\xff")}
    assert names == {r"\xff\xfe", r"\xfe\xff"}


def test_only_the_fields_asked_for() -> None:
    net = parse_text('name: "n" layer { name: "a" type: "T" bottom: "x" }')
    found = decode(encode(net), keep={"NetParameter": ("layer",), "LayerParameter": ("name", "type")})
    assert found.names() == ("layer",)
    assert found.get_messages("layer")[0].names() == ("name", "type")


BROKEN = [
    (b"\x0a", "end within a number"),
    (b"\x0a\x05abc", "byte 1: LayerParameter.name announces 5 bytes, 4 are left"),
    (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "announces 18446744073709551615 bytes"),
    (b"\x80" * 11, "more than ten bytes"),
    (b"\x00\x01", "no field of number 0 and wire type 0"),
    (b"\x0b", "no field of number 1 and wire type 3"),
    (b"\x0f", "wire type 7"),
    (b"\xfd\x7f12", "needs 4 bytes"),
    (b"\x2a\x03abc", "no whole number of float values"),
    (b"\x2d\x00\x00", "no whole number of float values"),
]


@pytest.mark.parametrize(("data", "expected"), BROKEN, ids=[text for _, text in BROKEN])
def test_broken_bytes(data: bytes, expected: str) -> None:
    name = "BlobProto" if "float" in expected else "LayerParameter"
    with pytest.raises(WeightsError) as caught:
        decode(data, name, source="x.caffemodel")
    assert str(caught.value).startswith("x.caffemodel: byte ")
    assert expected in str(caught.value)
    with pytest.raises(DecodeError):
        message_class(name, "extended").FromString(data)


NET = """name: "n" input: "data" input_shape { dim: 1 dim: 300 } layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv" loss_weight: 0.5 propagate_down: true
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "gaussian" std: 0.01 } }
  blobs { shape { dim: 2 dim: 2 } data: [1, 2, 3, 4] double_diff: [5, 6] }
} layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
"""


def test_cut_short_anywhere() -> None:
    """Every beginning of a file either ends in our error or is a whole message, exactly as protobuf says."""
    data = encode(parse_text(NET))
    assert len(data) > 100
    accepted = 0
    for size in range(len(data)):
        try:
            message_class("NetParameter", "extended").FromString(data[:size])
            whole = True
        except DecodeError:
            whole = False
        if whole:
            decode(data[:size])
            accepted += 1
        else:
            with pytest.raises(WeightsError, match="byte"):
                decode(data[:size])
    assert accepted == 5  # nothing, and behind each of the net's five fields but the last


def test_damaged_bytes() -> None:
    """One to three bytes changed anywhere: our error or a message, and a message only where protobuf has one too."""
    draw = random.Random(1)
    data, accepted = encode(parse_text(NET)), 0
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            decode(bytes(damaged))
        except WeightsError:
            continue
        message_class("NetParameter", "extended").FromString(bytes(damaged))
        accepted += 1
    assert 100 < accepted < 2900


@pytest.mark.parametrize("size", range(0, 300, 7))
def test_noise(size: int) -> None:
    noise = random.Random(size).randbytes(size)
    try:
        decode(noise)
    except WeightsError:
        return
    message_class("NetParameter", "extended").FromString(noise)


MANY = 600_000


@pytest.mark.parametrize(
    ("message", "data", "expected"),
    [
        ("NetParameter", b"\xa2\x06\x00" * MANY, f"more than {MAX_MESSAGES} messages"),
        ("LayerParameter", b"\x3a\x02\x3a\x00" * MANY, f"more than {MAX_MESSAGES} messages"),
        ("LayerParameter", b"\xf8\x7f\x01" * MANY, f"more than {MAX_FIELDS} fields"),
        ("BlobShape", b"\x08\x01" * MANY, f"more than {MAX_FIELDS} fields"),
        ("BlobShape", b"\x0a\xc0\xcf\x24" + b"\x01" * MANY, f"more than {MAX_FIELDS} fields"),
        ("BlobProto", (b"\x2d1234\x18\x01") * MANY, f"more than {MAX_FIELDS} fields"),
    ],
    ids=["empty layers", "nested", "unknown fields", "single numbers", "packed numbers", "floats between others"],
)
def test_hostile_files_end_soon(message: str, data: bytes, expected: str) -> None:
    """Small files that ask for millions of objects; measured at about a second each."""
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=expected):
        decode(data, message)
    assert time.perf_counter() - start < 20
