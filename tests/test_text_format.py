"""Prototxt: what is read, what is refused and with which words, and the dialects."""

import json
import re
from pathlib import Path

import pytest
from conftest import need
from google.protobuf import text_format as google  # type: ignore[import-untyped]
from protobuf_oracle import message_class, random_message

from caffe_models.errors import PrototxtError
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text, read_text, write_text
from caffe_models.wire import encode

NET = """# a net
name: "tiny"
layer {
  name: "conv" type: "Convolution"; bottom: "data", top: "conv"
  param < lr_mult: 1 > param: { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 0x10 pad: [1, 010, 2] kernel_size: 3
    weight_filler { type: 'xav' "ier" std: 1.5e-2f }
    engine: 1  # by number
  }
}
"""


def test_a_net() -> None:
    net = parse_text(NET, source="net.prototxt")
    (layer,) = net.get_messages("layer")
    conv = layer.get_message("convolution_param")
    assert (net.get_str("name"), net.source, net.spec.dialect) == ("tiny", "net.prototxt", "extended")
    assert (layer.get_strs("bottom"), layer.get_strs("top")) == (("data",), ("conv",))
    assert [one.get_float("lr_mult") for one in layer.get_messages("param")] == [1, 2]
    assert [one.get_float("decay_mult") for one in layer.get_messages("param")] == [1, 0]
    assert (conv.get_int("num_output"), conv.get_ints("pad"), conv.get_ints("kernel_size")) == (16, (1, 8, 2), (3,))
    assert conv.get_message("weight_filler").get_str("type") == "xavier"
    assert conv.get_message("weight_filler").get_float("std") == 0.015
    assert conv.get_str("engine") == "CAFFE"
    assert (layer.line, conv.line, conv.line_of("engine"), net.line_of("layer")) == (3, 6, 9, 3)


SCALARS = [
    ("SolverParameter", "base_lr: -.5", -0.5),
    ("SolverParameter", "base_lr: 1.", 1.0),
    ("SolverParameter", "base_lr: -2e3", -2000.0),
    ("SolverParameter", "base_lr: inf", float("inf")),
    ("SolverParameter", "base_lr: -inf", float("-inf")),
    ("SolverParameter", "random_seed: -9223372036854775808", -(2**63)),
    ("SolverParameter", "snapshot_diff: t", True),
    ("SolverParameter", "snapshot_diff: 0", False),
    ("SolverParameter", "snapshot_diff: True", True),
    ("SolverParameter", "solver_mode: CPU", "CPU"),
    ("SolverParameter", "solver_mode: 0", "CPU"),
    ("SolverParameter", r'net: "a\tb\101\x42\"\\"', 'a\tbAB"\\'),
    ("SolverParameter", r'net: "\303\244"', "ä"),
    ("SolverParameter", "net: 'it''s'", "its"),
]


@pytest.mark.parametrize(("message", "text", "expected"), SCALARS, ids=[text for _, text, _ in SCALARS])
def test_scalars(message: str, text: str, expected: object) -> None:
    (name,) = parse_text(text, message).names()
    assert parse_text(text, message).get(name) == expected
    theirs = google.Parse(text, message_class(message, "extended")())
    assert encode(parse_text(text, message)) == theirs.SerializeToString()


REFUSED = [
    ("layer { foo_param { x: 1 } }", 'message LayerParameter has no field "foo_param" (did you mean "'),
    ("layer { nme: 'x' }", 'did you mean "name"? allowed: name, type, bottom'),
    ("layer { name: 1 }", "name takes a text in quotes"),
    ("layer { name: conv }", "found conv"),
    ("layer { name: 'a' name: 'b' }", "LayerParameter.name is given twice (before on line 1)"),
    ("layer { convolution_param { } convolution_param { } }", "given twice"),
    ("layer { convolution_param { num_output: -1 } }", "num_output: -1 is out of range; allowed: 0 to 4294967295"),
    ("layer { convolution_param { num_output: 4294967296 } }", "out of range"),
    ("layer { convolution_param { pad: 1.5 } }", "pad takes a whole number, found 1.5"),
    ("layer { convolution_param { pad: 089 } }", "found 089"),
    ("layer { convolution_param { pad: 3x } }", '"3x" is not a number'),
    ("layer { convolution_param { pad: [1 2] } }", 'in the list of pad, "," or "]" must follow, found 2'),
    ("layer { convolution_param { num_output: [1] } }", "found ["),
    ("layer { convolution_param { engine: FAST } }", "found 'FAST', allowed: DEFAULT, CAFFE"),
    ("layer { convolution_param { engine: 77 } }", "found '77', allowed: DEFAULT, CAFFE"),
    ("layer { convolution_param { bias_term: yes } }", "bias_term takes true or false, found yes"),
    ("layer { dropout_param { dropout_ratio: half } }", "dropout_ratio takes a number, found half"),
    ("layer { name 'x' }", 'after name a ":" and a value must follow'),
    ("layer: 'x'", 'after layer (a LayerParameter) "{" must follow'),
    ("layer { name: 'x }", "has no closing '"),
    ("layer { name: 'x' >", 'found ">", but line 1 opened with "{"'),
    ("layer { } }", 'found "}" without an open brace'),
    ("layer {\n name: 'x'\n", 'the text ends inside LayerParameter: the "{" of line 1 is not closed by "}"'),
    ("layer {\n name: 'a'\nlayer {\n name: 'b'\n}", 'has no field "layer", but NetParameter has: is the "}" missing'),
    ("name: 'x' = 3", 'found "=", which has no place in a prototxt'),
    ("3: 4", "found 3 where a field of NetParameter should be named"),
    ("name:", 'name takes a text in quotes, "like this", found the end of the text'),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[text for text, _ in REFUSED])
