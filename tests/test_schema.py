"""The schema against field numbers typed by hand, and against itself."""

import pytest

from caffe_models.errors import PrototxtError
from caffe_models.message import Message
from caffe_models.schema import DIALECTS, enum_values, message_names, message_spec

POOLING = {  # the trap: the same names under other numbers
    "bvlc": {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4, "kernel_h": 5, "pad_w": 10, "round_mode": 13},
    "intel": {"kernel_size": 2, "stride": 3, "pad": 4, "avg_include_pad": 13, "axis": 14, "pad_3d": 15}
    | {"kernel_size_3d": 16, "stride_3d": 17},
    "extended": {"pool": 1, "pad": 2, "kernel_size": 3, "stride": 4, "pad_h": 5, "kernel_h": 7, "stride_w": 10}
    | {"engine": 11, "global_pooling": 12, "axis": 13, "avg_include_pad": 14},
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pooling_numbers(dialect: str) -> None:
    fields = message_spec("PoolingParameter", dialect).by_name
    assert {name: fields[name].number for name in POOLING[dialect]} == POOLING[dialect]
    assert fields["kernel_size"].repeated == (dialect == "extended")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_table_is_consistent(dialect: str) -> None:
    """Every message and enum named exists; every default is a value that the field takes."""
    for name in message_names(dialect):
        message = Message(message_spec(name, dialect))
        for field in message.spec.fields:
            if field.is_message:
                assert message_spec(field.message, dialect).name == field.message
            elif not field.repeated:
                message.set(field.name, field.default)
                assert message.get(field.name) == field.default


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_message_contains_itself(dialect: str) -> None:
    def inside(name: str, around: tuple[str, ...]) -> None:
        assert name not in around, f"{' > '.join(around)} > {name}"
        for field in message_spec(name, dialect).fields:
            if field.is_message:
                inside(field.message, (*around, name))

    for name in message_names(dialect):
        inside(name, ())


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        ("NetParameter", "layer", 100),
        ("NetParameter", "layers", 2),
        ("LayerParameter", "blobs", 7),
        ("LayerParameter", "convolution_param", 106),
        ("LayerParameter", "batch_norm_param", 139),
        ("LayerParameter", "recurrent_param", 146),
        ("V1LayerParameter", "blobs", 6),
        ("V1LayerParameter", "relu_param", 30),
        ("BlobProto", "data", 5),
        ("ConvolutionParameter", "dilation", 18),
        ("SolverParameter", "type", 40),
        ("SolverState", "history", 3),
    ],
)
def test_common_numbers(message: str, field: str, number: int) -> None:
    for dialect in DIALECTS:
        assert message_spec(message, dialect).by_name[field].number == number


def test_numbers_that_collide_between_dialects() -> None:
    def name_of(number: int, message: str, dialect: str) -> str:
        return message_spec(message, dialect).by_number[number].name

    assert name_of(148, "LayerParameter", "bvlc") == "clip_param"
    assert name_of(148, "LayerParameter", "extended") == "smooth_l1_loss_param"
    assert name_of(42, "SolverParameter", "bvlc") == "weights"
    assert name_of(42, "SolverParameter", "extended") == "ap_version"
    assert enum_values("Normalization", "bvlc")["NONE"] == 3
    assert enum_values("Normalization", "intel")["NONE"] == 4


@pytest.mark.parametrize(
    ("message", "field", "default"),
    [
        ("ConvolutionParameter", "bias_term", True),
        ("ScaleParameter", "bias_term", False),
        ("BatchNormParameter", "moving_average_fraction", 0.999),
        ("BatchNormParameter", "eps", 1e-5),
        ("SolverParameter", "solver_mode", "GPU"),
        ("SolverParameter", "momentum2", 0.999),
        ("LossParameter", "normalization", "VALID"),
        ("EltwiseParameter", "operation", "SUM"),
        ("NetState", "phase", "TEST"),
        ("FillerParameter", "type", "constant"),
    ],
)
def test_defaults(message: str, field: str, default: object) -> None:
    assert Message(message_spec(message)).get(field) == default


def test_a_message_tells_set_from_unset() -> None:
    layer = Message(message_spec("LayerParameter"))
    assert not layer.has("batch_norm_param")
    assert layer.get_message("batch_norm_param").get_float("eps") == 1e-5
    assert not layer.has("batch_norm_param"), "looking at a field does not set it"
    norm = layer.new("batch_norm_param")
    assert layer.has("batch_norm_param")
    norm.set("use_global_stats", False)
    assert norm.has("use_global_stats")
    assert layer.get_message("batch_norm_param").has("use_global_stats")
    layer.add("bottom", "a")
    layer.add("bottom", "b")
    assert layer.get_strs("bottom") == ("a", "b")
    layer.clear("bottom")
    assert layer.get("bottom") == ()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_output", -1, "allowed: 0 to 4294967295"),
        ("num_output", 2.0, "whole number"),
        ("num_output", True, "takes a number"),
        ("bias_term", 1, "true or false"),
        ("engine", "FAST", "allowed: DEFAULT, CAFFE, CUDNN"),
        ("weight_filler", "xavier", "message of type FillerParameter"),
        ("kernel_sise", 3, 'did you mean "kernel_size"?'),
    ],
)
def test_a_message_refuses_wrong_values(field: str, value: object, expected: str) -> None:
    with pytest.raises(PrototxtError, match=expected.replace("?", r"\?")):
        Message(message_spec("ConvolutionParameter")).set(field, value)


def test_floats_are_what_32_bits_hold() -> None:
    power = Message(message_spec("PowerParameter"))
    power.set("shift", 0.1)
    assert power.get_float("shift") == 0.1
    power.set("shift", 1 / 3)
    assert power.get_float("shift") == 0.33333334
    power.set("shift", 1e39)
    assert power.get_float("shift") == float("inf")


def test_unknown_names_are_our_own_mistakes() -> None:
    with pytest.raises(ValueError, match="no message"):
        message_spec("LayerParam")
    with pytest.raises(ValueError, match="no dialect"):
        message_spec("NetParameter", "nvidia")
