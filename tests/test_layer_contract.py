"""The contract over all layer types: declared shape == torch shape == onnxruntime shape, and equal values.

One row per type (a type without a row fails the first test). Each row also runs at a second size that the net was
not declared with: a spatial size written into an exported graph would show there.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest

from caffe_models.errors import CaffeWarning, NetError, PrototxtError
from caffe_models.layer import FOREIGN_TYPES, Layer, LayerSpec, Shape, create, layer_types, register
from caffe_models.net import Net
from caffe_models.text_format import parse_text

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::caffe_models.errors.CaffeWarning")

CUBE: Shape = (2, 3, 5, 6, 7)
OTHER_CUBE: Shape = (2, 3, 6, 4, 9)
PLANE: Shape = (2, 3, 5, 7)


@dataclass(frozen=True)
class Row:
    """One layer: what stands in it besides name, type, bottoms and tops; its bottoms at two sizes; its tops."""

    text: str = ""
    bottoms: tuple[Shape, ...] = (CUBE,)
    again: tuple[Shape, ...] = (OTHER_CUBE,)
    tops: int = 1
    positive: bool = False
    labels: int = 0
    """Number of classes, if the last bottom holds class numbers."""
    loss: bool = False
    weights: dict[int, float] = field(default_factory=dict)


PAIR, OTHER_PAIR = (CUBE, CUBE), (OTHER_CUBE, OTHER_CUBE)
ROWS: dict[str, Row] = {
    "AbsVal": Row(),
    "Accuracy": Row("accuracy_param { top_k: 2 }", (CUBE, (2, 1, 5, 6, 7)), (OTHER_CUBE, (2, 1, 6, 4, 9)), labels=3),
    "ArgMax": Row("argmax_param { axis: 1 top_k: 2 }"),
    "BNLL": Row(),
    "BatchNorm": Row('engine: "MKL2017" batch_norm_param { eps: 0.001 }', weights={2: 3.439}),
    "Bias": Row("bias_param { axis: 1 }"),
    "Clip": Row("clip_param { min: -0.5 max: 0.25 }"),
    "Concat": Row("concat_param { axis: 1 }", PAIR, OTHER_PAIR),
    "Convolution": Row("convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 1 }"),
    "Crop": Row(
        "crop_param { axis: 2 offset: 1 offset: 0 offset: 2 }",
        (CUBE, (2, 1, 3, 6, 5)),
        ((2, 3, 7, 6, 9), (2, 1, 5, 6, 7)),
    ),
    "Deconvolution": Row("convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }"),
    "Dropout": Row(),
    "ELU": Row("elu_param { alpha: 0.7 }"),
    "Eltwise": Row("eltwise_param { operation: SUM coeff: 1 coeff: -2 }", PAIR, OTHER_PAIR),
    "EuclideanLoss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Exp": Row("exp_param { base: 2 scale: 0.5 shift: 0.3 }"),
    "Flatten": Row("flatten_param { axis: 2 end_axis: 3 }"),
    "HingeLoss": Row(bottoms=((2, 5), (2,)), again=((2, 5), (2,)), labels=5, loss=True),
    "InnerProduct": Row("inner_product_param { num_output: 4 axis: 4 }", again=((2, 3, 4, 4, 7),)),
    "LRN": Row("lrn_param { local_size: 3 alpha: 0.2 k: 1.5 }", (PLANE,), ((2, 3, 8, 6),)),
    "Log": Row("log_param { base: 10 scale: 2 shift: 0.5 }", positive=True),
    "MVN": Row(),
    "PReLU": Row(),
    "Permute": Row("permute_param { order: 0 order: 2 }"),
    "Pooling": Row("pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    "Power": Row("power_param { power: 2 scale: 0.5 shift: 0.25 }"),
    "ReLU": Row("relu_param { negative_slope: 0.1 }"),
    "Reduction": Row("reduction_param { operation: SUMSQ axis: 2 coeff: 0.5 }"),
    "Reshape": Row("reshape_param { shape { dim: -1 dim: 1 } axis: 1 num_axes: 2 }"),
    "Scale": Row("scale_param { bias_term: true }"),
    "Sigmoid": Row(),
    "SigmoidCrossEntropyLoss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Silence": Row(tops=0),
    "Slice": Row("slice_param { axis: 3 slice_point: 2 }", tops=2),
    "SmoothL1Loss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Softmax": Row("softmax_param { axis: 1 }"),
    "SoftmaxWithLoss": Row(bottoms=(CUBE, (2, 1, 5, 6, 7)), again=(OTHER_CUBE, (2, 1, 6, 4, 9)), labels=3, loss=True),
    "Split": Row(tops=2),
    "Swish": Row("swish_param { beta: 1.5 }"),
    "TanH": Row(),
    "Threshold": Row("threshold_param { threshold: 0.2 }"),
    "Tile": Row("tile_param { axis: 3 tiles: 2 }"),
}
WITHOUT_ROW = {"Input": "computes nothing", "Python": "holds entries of another registry; tested in test_net.py"}
BVLC_ONLY = {"Clip", "Swish"}


def net_of(type_name: str, row: Row) -> Net:
    names = [f"b{index}" for index in range(len(row.bottoms))]
    text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {extent}" for extent in shape)
        + " } } }\n"
        for name, shape in zip(names, row.bottoms, strict=True)
    )
    # blobs before and behind make sure that a layer reads what it is handed
    ends = " ".join(f'bottom: "{name}"' for name in names) + "".join(f' top: "t{index}"' for index in range(row.tops))
    text += f'layer {{ name: "it" type: "{type_name}" {ends} {row.text} }}\n'
    dialect = "bvlc" if type_name in BVLC_ONLY else "extended"
    net = Net.from_message(parse_text(text, "NetParameter", dialect), dialect=dialect)
    rng = np.random.default_rng(5)
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            blob[...] = row.weights.get(index, 0) or rng.uniform(0.2, 1.5, blob.shape)
    return net


def feed_of(row: Row, shapes: tuple[Shape, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    feed = {f"b{index}": rng.normal(size=shape).astype(np.float32) for index, shape in enumerate(shapes)}
    if row.positive:
        feed = {blob: np.abs(array) for blob, array in feed.items()}
    if row.labels:
        feed[f"b{len(shapes) - 1}"] = rng.integers(0, row.labels, shapes[-1]).astype(np.float32)
    return feed


def test_every_type_has_a_row() -> None:
    assert set(layer_types()) == set(ROWS) | set(WITHOUT_ROW)


@pytest.mark.parametrize("type_name", ROWS)
def test_contract(type_name: str) -> None:
    row = ROWS[type_name]
    net = net_of(type_name, row)
    session = None
    if not row.loss and row.tops:
        onnxruntime = pytest.importorskip("onnxruntime")
        from convert.to_onnx import net_to_onnx

        model = net_to_onnx(net).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    net.to_torch()
    for shapes in (row.bottoms, row.again):
        feed = feed_of(row, shapes)
        declared = net.infer(dict(zip(net.inputs, shapes, strict=True)))
        values = net.forward({blob: torch.from_numpy(array) for blob, array in feed.items()})
        assert len(values) == row.tops
        for blob, value in values.items():
            assert tuple(value.shape) == declared[blob]
        if session is None:
            continue
        read = {given.name for given in session.get_inputs()}
        blobs = [output.name for output in session.get_outputs()]
        found = session.run(blobs, {blob: array for blob, array in feed.items() if blob in read})
        assert set(blobs) == set(values)
        for blob, array in zip(blobs, found, strict=True):
            assert array.shape == declared[blob]
            np.testing.assert_allclose(array, values[blob].numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("type_name", [name for name, row in ROWS.items() if row.loss])
def test_losses_have_no_onnx_form(type_name: str) -> None:
    from convert.to_onnx import net_to_onnx

    with pytest.raises(NetError, match=f"type {type_name} has no ONNX form"):
        net_to_onnx(net_of(type_name, ROWS[type_name]))


@pytest.mark.parametrize("type_name", [name for name, row in ROWS.items() if not row.loss and row.tops])
def test_inputs_stay_as_they_are(type_name: str) -> None:
    row = ROWS[type_name]
    net = net_of(type_name, row).to_torch()
    feed = {blob: torch.from_numpy(array) for blob, array in feed_of(row, row.bottoms).items()}
    before = {blob: tensor.clone() for blob, tensor in feed.items()}
    net.forward(feed)
    assert all(torch.equal(feed[blob], before[blob]) for blob in feed)


def warnings_of(type_name: str, dialect: str, shape: Shape) -> list[str]:
    row = ROWS[type_name]
    loss = 'bottom: "b"' if row.loss else ""
    dims = " ".join(f"dim: {extent}" for extent in shape)
    text = (
        f'layer {{ name: "in" type: "Input" top: "a" top: "b" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "it" type: "{type_name}" bottom: "a" {loss} top: "t" }}\n'
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = Net.from_message(parse_text(text, "NetParameter", dialect), dialect=dialect)
        net.infer({"a": shape, "b": shape})
    return [str(one.message) for one in caught if issubclass(one.category, CaffeWarning)]


REFUSED_IN_3D = [
    ("EuclideanLoss", "bvlc intel extended"),
    ("MVN", "bvlc extended"),
    ("PReLU", "bvlc"),
    ("SigmoidCrossEntropyLoss", "intel"),
    ("SmoothL1Loss", "intel"),
]
"""As the reference data's README tells: which of the three Caffes stop at a blob of five axes."""