def test_refused_with_file_and_line(text: str, expected: str) -> None:
    with pytest.raises(PrototxtError) as caught:
        parse_text(text, dialect="extended", source="net.prototxt")
    message = str(caught.value)
    assert re.match(r"net\.prototxt:[1-5]: ", message)
    assert expected in message
    assert "\n" not in message
    with pytest.raises(google.ParseError):
        google.Parse(text, message_class("NetParameter", "extended")())


def test_escapes_that_mean_nothing() -> None:
    with pytest.raises(PrototxtError, match=r'<text>:2: unknown escape "\\q"'):
        parse_text("\nname: '\\q'")
    with pytest.raises(PrototxtError, match="do not make UTF-8"):
        parse_text(r"name: '\377'")


def test_hostile_texts_end_soon() -> None:
    for text in ("1" * 300_000 + "x", "'" + "a" * 300_000, "0x" + "f" * 300_000, "layer{" * 50_000, "[" * 100_000):
        with pytest.raises(PrototxtError) as caught:
            parse_text(text)
        assert len(str(caught.value)) < 3000
    with pytest.raises(PrototxtError, match="takes a whole number"):
        parse_text("input_dim: 0x" + "f" * 300_000)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_writing_and_reading_agrees_with_protobuf(dialect: str) -> None:
    for seed in range(60):
        for name in ("NetParameter", "SolverParameter", "LayerParameter"):
            ours = random_message(name, dialect, seed)
            text = write_text(ours)
            assert parse_text(text, name, dialect).equals(ours)
            theirs = google.Parse(text, message_class(name, dialect)())
            assert theirs.SerializeToString(deterministic=True) == encode(ours)
            assert parse_text(google.MessageToString(theirs), name, dialect).equals(ours)


def test_written_text() -> None:
    net = parse_text(NET)
    assert write_text(net.get_messages("layer")[0].get_message("convolution_param")) == (
        "num_output: 16\npad: 1\npad: 8\npad: 2\nkernel_size: 3\nweight_filler {\n"
        '  type: "xavier"\n  std: 0.015\n}\nengine: CAFFE\n'
    )


def pooling(fields: str) -> str:
    return f'layer {{ type: "Pooling" pooling_param {{ {fields} }} }}'


def test_another_dialect_is_tried() -> None:
    solver = parse_text('net: "x" weights: "w.caffemodel"', "SolverParameter")  # `weights` is BVLC's
    assert solver.spec.dialect == "bvlc"
    with pytest.raises(PrototxtError, match=r"x.prototxt:3: .*kernel_sise"):  # the error of the one that read furthest
        parse_text("layer { pooling_param {\nkernel_size: 2 kernel_size: 2\nkernel_sise: 3 } }", source="x.prototxt")


def test_another_dialects_field_is_explained() -> None:
    with pytest.raises(PrototxtError, match="dialect intel has it, the text is read as extended"):
        parse_text(pooling("kernel_size_3d: 2"), dialect="extended")


def test_files_that_are_no_prototxt(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"absent.prototxt: cannot be read: No such file"):
        read_text(tmp_path / "absent.prototxt")
    with pytest.raises(PrototxtError, match="is a folder"):
        read_text(tmp_path)
    for content in (b"\x0a\x04tiny\xa2\x06\x00", b"name: '\xff'", b"\x00" * 20):
        (tmp_path / "x.prototxt").write_bytes(content)
        with pytest.raises(PrototxtError, match=r"x.prototxt.*is this (a binary file \()?a .caffemodel"):
            read_text(tmp_path / "x.prototxt")
    (tmp_path / "x.prototxt").write_bytes(b"\xef\xbb\xbfname: 'x'\r\n")
    assert read_text(tmp_path / "x.prototxt").get_str("name") == "x"


def test_every_reference_net_reads(data_dir: Path) -> None:
    """In its own dialect and, where the text tells, in the one found."""
    root = need(data_dir / "caffe_golden")
    count = 0
    for path in sorted(root.rglob("*.prototxt")):
        dialect = path.parent.parent.name if path.parent.parent.parent.name == "ops" else None
        kind = "SolverParameter" if path.name == "solver.prototxt" else "NetParameter"
        message = read_text(path, kind, dialect)
        assert message.names()
        count += 1
    assert count > 600


def test_errors_are_those_of_caffe(data_dir: Path) -> None:
    """A text of errors.json is refused here where that dialect's Caffe refuses to parse it, on that line."""
    cases = json.loads(need(data_dir / "caffe_golden" / "errors.json").read_text())
    refused = 0
    for case, entry in cases.items():
        for dialect, build in entry["builds"].items():
            text = entry.get("prototxt") or entry["prototxt_by_dialect"].get(dialect)
            message = build.get("message", "")
            if text is None:
                continue
            if "Error parsing text-format caffe.NetParameter" not in message:
                parse_text(text, dialect=dialect)
                continue
            with pytest.raises(PrototxtError) as caught:
                parse_text(text, dialect=dialect)
            line = message.split("NetParameter: ")[1].split(":")[0]
            assert str(caught.value).startswith(f"<text>:{line}: "), case
            refused += 1
    assert refused > 15
