"""Which dialect a text is taken for, and why."""

import pytest
from caffe_golden import net_folder
from conftest import data_folder, need

from caffe_models.dialects import detect
from caffe_models.errors import PrototxtError
from caffe_models.text_format import parse_text, read_text


def pooling(fields: str) -> str:
    return f'layer {{ type: "Pooling" pooling_param {{ {fields} }} }}'


UNDECIDED = "nothing in it belongs to one dialect only"


@pytest.mark.parametrize(
    ("text", "dialect", "reason"),
    [
        (pooling("kernel_size: 2"), "extended", UNDECIDED),
        (pooling("kernel_size: 2 kernel_size: 2"), "extended", "line 1: kernel_size of a pooling given more than once"),
        (
            pooling("kernel_size: 2 stride: [2, 2, 2]"),
            "extended",
            "line 1: stride of a pooling as a list is of extended",
        ),
        (pooling("kernel_size: 2") * 2, "extended", UNDECIDED),
        (pooling("kernel_size_3d: 2"), "intel", "line 1: kernel_size_3d is of intel only"),
        (pooling("# kernel_size_3d\n kernel_size: 2"), "extended", UNDECIDED),
        (pooling("\nkernel_size: 2 round_mode: FLOOR"), "bvlc", "line 2: round_mode is of bvlc only"),
        (pooling("kernel_size: 2 avg_include_pad: false"), "extended", "avg_include_pad is of extended and intel only"),
        ('layer { engine: "MKL2017" }', "extended", 'line 1: engine "MKL2017" is of extended and intel only'),
        ("layer { convolution_param { engine: MKLDNN } }", "extended", "engine MKLDNN is of extended and intel only"),
        ("layer { convolution_param { engine: CAFFE } }", "extended", UNDECIDED),
        ("layer { swish_param { beta: 2 } }", "bvlc", "swish_param is of bvlc only"),
        ('layer { type: "Clip" }', "bvlc", 'layer type "Clip" is of bvlc only'),
        ('layer { type: "Swish" }', "bvlc", 'layer type "Swish" is of bvlc and intel only; bvlc reads all that intel'),
        ('layer { type: "Swish" }\nlayer { engine: "MKLDNN" }', "intel", 'line 2: engine "MKLDNN"'),
        ('layer { type: "Permute" }', "extended", 'layer type "Permute" is of extended and intel only'),
        ('name: "kernel_size_3d"', "extended", UNDECIDED),
        ('layer { name: "round_mode" bottom: "clip_param" }', "extended", UNDECIDED),
        ("stepvalue: 3 plateau_winsize: 5", "extended", "plateau_winsize is of extended and intel only"),
        ('eval_type: "detection"', "extended", "eval_type is of extended only"),
        ('weights: "w.caffemodel"', "bvlc", "weights is of bvlc only"),
    ],
)
def test_evidence(text: str, dialect: str, reason: str) -> None:
    found = detect(text)
    assert found.dialect == dialect == found.order[0]
    assert reason in found.reason
    assert sorted(found.order) == ["bvlc", "extended", "intel"]


def test_the_message_knows_why() -> None:
    net = parse_text(pooling("kernel_size_3d: 2"))
    assert (net.spec.dialect, net.dialect_reason) == ("intel", "line 1: kernel_size_3d is of intel only")
    assert parse_text("", dialect="bvlc").dialect_reason == "as told"


def test_words_that_contradict_each_other() -> None:
    with pytest.raises(PrototxtError, match="round_mode"):
        parse_text(pooling("kernel_size_3d: 2 round_mode: FLOOR"))


def test_a_dialect_that_does_not_read_the_text_is_left() -> None:
    """`kernel_size` twice, but only the reader knows that this pooling_param stands in a V1 layer."""
    text = "layers { pooling_param < kernel_size: 2\nkernel_size: 2 > }"
    assert parse_text(text).spec.dialect == "extended"
    net = parse_text('type: "Clip"\nname: "solver"', "LayerParameter")
    assert net.spec.dialect == "bvlc"


@pytest.mark.parametrize("name", ["bvlc_2d", "intel_2d", "intel_3d", "extended_2d", "extended_3d"])
def test_nets_of_the_reference_data(name: str) -> None:
    """Ambiguous texts stay extended; a 3-D pooling in Intel's words is Intel's."""
    wanted = "intel" if name == "intel_3d" else "extended"
    assert read_text(net_folder(f"topology/{name}") / "deploy.prototxt").spec.dialect == wanted


def test_no_reference_text_is_taken_for_a_dialect_that_cannot_read_it() -> None:
    root = need(data_folder() / "caffe_golden" / "ops")
    wrong = []
    for path in sorted(root.rglob("deploy.prototxt")):
        found = detect(path.read_text())
        parse_text(path.read_text(), dialect=found.dialect)
        written_for = path.parent.parent.name
        if UNDECIDED not in found.reason and "reads all that" not in found.reason and found.dialect != written_for:
            wrong.append(f"{written_for} {path.parent.name}: {found}")
    assert wrong == []
