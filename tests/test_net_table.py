"""The table of a net: figures worked out by hand, and memory against what PyTorch really holds."""

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_golden import net_folder
from conftest import ROOT

from caffe_models.errors import NetError, PrototxtError
from caffe_models.net import Net
from caffe_models.net_table import NetTable, inspect_net, table_of
from caffe_models.net_table_text import binary, decimal, net_text, per_axis, short, stored_text, wrapped
from caffe_models.weights import read_caffemodel, write_caffemodel
from caffe_models.weights_table import looks_like_weights, stored_layers

DEPLOY = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"
HEAD = 'name: "t" layer { name: "data" type: "Input" top: "data" input_param { shape { %s } } }\n'


def net_of(layers: str, *shape: int) -> Net:
    from caffe_models.text_format import parse_text

    text = HEAD % " ".join(f"dim: {n}" for n in shape) + layers
    return Net.from_message(parse_text(text, "NetParameter"))


def layer(name: str, kind: str, bottom: str, more: str = "", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top or name}" {more} }}\n'


def rows_of(layers: str, *shape: int) -> NetTable:
    return table_of(net_of(layers, *shape))


def test_our_net_as_the_facts_of_the_original_say() -> None:
    table = inspect_net(DEPLOY)
    assert table.multiply_adds == pytest.approx(168.7e9, rel=2e-3)  # at crop 128
    assert table.parameters == 5_389_199
    assert table.types["Convolution"] == 40
    assert json.loads(json.dumps(table.as_json()))["totals"]["layers"] == 145