@pytest.mark.parametrize(("type_name", "dialects"), REFUSED_IN_3D)
def test_what_a_caffe_cannot_run_in_3d_is_run_with_a_warning(type_name: str, dialects: str) -> None:
    for dialect in layer_types()[type_name].dialects:
        found = warnings_of(type_name, dialect, CUBE)
        if dialect not in dialects:
            assert not found
            continue
        assert len(found) == 1, "once, however often shapes are inferred"
        assert found[0].startswith(f'<text>:2: layer "it" ({type_name}): {dialect} Caffe refuses bottoms of 5 axes')
        assert not warnings_of(type_name, dialect, PLANE)


@pytest.mark.parametrize(
    "type_name", [name for name in ROWS if layer_types()[name].spatial_axes != (0, None) and name in ROWS]
)
def test_spatial_axes_are_as_declared(type_name: str) -> None:
    """The page on layers shows `spatial_axes`: the row runs within them, and one axis beyond them is refused."""
    cls, row = layer_types()[type_name], ROWS[type_name]
    least, most = cls.spatial_axes
    shape = row.bottoms[0]
    assert least <= len(shape) - 2 <= (most or 99)
    beyond = [(*shape[:2], *[6] * axes) for axes in (least - 1, (most or least - 2) + 1) if axes >= 0]
    layer = net_of(type_name, row).layers[-1]
    for wrong in beyond:
        with pytest.raises(PrototxtError):
            layer.top_shapes([wrong, *row.bottoms[1:]])


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="ReLU is registered twice"):
        register("ReLU")(layer_types()["Sigmoid"])


