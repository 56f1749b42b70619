"""Small files that ask for too much, each with the words its error must have.

A prototxt is given as text, a binary file as bytes. `{data}` stands for an Input of 1x2x4x5x6.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from caffe_models.schema import message_spec
from caffe_models.text_format import parse_text
from caffe_models.wire import encode

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 5 dim: 6 } } }\n'
LONG = "n" * (3 << 20)
MOST_UINT32, MOST_INT32, MOST_INT64 = (1 << 32) - 1, (1 << 31) - 1, (1 << 63) - 1


@dataclass(frozen=True)
class Hostile:
    """One file, what reads it, and what the error must say (empty: it must be read)."""

    name: str
    content: str | bytes
    says: str
    reader: str = "net"
    """net, train (the net in its TRAIN phase), solver, weights, state."""


def one(kind: str, settings: str = "", more: str = "", bottoms: int = 1) -> str:
    """A layer of type `kind` on the data."""
    read = 'bottom: "data" ' * bottoms
    return f'{DATA}layer {{ name: "x" type: "{kind}" {read} top: "x" {settings} {more} }}\n'


def inputs(*dims: int) -> str:
    shape = " ".join(f"dim: {dim}" for dim in dims)
    return f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}\n'


def relu(bottom: str, top: str) -> str:
    return f'layer {{ name: "{top}" type: "ReLU" bottom: "{bottom}" top: "{top}" }}\n'


def conv(settings: str) -> str:
    return one("Convolution", f"convolution_param {{ {settings} }}")


def layer_bytes(inside: bytes) -> bytes:
    """A NetParameter with one layer of these bytes."""
    return b"\xa2\x06" + varint(len(inside)) + inside


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def blob_bytes(*dims: int, data: bytes = b"") -> bytes:
    """A layer "c" with a BlobProto of that shape and those data bytes."""
    shape = b"".join(varint(dim) for dim in dims)
    blob = b"\x3a" + varint(len(shape) + 1 + len(varint(len(shape)))) + b"\x0a" + varint(len(shape)) + shape
    blob += b"\x2a" + varint(len(data)) + data
    return layer_bytes(b"\x0a\x01c" + b"\x3a" + varint(len(blob)) + blob)


def texts() -> Iterator[Hostile]:
    """Prototxts whose syntax is the attack."""
    yield Hostile("braces without end", "layer {" * 70_000, "no field")
    yield Hostile("nested solver nets", "net_param { layer { " * 30_000, "no field", "solver")
    yield Hostile("brackets without end", "layer { bottom: " + "[" * 140_000, "takes a text in quotes")
    yield Hostile("a long line", DATA + "#" + "x" * (3 << 20) + "\n}", "without an open brace")
    yield Hostile("a long name", DATA + "layer { " + LONG + ": 1 }", "has no field")
    yield Hostile("a long layer name", DATA + 'layer { name: "' + LONG + '" }', "text of 3145728|longer|has no type")
    yield Hostile("a long number", "layer { loss_weight: " + "9" * len(LONG) + " type: 3 }", "type takes a text")
    yield Hostile("a long integer", "layer { phase: " + "9" * len(LONG) + " }", "allowed: TRAIN, TEST")
    yield Hostile("a text of escapes", "layer { name: '" + r"\x41" * 49_000 + "' type: 3 }", "type takes a text")
    yield Hostile("texts side by side", "layer { name: " + '"" ' * 900_000 + "type: 3 }", "takes a text|more than")
    yield Hostile("an open text", "layer { name: '" + LONG, "no closing")
    yield Hostile("backslashes without end", 'layer { name: "' + "\\" * 49_999, "no closing")
    yield Hostile("millions of comments", "#\n" * 1_500_000 + "}", "1500001: found")
    yield Hostile("blank lines", "\n" * 3_000_000 + "}", "3000001: found")
    yield Hostile("signs", ";" * 3_000_000, "found ;|more than")
    yield Hostile("a hundred thousand layers", DATA + relu("d", "d") * 80_000, "has more than")
    yield Hostile("thirty thousand layers in a row", DATA + relu("data", "data") * 30_000, "more than 150000 words")
    yield Hostile("nine thousand layers in a row", DATA + relu("data", "data") * 9000, "9001 layers; allowed")
    yield Hostile("a hundred thousand bottoms", one("Concat", bottoms=100_000, more="foo: 1"), "no field|more than")
    tops = "".join(f'top: "t{index}" ' for index in range(100_000))
    yield Hostile(
        "a hundred thousand tops",
        f'{DATA}layer {{ name: "x" type: "Slice" bottom: "data" {tops} }}',
        "cannot be cut|more",
    )
    many = "".join(f'bottom: "data" top: "t{index}" ' for index in range(20_000))
    yield Hostile(
        "twenty thousand convolutions in one", f'{DATA}layer {{ name: "x" type: "Convolution" {many} }}', "kernel_size"
    )
    rules = "include { phase: TRAIN } " * 100_000
    yield Hostile(
        "rules without end",
        DATA + f'layer {{ name: "x" type: "ReLU" bottom: "data" top: "x" {rules} }} }}',
        "more|found",
    )
    stages = 'stage: "a" ' * 100_000
    yield Hostile(
        "stages without end", f"{DATA}layer {{ name: 'x' type: 'ReLU' include {{ {stages} }} }} }}", "more|found"
    )
    yield Hostile("many dims", inputs(*[1] * 100_000) + relu("data", "x"), "axes|more than")
    yield Hostile("an axis too many", inputs(*[1] * 33) + relu("data", "x"), "33 axes")
    yield Hostile("unknown dialects", DATA * 4000 + "layer { nothing: 1 }", "no field")
    yield Hostile("a cyclic net", DATA + relu("y", "x") + relu("x", "y"), "makes it later")
    yield Hostile("a layer that reads itself", DATA + relu("x", "x"), "makes it later|is made by no layer")
    name = r'layer { name: "\033[2J\n" type: "Nothing" }'
    yield Hostile("a name that steers the terminal", DATA + name, r"\\x1b\[2J\\n")


def sizes() -> Iterator[Hostile]:
    """Prototxts whose numbers are the attack."""
    big = MOST_UINT32
    yield Hostile("input beyond memory", inputs(1 << 20, 1 << 20, 1 << 20) + relu("data", "x"), "values; allowed")
    yield Hostile("input of int64", inputs(MOST_INT64, MOST_INT64) + relu("data", "x"), "allowed")
    yield Hostile("num_output", conv(f"num_output: {big} kernel_size: 1"), "allowed|weights")
    yield Hostile("num_output of int32", conv(f"num_output: {MOST_INT32} kernel_size: 1"), "weights of shape")
    yield Hostile("kernel", conv(f"num_output: 1 kernel_size: {big}"), "too small")
    yield Hostile("kernel and pad", conv(f"num_output: 1 kernel_size: {big} pad: {big}"), "weights of shape|allowed")
    yield Hostile("pad", conv(f"num_output: 1 kernel_size: 1 pad: {big}"), "allowed: 32 axes of at most")
    yield Hostile("pad of int32", conv(f"num_output: 1 kernel_size: 1 pad: {MOST_INT32 // 4}"), "values; allowed")
    yield Hostile("stride", conv(f"num_output: 1 kernel_size: 1 stride: {big}"), "")
    yield Hostile("dilation", conv(f"num_output: 1 kernel_size: 2 dilation: {big}"), "too small")
    yield Hostile("group", conv(f"num_output: {big} group: {big} kernel_size: 1"), "divided into group")
    yield Hostile("convolution axis", conv(f"num_output: 1 kernel_size: 1 axis: {MOST_INT32}"), "axis")
    sizes = "kernel_size: 1 " * 100_000
    yield Hostile("kernel sizes", conv(f"num_output: 1 {sizes}"), "100000 times|more than")
    deconv = f"convolution_param {{ num_output: 2 kernel_size: 1 stride: {big} }}"
    yield Hostile("deconvolution", one("Deconvolution", deconv), "allowed")
    full = "inner_product_param { num_output: %d %s }"
    yield Hostile("inner product", one("InnerProduct", full % (big, "")), "weights of shape|allowed")
    yield Hostile("terabytes of weights", one("InnerProduct", full % (MOST_INT32, "")), "weights of shape")
    large = inputs(1, 1 << 30) + f'layer {{ name: "x" type: "InnerProduct" bottom: "data" top: "x" {full % (8, "")} }}'
    yield Hostile("inner product of a large input", large, "weights of shape")
    fill = full % (1 << 21, 'weight_filler { type: "xavier" }')
    yield Hostile("filler over gigabytes", one("InnerProduct", fill), "")
    many = "".join(
        f'layer {{ name: "x{index}" type: "InnerProduct" bottom: "data" top: "x{index}" {full % (1 << 20, "")} }}\n'
        for index in range(50)
    )
    yield Hostile("weights together beyond a file", DATA + many, "caffemodel can hold")
    yield Hostile("pooling kernel", one("Pooling", f"pooling_param {{ kernel_size: {big} }}"), "larger than the padded")
    yield Hostile(
        "pooling pad", one("Pooling", f"pooling_param {{ kernel_size: {big} pad: {big - 1} }}"), "allowed: 32 axes"
    )
    yield Hostile("pooling stride", one("Pooling", f"pooling_param {{ kernel_size: 1 stride: {big} }}"), "lies outside")
    yield Hostile("tiles", one("Tile", f"tile_param {{ tiles: {MOST_INT32} }}"), "allowed")
    tiles = "".join(
        f'layer {{ name: "x{index}" type: "Tile" bottom: "data" top: "data" tile_param {{ tiles: 1000000 }} }}'
        for index in range(3)
    )
    yield Hostile("tiles in a row", DATA + tiles, "allowed|in place|another name")
    doubled = DATA.replace('top: "data"', 'top: "x-1"') + "".join(
        f'layer {{ name: "x{i}" type: "Concat" bottom: "x{i - 1}" bottom: "x{i - 1}" top: "x{i}" }}\n'
        for i in range(64)
    )
    yield Hostile("doubled 64 times", doubled, "values; allowed|axes of at most")
    yield Hostile("top_k", one("ArgMax", f"argmax_param {{ top_k: {big} }}"), "top_k")
    yield Hostile("concat axis", one("Concat", f"concat_param {{ axis: {MOST_INT32} }}"), "axis")
    yield Hostile("slice points", one("Slice", f"slice_param {{ slice_point: {big} }}"), "slice_point|slice_point for")
    image = inputs(1, 2, 5, 5)
    lrn = f'layer {{ name: "x" type: "LRN" bottom: "data" top: "x" lrn_param {{ local_size: {big} }} }}'
    yield Hostile("local_size", image + lrn, "local_size")
    dims = f"reshape_param {{ shape {{ dim: {MOST_INT64} dim: {MOST_INT64} dim: -1 }} }}"
    yield Hostile("reshape", one("Reshape", dims), "the counts differ")
    crop = f"crop_param {{ axis: 2 offset: {big} }}"
    yield Hostile("crop offset", one("Crop", crop, bottoms=2), "exceeds")
    yield Hostile(
        "python settings nested", one("Python", "python_param { param_str: '" + "[" * 100_000 + "' }"), "JSON"
    )
    yield Hostile(
        "python settings of digits", one("Python", "python_param { param_str: '" + "9" * 100_000 + "' }"), "JSON"
    )
    danger = "python_param { module: 'os' layer: 'system' param_str: '__import__(\\'os\\').abort()' }"
    yield Hostile("python settings that are code", one("Python", danger), "JSON")
    danger = "python_param { module: 'os' layer: 'abort' }"
    yield Hostile("python layer of a module", one("Python", danger), "unknown Python layer os.abort")
    iterations = 'net_param { layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } } } base_lr: 1 '
    sizes = f"lr_policy: 'fixed' iter_size: {MOST_INT32} average_loss: {MOST_INT32}"
    yield Hostile("solver counts", iterations + sizes, "", "solver")


def binaries() -> Iterator[Hostile]:
    """Caffemodels and solver states."""
    yield Hostile("a billion values in ten bytes", blob_bytes(1000, 1000, 1000), "0 numbers", "weights")
    yield Hostile("extents beyond int64", blob_bytes(*[(1 << 62)] * 30), "0 numbers", "weights")
    yield Hostile("a hundred thousand extents", blob_bytes(*[1] * 100_000), "axes|more than", "weights")
    yield Hostile("negative extents", blob_bytes((1 << 64) - 1, (1 << 64) - 4, data=b"1234" * 4), "shape", "weights")
    yield Hostile("a length beyond the file", b"\xa2\x06\xff\xff\xff\xff\x0f" + b"1" * 20, "announces", "weights")
    yield Hostile("a length of 2^63", b"\xa2\x06" + b"\xff" * 9 + b"\x01", "announces", "weights")
    yield Hostile("empty layers", b"\xa2\x06\x00" * 1_000_000, "more than", "weights")
    yield Hostile("empty blobs", layer_bytes(b"\x0a\x01c" + b"\x3a\x00" * 1_000_000), "more than", "weights")
    yield Hostile("unknown fields", b"\xa2\x06\x03\x0a\x01c" + b"\xf8\x7f\x01" * 1_000_000, "more than", "weights")
    yield Hostile(
        "single floats",
        layer_bytes(b"\x0a\x01c\x3a" + varint(5_000_000) + b"\x2d1234" * 1_000_000),
        "numbers",
        "weights",
    )
    deep = b""
    for _ in range(5000):
        deep = b"\x0a" + varint(len(deep)) + deep
    yield Hostile(
        "nested unknown messages", layer_bytes(b"\x0a\x01c\xfa\x7f" + varint(len(deep)) + deep), "", "weights"
    )
    yield Hostile("groups without end", b"\xa3\x06" * 1_000_000, "wire type 3", "weights")
    yield Hostile("a name of megabytes", layer_bytes(b"\x0a" + varint(9 << 20) + b"n" * (9 << 20)), "", "weights")
    yield Hostile("history without end", b"\x08\x01" + b"\x1a\x00" * 1_000_000, "more than", "state")
    yield Hostile("iterations beyond int32", b"\x08" + b"\xff" * 9 + b"\x01", "", "state")
    net = parse_text(DATA, "NetParameter", "extended")
    whole = encode(net)
    assert message_spec("NetParameter").by_name
    yield Hostile("a net without weights", whole, "", "weights")
    yield Hostile(
        "floats of three bytes", layer_bytes(b"\x0a\x01c\x3a\x05\x2a\x03123"), "no whole number|shape", "weights"
    )
    yield Hostile("noise", struct.pack("<200I", *(pow(7, n, 4294967291) for n in range(200))), "byte", "weights")


def all_files() -> list[Hostile]:
    return [*texts(), *sizes(), *binaries()]