def test_multiply_adds_by_hand() -> None:
    halving = "group: 2 pad: 1 stride: 2"
    table = rows_of(
        layer("c", "Convolution", "data", f"convolution_param {{ num_output: 6 kernel_size: 3 {halving} }}")
        + layer("d", "Deconvolution", "c", "convolution_param { num_output: 4 kernel_size: 2 stride: 2 group: 2 }")
        + layer("r", "ReLU", "d", top="d")
        + layer("f", "InnerProduct", "d", "inner_product_param { num_output: 5 axis: 2 }"),
        2, 4, 5, 7, 9,
    )  # fmt: skip
    work = {row.name: row.multiply_adds for row in table.rows}
    places = 2 * 3 * 4 * 5  # batch, and 5, 7, 9 halved upwards
    assert work["c"] == places * 6 * (4 // 2) * 27
    assert work["d"] == places * 6 * (4 // 2) * 8  # each input place spreads into 8 of each output of its group
    assert work["f"] == 2 * 4 * 5 * (6 * 8 * 10)
    assert work["r"] == 0
    assert {row.name: row.parameters for row in table.rows}["c"] == 6 * 2 * 27 + 6


def test_several_bottoms_of_one_convolution_count_each() -> None:
    text = 'layer { name: "c" type: "Convolution" bottom: "data" bottom: "data" top: "a" top: "b" '
    table = rows_of(text + "convolution_param { num_output: 1 kernel_size: 1 } }", 1, 1, 4, 4)
    assert table.rows[1].multiply_adds == 2 * 16
    assert table.rows[1].parameters == 2


def test_shared_weights_count_once() -> None:
    share = 'param { name: "w" } convolution_param { num_output: 2 kernel_size: 1 bias_term: false }'
    table = rows_of(layer("a", "Convolution", "data", share) + layer("b", "Convolution", "a", share), 1, 2, 3, 3)
    assert [row.parameters for row in table.rows] == [0, 4, 0]


@pytest.mark.parametrize(
    ("layers", "field", "stride"),
    [
        (layer("x", "Convolution", "data", "convolution_param { num_output: 1 kernel_size: 3 }"), 3, 1.0),
        (layer("x", "Convolution", "data", "convolution_param { num_output: 1 kernel_size: 3 dilation: 2 }"), 5, 1.0),
        (
            layer("p", "Pooling", "data", "pooling_param { kernel_size: 2 stride: 2 }")
            + layer("x", "Convolution", "p", "convolution_param { num_output: 1 kernel_size: 3 }"),
            6,
            2.0,
        ),
        (
            layer("p", "Pooling", "data", "pooling_param { kernel_size: 2 stride: 2 }")
            + layer("x", "Deconvolution", "p", "convolution_param { num_output: 1 kernel_size: 4 stride: 2 pad: 1 }"),
            4,  # two neighbours at a step of 2, each of 2 voxels
            1.0,
        ),
        (layer("x", "Deconvolution", "data", "convolution_param { num_output: 1 kernel_size: 2 stride: 2 }"), 1, 0.5),
        (layer("x", "Pooling", "data", "pooling_param { pool: AVE global_pooling: true }"), 16, 1.0),
    ],
)
def test_receptive_fields_by_hand(layers: str, field: int, stride: float) -> None:
    row = rows_of(layers, 1, 1, 16, 16, 16).rows[-1]
    assert row.field == (field,) * 3
    assert row.stride == (stride,) * 3


def test_a_field_is_what_the_gradient_reaches() -> None:
    """The oracle: the input voxels on which one voxel of the middle really depends, all weights being positive."""
    import torch

    conv = (
        "convolution_param {{ num_output: 2 kernel_size: {0} pad: {1} weight_filler {{ type: 'constant' value: 1 }} }}"
    )
    layers = (
        layer("a", "Convolution", "data", conv.format("3 kernel_size: 1 kernel_size: 5", "1 pad: 0 pad: 2"))
        + layer("p", "Pooling", "a", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }")
        + layer("b", "Convolution", "p", conv.format(3, 1))
        + layer("s", "Eltwise", "b p")
        + layer(
            "u", "Deconvolution", "s",
            conv.format("4 stride: 2", 1),
        )
        + layer("e", "Convolution", "u", conv.format(3, 1))
    )  # fmt: skip
    net = net_of(layers, 1, 1, 40, 40, 40)
    data = torch.ones(1, 1, 40, 40, 40, requires_grad=True)
    head = net.to_torch().forward({"data": data})["e"]
    reached = [0, 0, 0]
    for offset in (0, 1):  # an upsampled voxel sees more or less by its parity: the field is the most
        (gradient,) = torch.autograd.grad(head[0, 0, 20 + offset, 20 + offset, 20 + offset], data, retain_graph=True)
        hit = gradient[0, 0].nonzero()
        reached = [max(r, int(hit[:, axis].max() - hit[:, axis].min()) + 1) for axis, r in enumerate(reached)]
    assert table_of(net).rows[-1].field == tuple(reached)


def test_layers_that_mix_all_places_have_no_field() -> None:
    table = rows_of(
        layer("f", "InnerProduct", "data", "inner_product_param { num_output: 3 }") + layer("r", "ReLU", "f"),
        1, 2, 4, 4,
    )  # fmt: skip
    assert [row.field for row in table.rows] == [(1, 1), None, None]


def held_by_torch(net: Net, inputs: dict[str, Any]) -> int:
    """The most bytes of tensors that are alive at once while the net runs, the inputs among them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    alive: dict[int, int] = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in inputs.values()}
    peak = [0]

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for one in result if isinstance(result, tuple | list) else (result,):
                if hasattr(one, "untyped_storage") and one.numel():
                    storage = one.untyped_storage()
                    key = storage.data_ptr()
                    if key not in alive:
                        alive[key] = storage.nbytes()
                        weakref.finalize(storage, alive.pop, key, None)
            peak[0] = max(peak[0], sum(alive.values()))
            return result

    import torch

    with torch.inference_mode(), Watch():  # type: ignore[no-untyped-call]
        net.forward(inputs)
    return peak[0]


@pytest.mark.parametrize("case", ["rpn3d", "bn5", "views"])
def test_the_peak_is_what_torch_holds(case: str) -> None:
    import torch

    if case == "rpn3d":
        net = Net.from_prototxt(DEPLOY, input_shapes={"data": (1, 1, 32, 32, 32), "coord": (1, 3, 8, 8, 8)})
    elif case == "bn5":
        net = Net.from_prototxt(net_folder("bn5") / "deploy.prototxt")
    else:
        net = net_of(
            layer("a", "Convolution", "data", "convolution_param { num_output: 8 kernel_size: 1 }")
            + 'layer { name: "s" type: "Slice" bottom: "a" top: "s1" top: "s2" }\n'
            + layer("f", "Flatten", "s1")
            + layer("c", "Concat", "s1 s2")
            + layer("e", "Eltwise", "c a"),
            1, 1, 20, 20, 20,
        )  # fmt: skip
    expected = table_of(net).peak_bytes
    inputs = {blob: torch.zeros(shape) for blob, shape in net.inputs.items()}
    weights = 1_000  # per-channel statistics that BatchNorm scales on the way
    assert held_by_torch(net.to_torch(), inputs) == pytest.approx(expected, abs=weights + 0.01 * expected)


def test_other_inputs_and_what_does_not_fit() -> None:
    small = {"data": (1, 1, 64, 64, 64), "coord": (1, 3, 16, 16, 16)}
    assert inspect_net(DEPLOY, input_shapes=small).multiply_adds == pytest.approx(168.68e9 / 8, rel=1e-3)
    with pytest.raises(PrototxtError, match=r'deploy\.prototxt:\d+: layer "back2_coord" \(Concat\)'):
        inspect_net(DEPLOY, input_shapes={"data": (1, 1, 64, 64, 64)})
    with pytest.raises(NetError, match=r"no input image \(inputs: data, coord\)"):
        inspect_net(DEPLOY, input_shapes={"image": (1,)})
    with pytest.raises(NetError, match="allowed: f32, bf16, f16, int8"):
        inspect_net(DEPLOY, precision="f64")
    with pytest.raises(NetError, match="allowed: TEST, TRAIN"):
        inspect_net(DEPLOY, "DEPLOY")


def test_precision_halves_bytes() -> None:
    full, half = inspect_net(DEPLOY), inspect_net(DEPLOY, precision="bf16")
    assert (half.weight_bytes, half.peak_bytes) == (full.weight_bytes // 2, full.peak_bytes // 2)


def test_weights_are_reported_layer_by_layer(tmp_path: Path) -> None:
    folder = net_folder("bn5")
    good = inspect_net(folder / "deploy.prototxt", weights=folder / "weights.caffemodel").weights
    assert good is not None
    assert good.fits
    assert good.loaded == ("c1", "b1", "c2", "b2", "d1", "b3")
    changed = read_caffemodel(folder / "weights.caffemodel")
    changed["b1"] = changed["b1"][:3]
    changed["c2"][0] = np.zeros((4, 6, 1, 1, 1), np.float32)
    changed["elsewhere"] = changed.pop("b3")
    file = tmp_path / "other.caffemodel"
    write_caffemodel(file, changed, "bn5", {})
    fit = inspect_net(folder / "deploy.prototxt", weights=file).weights
    assert fit is not None
    assert not fit.fits
    assert fit.missing == ("b3",)
    assert fit.unused == ("elsewhere",)
    assert len(fit.misfits) == 2
    assert "b1: has 3 blobs, the net needs 5: a BatchNorm without gamma and beta" in fit.misfits[0]
    assert "c2: blob 0 is 4x6x1x1x1, the net needs 4x5x1x1x1" in fit.misfits[1]
    text = net_text(inspect_net(folder / "deploy.prototxt", weights=file))
    assert "does NOT fit" in text
    assert "missing 1" in text


def test_weights_alone() -> None:
    found = stored_layers(net_folder("bn5") / "weights.caffemodel")
    assert [(one.name, one.type, one.values) for one in found if one.name == "c1"] == [("c1", "Convolution", 275)]
    old = stored_layers(net_folder("legacy_v1") / "weights.caffemodel")
    assert ("conv", "CONVOLUTION") in [(one.name, one.type) for one in old]
    text = stored_text("w.caffemodel", found)
    assert "5x2x3x3x3, 5" in text
    assert not looks_like_weights(DEPLOY)
    assert looks_like_weights(net_folder("bn5") / "weights.caffemodel")


def test_the_text_fits_the_screen_whatever_the_names() -> None:
    table = rows_of(
        layer("a" * 90, "Convolution", "data", "convolution_param { num_output: 1 kernel_size: 1 }", top="b" * 60)
        + layer("tab\\there", "Sigmoid", "b" * 60, top="end"),
        1, 1, 4000, 4000,
    )  # fmt: skip
    lines = net_text(table).splitlines()
    assert max(map(len, lines)) <= 120
    assert any("tab?here" in line for line in lines)
    assert max(map(len, net_text(inspect_net(DEPLOY)).splitlines())) <= 120
    lines = net_text(inspect_net(DEPLOY)).splitlines()
    rows = lines[lines.index("") + 1 :]
    assert {len(line) for line in rows[: rows.index("")]} == {120}  # every column ends where its heading does


def test_numbers_people_can_read() -> None:
    assert [decimal(n) for n in (0, 9_999, 10_000, 168_680_226_816, 999_999)] == ["0", "9999", "10 k", "169 G", "1 M"]
    assert [binary(n) for n in (12, 1024, 1536, 12_582_912)] == ["12 B", "1 Ki", "1.5 Ki", "12 Mi"]
    assert (short("abcdefghij", 7), short("abc", 7)) == ("abc…hij", "abc")
    assert (per_axis((0.5, 0.5)), per_axis((3, 1, 5))) == ("1/2", "3x1x5")
    assert wrapped(["aa", "bb", "cc"], 7) == ["aa, bb,", "cc"]