def spec_of(text: str) -> LayerSpec:
    message = parse_text(f"layer {{ {text} }}", "NetParameter", "extended", "net.prototxt").get("layer")[0]
    tops, bottoms = tuple(message.get("top")), tuple(message.get("bottom"))
    return LayerSpec(
        message.get("name"),
        message.get("type"),
        bottoms,
        tops,
        message,
        loss_weights=tuple(message.get("loss_weight")),
        line=4,
        source="net.prototxt",
    )


def test_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(PrototxtError) as caught:
        create(spec_of('name: "c" type: "Convolutional" bottom: "data" top: "c"'))
    text = str(caught.value)
    assert text.startswith('net.prototxt:4: layer "c": unknown type "Convolutional", did you mean Convolution?')
    assert "AbsVal, Accuracy" in text


@pytest.mark.parametrize("type_name", FOREIGN_TYPES)
def test_types_of_other_forks_are_explained(type_name: str) -> None:
    with pytest.raises(PrototxtError, match=rf'^net.prototxt:4: layer "c" \({type_name}\): a type of another fork'):
        create(spec_of(f'name: "c" type: "{type_name}" bottom: "data" top: "c"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "ReLU" bottom: "a" bottom: "b" top: "c"', r"has 2 bottom\(s\), allowed: 1$"),
        ('type: "ReLU" bottom: "a"', r"has 0 top\(s\), allowed: 1$"),
        ('type: "Eltwise" bottom: "a" top: "c"', r"has 1 bottom\(s\), allowed: 2 or more"),
        ('type: "ReLU" bottom: "a" top: "b" loss_weight: 1 loss_weight: 2', "2 loss_weight for 1 tops"),
    ],
)
def test_the_base_checks_counts(text: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message):
        create(spec_of(f'name: "r" {text}'))


def test_the_base_checks_what_a_layer_declares() -> None:
    class Careless(layer_types()["ReLU"]):  # type: ignore[misc]
        def infer_shapes(self, bottoms):  # type: ignore[no-untyped-def]
            return [bottoms[0], bottoms[0]]

    layer: Layer = Careless(spec_of('name: "r" type: "ReLU" bottom: "a" top: "b"'))
    with pytest.raises(PrototxtError, match="declares 1 tops but makes 2"):
        layer.top_shapes([(1, 2, 3)])
