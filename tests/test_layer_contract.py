"""The contract over all layer types: declared shape == torch shape == onnxruntime shape, and equal values.

One row per type (a type without a row fails the first test). Each row also runs at a second size that the net was
not declared with: a spatial size written into an exported graph would show there. A type that no case of the
reference data contains needs figures in its row that were worked out by hand from Caffe's formula.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from caffe_golden import assert_close, openvino_core, session_of
from conftest import ROOT

from caffe_models.errors import CaffeWarning, NetError, PrototxtError
from caffe_models.layer import FOREIGN_TYPES, Layer, LayerSpec, Shape, create, layer_types, register
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from convert.layer_table import read_counts
from convert.to_onnx import net_to_onnx

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
    """Number of classes, if a bottom (the last, unless labels_at says otherwise) holds class numbers."""
    labels_at: int = -1
    loss: bool = False
    weights: dict[int, float] = field(default_factory=dict)
    by_hand: tuple["ByHand", ...] = ()
    chooses: bool = False
    """Whether the batch of the tops depends on values."""


Numbers = Any
"""A number, or lists of lists of them."""


@dataclass(frozen=True)
class ByHand:
    """One layer worked out by hand: bottoms and blobs in, tops and (of losses) gradients of bottoms out."""

    text: str
    bottoms: tuple[Numbers, ...]
    tops: tuple[Numbers, ...]
    blobs: tuple[Numbers, ...] = ()
    gradients: dict[int, Numbers] = field(default_factory=dict)
    dialect: str = ""


PAIR, OTHER_PAIR = (CUBE, CUBE), (OTHER_CUBE, OTHER_CUBE)
ROWS: dict[str, Row] = {
    "AbsVal": Row(),
    "Accuracy": Row("accuracy_param { top_k: 2 }", (CUBE, (2, 1, 5, 6, 7)), (OTHER_CUBE, (2, 1, 6, 4, 9)), labels=3),
    "ArgMax": Row("argmax_param { axis: 1 top_k: 2 }"),
    "BNLL": Row(),
    "BatchNorm": Row('engine: "MKL2017" batch_norm_param { eps: 0.001 }', weights={2: 3.439}),
    "BatchReindex": Row(
        bottoms=(CUBE, (3,)),
        again=(OTHER_CUBE, (3,)),
        labels=2,
        by_hand=(ByHand("", ([[1, 2], [3, 4], [5, 6]], [2, 0, 2, 1]), ([[5, 6], [1, 2], [5, 6], [3, 4]],)),),
    ),
    "Bias": Row("bias_param { axis: 1 }"),
    "Clip": Row("clip_param { min: -0.5 max: 0.25 }"),
    "Concat": Row("concat_param { axis: 1 }", PAIR, OTHER_PAIR),
    "ContrastiveLoss": Row(
        bottoms=((2, 5), (2, 5), (2,)),
        again=((2, 5), (2, 5), (2,)),
        labels=2,
        loss=True,
        by_hand=(
            ByHand(  # squared distances 5 (alike), 1 and 25 (not): (5 + (3 - 1)**2 + 0) / 6
                "contrastive_loss_param { margin: 3 }",
                ([[1, 2], [0, 0], [3, 4]], [[0, 0], [-0.6, -0.8], [0, 0]], [1, 0, 0]),
                (1.5,),
                gradients={
                    0: [[1 / 3, 2 / 3], [-0.399960004, -0.533280005], [0, 0]],
                    1: [[-1 / 3, -2 / 3], [0.399960004, 0.533280005], [0, 0]],
                },
            ),
            ByHand(  # (5 + max(3 - 1, 0) + 0) / 6
                "contrastive_loss_param { margin: 3 legacy_version: true }",
                ([[1, 2], [0, 0], [3, 4]], [[0, 0], [-0.6, -0.8], [0, 0]], [1, 0, 0]),
                (7 / 6,),
                gradients={0: [[1 / 3, 2 / 3], [-0.2, -0.8 / 3], [0, 0]]},
            ),
        ),
    ),
    "Convolution": Row("convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 1 }"),
    "Crop": Row(
        "crop_param { axis: 2 offset: 1 offset: 0 offset: 2 }",
        (CUBE, (2, 1, 3, 6, 5)),
        ((2, 3, 7, 6, 9), (2, 1, 5, 6, 7)),
    ),
    "Deconvolution": Row("convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }"),
    "Dropout": Row(),
    "DummyData": Row(
        "dummy_data_param { shape { dim: 2 dim: 3 dim: 4 } data_filler { value: 1.5 } }",
        (),
        (),
        by_hand=(
            ByHand(
                "dummy_data_param { shape { dim: 2 } shape { dim: 1 dim: 2 } data_filler { value: 3 } "
                "data_filler { value: -1 } }",
                (),
                ([3, 3], [[-1, -1]]),
            ),
            ByHand("dummy_data_param { num: 1 channels: 2 height: 1 width: 2 }", (), ([[[[0, 0]], [[0, 0]]]],)),
        ),
    ),
    "ELU": Row("elu_param { alpha: 0.7 }"),
    "Eltwise": Row("eltwise_param { operation: SUM coeff: 1 coeff: -2 }", PAIR, OTHER_PAIR),
    "Embed": Row(
        "embed_param { num_output: 4 input_dim: 6 }",
        ((2, 3, 5),),
        ((2, 3, 4),),
        labels=6,
        by_hand=(
            ByHand(
                "embed_param { num_output: 2 input_dim: 3 }",
                bottoms=([[2, 0], [0, 1]],),
                tops=([[[5.5, 4], [1.5, 0]], [[1.5, 0], [3.5, 2]]],),
                blobs=([[1, 2], [3, 4], [5, 6]], [0.5, -2]),
            ),
        ),
    ),
    "EuclideanLoss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Exp": Row("exp_param { base: 2 scale: 0.5 shift: 0.3 }"),
    "Filter": Row(
        bottoms=(CUBE, (2, 1, 1)),
        again=(OTHER_CUBE, (2, 1, 1)),
        chooses=True,
        by_hand=(
            ByHand("", ([[1, 2], [3, 4], [5, 6]], [[-1], [0], [0.5]]), ([[1, 2], [5, 6]],)),
            ByHand("", ([[1], [2]], [[[3]], [[4]]], [0, 1]), ([[2]], [[[4]]])),
        ),
    ),
    "Flatten": Row("flatten_param { axis: 2 end_axis: 3 }"),
    "HingeLoss": Row(bottoms=((2, 5), (2,)), again=((2, 5), (2,)), labels=5, loss=True),
    "Im2col": Row(
        "convolution_param { kernel_size: 2 stride: 2 pad: 1 dilation: 2 }",
        by_hand=(
            ByHand(
                "convolution_param { kernel_size: 2 }",
                ([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]],),
                ([[[[1, 2], [4, 5]], [[2, 3], [5, 6]], [[4, 5], [7, 8]], [[5, 6], [8, 9]]]],),
            ),
            ByHand(  # places of the kernel: 0 and 2; zeros beside
                "convolution_param { kernel_size: 2 dilation: 2 pad: 1 stride: 2 }",
                ([[[1, 2, 3], [4, 5, 6]]],),
                ([[[0, 2], [2, 0], [0, 5], [5, 0]]],),
            ),
        ),
    ),
    "InfogainLoss": Row(
        bottoms=((2, 3), (2,), (3, 3)),
        again=((2, 3), (2,), (3, 3)),
        labels=3,
        labels_at=1,
        loss=True,
        by_hand=(
            ByHand(  # -(0.5 ln 0.25 + 2 ln 0.75), the first bottom being probabilities
                "",
                ([[0.25, 0.75]], [1], [[1, 0], [0.5, 2]]),
                (1.26851126,),
                gradients={0: [[-2, -2.66666667]]},
                dialect="extended",
            ),
            ByHand(  # the same from scores, ln 1 and ln 3; the other place is ignored
                "infogain_loss_param { axis: 1 } loss_param { ignore_label: 0 }",
                ([[[0, 5], [1.09861229, 5]]], [[1, 0]], [[1, 0], [0.5, 2]]),
                (1.26851126, [[[0.25, 0.5], [0.75, 0.5]]]),
                gradients={0: [[[0.125, 0], [-0.125, 0]]]},
                dialect="bvlc",
            ),
            ByHand(
                "loss_param { normalization: NONE }",
                ([[0, 1.09861229], [0, 1.09861229]], [1, 1], [[1, 0], [0.5, 2]]),
                (2.53702252,),
                gradients={0: [[0.125, -0.125], [0.125, -0.125]]},
                dialect="bvlc",
            ),
        ),
    ),
    "InnerProduct": Row("inner_product_param { num_output: 4 axis: 4 }", again=((2, 3, 4, 4, 7),)),
    "LSTM": Row(
        "recurrent_param { num_output: 3 }",
        ((3, 2, 4), (3, 2)),
        ((3, 2, 4), (3, 2)),
        labels=2,
        by_hand=(
            ByHand(
                "recurrent_param { num_output: 1 }",
                ([[[1]], [[-2]], [[0.5]]], [[0], [1], [0]]),
                ([[[0.436767275]], [[0.00187891733]], [[0.265332651]]],),
                ([[0.5], [-1], [2], [1]], [0.1, 0.2, -0.3, 0.4], [[1], [0.5], [-0.5], [0.25]]),
            ),
            ByHand(  # a static input, and the states before and after
                "recurrent_param { num_output: 1 expose_hidden: true }",
                ([[[1]], [[-2]]], [[1], [1]], [[2]], [[[0.6]]], [[[-1.5]]]),
                ([[[0.330172337]], [[0.00414937329]]], [[[0.00414937329]]], [[[0.308931398]]]),
                (
                    [[0.5], [-1], [2], [1]],
                    [0.1, 0.2, -0.3, 0.4],
                    [[0.3], [-0.2], [0.1], [0.7]],
                    [[1], [0.5], [-0.5], [0.25]],
                ),
            ),
        ),
    ),
    "LRN": Row("lrn_param { local_size: 3 alpha: 0.2 k: 1.5 }", (PLANE,), ((2, 3, 8, 6),)),
    "Log": Row("log_param { base: 10 scale: 2 shift: 0.5 }", positive=True),
    "MVN": Row(),
    "MultinomialLogisticLoss": Row(
        bottoms=((2, 5), (2,)),
        again=((2, 5), (2,)),
        labels=5,
        loss=True,
        positive=True,
        by_hand=(
            ByHand(  # -(ln 0.2 + ln 0.5) / 2
                "", ([[0.2, 0.8], [0.5, 0.5]], [0, 1]), (1.15129255,), gradients={0: [[-2.5, 0], [0, -1]]}
            ),
            ByHand("", ([[0, 1]], [0]), (46.0517019,), gradients={0: [[-1e20, 0]]}),
        ),
    ),
    "Normalize": Row(
        "norm_param { across_spatial: false channel_shared: false }",
        by_hand=(
            ByHand(  # two channels of two places; sqrt(9 + 0 + 16 + 4)
                "", ([[[[3, 0]], [[4, 2]]]],), ([[[[1.11417203, 0]], [[1.48556271, 0.742781353]]]],), (2,)
            ),
            ByHand(
                "norm_param { across_spatial: false channel_shared: false }",
                ([[[[3, 0]], [[4, 2]]]],),
                ([[[[6, 0]], [[16, 20]]]],),
                ([10, 20],),
            ),
            ByHand("norm_param { eps: 7 }", ([[3, 0], [0, 0]],), ([[1.5, 0], [0, 0]],), (2,)),
        ),
    ),
    "PReLU": Row(),
    "Parameter": Row(
        "parameter_param { shape { dim: 2 dim: 3 } }",
        (),
        (),
        by_hand=(ByHand("parameter_param { shape { dim: 1 dim: 2 } }", (), ([[3, -4]],), ([[3, -4]],)),),
    ),
    "Permute": Row("permute_param { order: 0 order: 2 }"),
    "Pooling": Row(
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
        by_hand=(
            ByHand(  # (1 + 4 + 9 + 16) / (1 + 2 + 3 + 4), and a window without anything
                "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
                ([[[[1, 2, 0], [3, 4, 0]]]],),
                ([[[[3, 0]]]],),
            ),
            ByHand("pooling_param { pool: STOCHASTIC global_pooling: true }", ([[[[1, 2, 3]]]],), ([[[[7 / 3]]]],)),
        ),
    ),
    "Power": Row("power_param { power: 2 scale: 0.5 shift: 0.25 }"),
    "RNN": Row(
        "recurrent_param { num_output: 3 }",
        ((3, 2, 4), (3, 2)),
        ((3, 2, 4), (3, 2)),
        labels=2,
        by_hand=(
            ByHand(
                "recurrent_param { num_output: 1 }",
                ([[[1]], [[-2]], [[0.5]]], [[0], [1], [0]]),
                ([[[0.703626399]], [[-0.927202739]], [[0.456733335]]],),
                ([[0.8]], [0.1], [[-0.6]], [[1.5]], [-0.2]),
            ),
            ByHand(
                "recurrent_param { num_output: 1 expose_hidden: true }",
                ([[[1]], [[-2]]], [[1], [1]], [[-1]], [[[0.9]]]),
                ([[[-0.254265621]], [[-0.926232877]]], [[[-0.954136119]]]),
                ([[0.8]], [0.1], [[0.4]], [[-0.6]], [[1.5]], [-0.2]),
            ),
        ),
    ),
    "ROIPooling": Row(
        "roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }",
        ((1, 3, 5, 7), (2, 5)),
        ((1, 3, 9, 8), (2, 5)),
        labels=1,
        by_hand=(
            ByHand(  # a plane of 4 x 4; box 1..5 becomes 0.5 -> 1 to 2.5 -> 3, three cells; the last lies beyond
                "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }",
                (
                    [[[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]]],
                    [[0, 0, 0, 6, 6], [0, 1, 1, 5, 5], [0, 2, 4, 2, 4], [0, 8, 8, 12, 12]],
                ),
                ([[[[6, 8], [14, 16]]], [[[11, 12], [15, 16]]], [[[10, 10], [10, 10]]], [[[0, 0], [0, 0]]]],),
            ),
        ),
    ),
    "ReLU": Row("relu_param { negative_slope: 0.1 }"),
    "Reduction": Row("reduction_param { operation: SUMSQ axis: 2 coeff: 0.5 }"),
    "Reshape": Row("reshape_param { shape { dim: -1 dim: 1 } axis: 1 num_axes: 2 }"),
    "SPP": Row(
        "spp_param { pyramid_height: 3 pool: AVE }",
        ((2, 3, 8, 7),),
        ((2, 3, 11, 16),),
        by_hand=(
            ByHand(  # two bins a side over 3 values: a zero or nothing before the first, so 1 and 2 values
                "spp_param { pyramid_height: 2 }",
                ([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]],),
                ([[9, 1, 3, 7, 9]],),
            ),
            ByHand(
                "spp_param { pyramid_height: 2 pool: AVE }",
                ([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]],),
                ([[5, 0.25, 1.25, 2.75, 7]],),
            ),
            ByHand("spp_param { pyramid_height: 1 }", ([[[[1, -2], [3, 0]]]],), ([[[[3]]]],)),
        ),
    ),
    "Scale": Row("scale_param { bias_term: true }"),
    "Sigmoid": Row(),
    "SigmoidCrossEntropyLoss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Silence": Row(tops=0),
    "Slice": Row("slice_param { axis: 3 slice_point: 2 }", tops=2),
    "SmoothL1Loss": Row("", PAIR, OTHER_PAIR, loss=True),
    "Softmax": Row("softmax_param { axis: 1 }"),
    "SoftmaxWithLoss": Row(bottoms=(CUBE, (2, 1, 5, 6, 7)), again=(OTHER_CUBE, (2, 1, 6, 4, 9)), labels=3, loss=True),
    "SpatialDropout": Row(by_hand=(ByHand("", ([[[[1, 2]]]],), ([[[[1, 2]]]],)),)),
    "Split": Row(tops=2),
    "Swish": Row("swish_param { beta: 1.5 }"),
    "TanH": Row(),
    "Threshold": Row("threshold_param { threshold: 0.2 }"),
    "Tile": Row("tile_param { axis: 3 tiles: 2 }"),
}
WITHOUT_ROW = {
    "Input": "computes nothing",
    "MemoryData": "computes nothing; tested in test_special_layers.py",
    "Python": "holds entries of another registry; tested in test_net.py",
}
BVLC_ONLY = {"Clip", "InfogainLoss", "Swish"}


def net_of(type_name: str, row: Row, dialect: str = "") -> Net:
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
    dialect = dialect or ("bvlc" if type_name in BVLC_ONLY else "extended")
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
        place = row.labels_at % len(shapes)
        feed[f"b{place}"] = rng.integers(0, row.labels, shapes[place]).astype(np.float32)
    return feed


def test_every_type_has_a_row() -> None:
    refused = {name for name, cls in layer_types().items() if cls.refused}
    assert set(layer_types()) == set(ROWS) | set(WITHOUT_ROW) | refused


@pytest.mark.parametrize("type_name", [name for name, cls in layer_types().items() if cls.refused])
def test_layers_that_read_files_say_what_to_do(type_name: str) -> None:
    with pytest.raises(
        PrototxtError, match=rf'^net.prototxt:4: layer "d" \({type_name}\): (reads|writes) .*(Input|outputs)'
    ):
        create(spec_of(f'name: "d" type: "{type_name}" top: "data" top: "label"'))


@pytest.mark.parametrize("type_name", ROWS)
def test_contract(type_name: str) -> None:
    row = ROWS[type_name]
    net = net_of(type_name, row)
    session = None
    if not layer_types()[type_name].no_onnx and row.tops:
        model = net_to_onnx(net).SerializeToString()
        session = session_of(model)
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
        feed = {blob: array for blob, array in feed.items() if blob in read}
        found = session.run(blobs, feed)
        in_openvino = openvino_core()(model, feed)
        assert set(blobs) == set(values)
        for blob, array in zip(blobs, found, strict=True):
            assert array.shape == declared[blob]
            np.testing.assert_allclose(array, values[blob].numpy(), rtol=2e-5, atol=2e-5)
            np.testing.assert_allclose(in_openvino[blob], values[blob].numpy(), rtol=2e-5, atol=2e-5)


HAND = [(name, index) for name, row in ROWS.items() for index in range(len(row.by_hand))]


@pytest.mark.parametrize(("type_name", "index"), HAND)
def test_figures_worked_out_by_hand(type_name: str, index: int) -> None:
    one = ROWS[type_name].by_hand[index]
    bottoms = [np.array(numbers, np.float32) for numbers in one.bottoms]
    shapes = tuple(tuple(array.shape) for array in bottoms)
    net = net_of(type_name, Row(one.text, shapes, shapes, len(one.tops)), one.dialect)
    layer = net.layers[-1]
    assert len(layer.blobs) == len(one.blobs)
    for blob, numbers in zip(layer.blobs, one.blobs, strict=True):
        assert blob.shape == np.shape(numbers)
        blob[...] = numbers
    feed = {f"b{place}": array for place, array in enumerate(bottoms)}
    model = b"" if layer.no_onnx else net_to_onnx(net).SerializeToString()
    net.to_torch()
    inputs = {blob: torch.from_numpy(array.copy()) for blob, array in feed.items()}
    for place in one.gradients:
        inputs[f"b{place}"].requires_grad_()
    values = net.forward(inputs)
    wanted = {f"t{place}": np.array(numbers, np.float32) for place, numbers in enumerate(one.tops)}
    for blob, array in wanted.items():
        assert_close(values[blob].detach(), array, 1e-6, f"torch {blob}")
        assert net.shapes[blob] == array.shape or ROWS[type_name].chooses
    if one.gradients:
        net.total_loss(values).backward()  # type: ignore[no-untyped-call]
    for place, numbers in one.gradients.items():
        assert_close(inputs[f"b{place}"].grad, np.array(numbers, np.float32), 2e-6, f"gradient of bottom {place}")
    if not model:
        return
    session = session_of(model)
    read = {given.name for given in session.get_inputs()}
    feed = {blob: array for blob, array in feed.items() if blob in read}
    found = openvino_core()(model, feed)
    for blob, array in wanted.items():
        assert_close(session.run([blob], feed)[0], array, 1e-5, f"onnxruntime {blob}")
        assert_close(found[blob], array, 1e-5, f"openvino {blob}")


def test_types_without_reference_cases_have_figures() -> None:
    proven = read_counts(ROOT / "docs" / "golden_cases.csv")
    assert [name for name, row in ROWS.items() if name not in proven and not row.by_hand] == ["Silence"]


@pytest.mark.parametrize("type_name", [name for name in ROWS if layer_types()[name].no_onnx])
def test_what_has_no_onnx_form_says_why(type_name: str) -> None:
    with pytest.raises(NetError, match=rf"type {type_name} has no ONNX form \({layer_types()[type_name].no_onnx}\)"):
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
