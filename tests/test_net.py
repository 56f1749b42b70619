"""Net: phase rules, wiring, shapes, weights, execution."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from caffe_models.blob_graph import least_memory
from caffe_models.errors import CaffeWarning, NetError, PrototxtError, WeightsError
from caffe_models.fillers import UnfilledBlob
from caffe_models.layer import Shape
from caffe_models.layers.python import PythonLayer, register_python
from caffe_models.net import Net
from caffe_models.text_format import parse_text

torch = pytest.importorskip("torch")

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 dim: 6 } } }\n'


def net_of(text: str, phase: str = "TEST", dialect: str = "extended", **more: object) -> Net:
    message = parse_text(text, "NetParameter", dialect, "net.prototxt")
    return Net.from_message(message, phase, dialect, **more)  # type: ignore[arg-type]


def layer(name: str, kind: str, bottom: str = "data", top: str = "", more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" {more} }}\n'


def conv(name: str, bottom: str = "data", top: str = "", outputs: int = 2, more: str = "", side: int = 1) -> str:
    settings = f"convolution_param {{ num_output: {outputs} kernel_size: {side} pad: {side // 2} "
    return layer(name, "Convolution", bottom, top, f'{settings} weight_filler {{ type: "xavier" }} }} {more}')


def run(net: Net, *, keep: Sequence[str] = (), seed: int = 3) -> dict[str, np.ndarray]:
    net.to_torch()
    rng = np.random.default_rng(seed)
    feed = {blob: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for blob, shape in net.inputs.items()}
    with torch.no_grad():
        return {blob: value.numpy() for blob, value in net.forward(feed, keep=keep).items()}


# --- which layers take part -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "phase", "level", "stages", "takes_part"),
    [
        ("", "TEST", 0, [], True),
        ("include { phase: TRAIN }", "TEST", 0, [], False),
        ("include { phase: TRAIN } include { phase: TEST }", "TEST", 0, [], True),
        ("exclude { phase: TEST }", "TEST", 0, [], False),
        ("exclude { phase: TEST }", "TRAIN", 0, [], True),
        ("include { min_level: 2 }", "TEST", 1, [], False),
        ("include { min_level: 2 max_level: 3 }", "TEST", 3, [], True),
        ("include { max_level: 3 }", "TEST", 4, [], False),
        ('include { stage: "a" stage: "b" }', "TEST", 0, ["a"], False),
        ('include { stage: "a" stage: "b" }', "TEST", 0, ["a", "b", "c"], True),
        ('include { not_stage: "a" }', "TEST", 0, ["a"], False),
        ('exclude { phase: TEST stage: "a" }', "TEST", 0, [], True),
    ],
)
def test_rules(rule: str, phase: str, level: int, stages: list[str], takes_part: bool) -> None:
    net = net_of(DATA + layer("r", "ReLU", more=rule), phase, level=level, stages=stages)
    assert ("r" in net.shapes) is takes_part


def test_a_layer_has_one_kind_of_rules() -> None:
    with pytest.raises(PrototxtError, match=r'^net.prototxt:2: layer "r": has include and exclude rules'):
        net_of(DATA + layer("r", "ReLU", more="include { phase: TEST } exclude { phase: TRAIN }"))


def test_older_forms_of_input() -> None:
    by_dim = net_of('input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8]\n' + layer("r", "ReLU", "b"))
    assert by_dim.inputs == {"a": (1, 2, 3, 4), "b": (5, 6, 7, 8)}
    by_shape = net_of('input: "a" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 dim: 5 }\n' + layer("r", "ReLU", "a"))
    assert by_shape.inputs == {"a": (1, 2, 3, 4, 5)}
    with pytest.raises(PrototxtError, match=r"^net.prototxt:1: 1 input, 0 input_shape and 3 input_dim"):
        net_of('input: "a" input_dim: [1, 2, 3]\n' + layer("r", "ReLU", "a"))


def test_v1_layers() -> None:
    net = net_of(
        'input: "data" input_dim: [1, 2, 5, 5]\n'
        'layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1\n'
        "weight_decay: 0 convolution_param { num_output: 3 kernel_size: 3 } }\n"
        'layers { name: "r" type: RELU bottom: "c" top: "c" relu_param { negative_slope: 0.5 } }\n',
        dialect="bvlc",
    )
    assert [made.spec.type for made in net.layers] == ["Input", "Convolution", "ReLU"]
    assert net.shapes["c"] == (1, 3, 3, 3)
    assert [(one.lr_mult, one.decay_mult) for one in net.parameters()] == [(1, 1), (2, 0)]


# --- wiring -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (conv("c", "nowhere"), r'^net.prototxt:2: layer "c" \(Convolution\): bottom "nowhere" is made by no layer'),
        (layer("r", "ReLU", "c") + conv("c"), r'net.prototxt:2: .* \(layer "c" at line 3 makes it later'),
        (conv("c") + conv("d", top="c"), r'^net.prototxt:3: layer "d" .* is made already by layer "c" \(line 2\)'),
        (conv("c", top="data"), "cannot work in place"),
        (
            layer("p", "Pooling", top="data", more="pooling_param { kernel_size: 2 }"),
            '"data" is its bottom: cannot work',
        ),
        (layer("f", "Flatten", top="data"), "cannot work in place; give the top another name"),
        (layer("r", "ReLU", more="propagate_down: true propagate_down: true"), "2 propagate_down for 1 bottoms"),
        (
            conv("c", more='param { name: "w" lr_mult: 1 }') + conv("d", more='param { name: "w" lr_mult: 2 }'),
            r'net.prototxt:3: layer "d" .*shares "w" with layer "c" but has lr_mult 2, it was 1 before',
        ),
        (conv("c", more='param { name: "" } ' * 3), "3 param entries for 2 blobs"),
        (conv("c", outputs=0), "num_output 0 must be"),
        (layer("p", "Pooling", more="pooling_param { kernel_size: 9 }"), "larger than the padded bottom"),
        (layer("p", "Pooling", more="pooling_param { kernel_size: 2 stride: 2 stride: 2 }"), "given 2 times for 3"),
        (layer("r", "Reshape", more="reshape_param { shape { dim: 0 dim: 7 } }"), "the counts differ"),
        (layer("s", "Softmax", more="softmax_param { axis: 5 }"), "axis 5 is outside a blob of 5 axes"),
    ],
)
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message) as caught:
        net_of(DATA + text)
    assert str(caught.value).startswith("net.prototxt:")
    assert "\n" not in str(caught.value)


def test_outputs_are_the_blobs_nobody_reads() -> None:
    net = net_of(DATA + conv("c") + layer("r", "ReLU", "c", "c") + layer("s", "Sigmoid", "data"))
    assert net.outputs == ("c", "s")
    assert net.shapes == {"data": (1, 2, 4, 4, 6), "c": (1, 2, 4, 4, 6), "s": (1, 2, 4, 4, 6)}


def test_input_shapes_can_be_given() -> None:
    net = net_of(DATA + conv("c"), input_shapes={"data": (3, 2, 8, 8, 8)})
    assert net.shapes["c"] == (3, 2, 8, 8, 8)
    with pytest.raises(NetError, match=r"no input date \(inputs: data\)"):
        net_of(DATA + conv("c"), input_shapes={"date": (3, 2, 8, 8, 8)})


# --- weights ----------------------------------------------------------------------------------------------------


def test_fill_depends_on_seed_and_name_alone() -> None:
    one, two = net_of(DATA + conv("c")), net_of(DATA + conv("other") + conv("c"))
    one.fill(1)
    two.fill(1)
    np.testing.assert_array_equal(one.weights()["c"][0], two.weights()["c"][0])
    assert not np.array_equal(two.weights()["c"][0], two.weights()["other"][0])
    before = one.weights()["c"][0]
    one.fill(2)
    assert not np.array_equal(one.weights()["c"][0], before)


def test_load_by_name_before_and_after_to_torch() -> None:
    for on_torch in (False, True):
        net = net_of(DATA + conv("c") + conv("d"))
        if on_torch:
            net.to_torch(channels_last=True)
        blobs = [np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1, 1), np.array([5, 6], np.float32)]
        report = net.load({"c": blobs, "old": [np.ones(3, np.float32)]}, "w.caffemodel")
        assert (report.unused, report.missing) == (("old",), ("d",))
        for found, wanted in zip(net.weights()["c"], blobs, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 2, 1, 1, 1)], r'w.caffemodel: layer "c" has 1 blobs, the net \(net.prototxt:3, Convolution\) needs 2'),
        (
            [(2, 3, 1, 1, 1), (2,)],
            r"blob 0 has shape \(2, 3, 1, 1, 1\), .* needs \(2, 2, 1, 1, 1\): weights of another",
        ),
        ([(2, 1, 2, 1, 1), (2,)], "weights of another net"),
    ],
)
def test_weights_of_another_net(shapes: list[Shape], message: str) -> None:
    net = net_of(DATA + conv("a") + conv("c"))
    before = net.weights()
    blobs = [np.ones(shape, np.float32) for shape in shapes]
    good = [np.ones_like(blob) for blob in before["a"]]
    with pytest.raises(WeightsError, match=message):
        net.load({"a": good, "c": blobs}, "w.caffemodel")
    np.testing.assert_array_equal(net.weights()["a"][0], before["a"][0])  # nothing was copied


def test_legacy_shapes_have_leading_ones() -> None:
    net = net_of('input: "data" input_dim: [1, 2, 1, 1]\n' + layer("f", "InnerProduct", more=FULLY))
    net.load({"f": [np.ones((1, 1, 3, 2), np.float32), np.ones((1, 1, 1, 3), np.float32)]}, "w")
    with pytest.raises(WeightsError):
        net.load({"f": [np.ones((3, 2, 1, 1), np.float32), np.ones((1, 1, 1, 3), np.float32)]}, "w")


FULLY = "inner_product_param { num_output: 3 }"


def test_batch_norm_of_another_engine_is_explained() -> None:
    net = net_of(DATA + layer("b", "BatchNorm"))
    blobs = [np.ones(2, np.float32), np.ones(2, np.float32), np.ones(1, np.float32)]
    with pytest.raises(WeightsError, match='add engine: "MKL2017" to the layer'):
        net.load({"b": [*blobs, *blobs[:2]]}, "w")


@pytest.mark.parametrize(
    ("engine", "settings", "blobs"),
    [
        ("", "", 3),
        ('engine: "CAFFE"', "", 3),
        ('engine: "MKL2017"', "", 5),
        ('engine: "MKLDNN"', "batch_norm_param { bias_term: false }", 4),
    ],
)
def test_number_of_batch_norm_blobs(engine: str, settings: str, blobs: int) -> None:
    frozen = "param { lr_mult: 0 } " * 3
    net = net_of(DATA + layer("b", "BatchNorm", more=f"{frozen} {engine} {settings}"), "TRAIN")
    assert [one.lr_mult for one in net.parameters()] == [0, 0, 0, 1, 1][:blobs]
    net.to_torch()
    assert [one.tensor.requires_grad for one in net.parameters()] == [False, False, False, True, True][:blobs]


def test_blobs_are_filled_when_asked_for() -> None:
    more = 'param { name: "w" } param { name: "b" }'
    net = net_of(DATA + conv("c", more=more) + conv("d", "c", more=more) + conv("e", "d"), "TRAIN")
    c, d, e = net.layers[1:]
    assert e.blob_shapes == [(2, 2, 1, 1, 1), (2,)]
    assert all(isinstance(blob, UnfilledBlob) and not blob.filled for blob in (*c.held_blobs, *e.held_blobs))
    first = c.blobs[0]
    assert d.held_blobs[0] is first  # the owner was asked, so the other has it too
    assert isinstance(e.held_blobs[0], UnfilledBlob)
    blobs = [np.full((2, 2, 1, 1, 1), 7, np.float32), np.zeros(2, np.float32)]
    net.load({"d": blobs, "e": blobs, "c": blobs}, "w.caffemodel")
    assert not (first - 7).any()
    assert not (e.blobs[0] - 7).any()
    blobs[0][...] = 0
    assert e.blobs[0].all()  # a copy, not the caller's array


def test_nets_for_huge_inputs_can_be_looked_at_but_not_run() -> None:
    net = net_of(DATA + conv("c", side=3), input_shapes={"data": (1, 2, 4096, 4096, 4096)})
    assert net.shapes["c"] == (1, 2, 4096, 4096, 4096)
    net.check_memory({"data": (1, 2, 8, 8, 8)})
    with pytest.raises(NetError, match=r"blobs alive at layer c alone have 1024\.0 GiB, .* of memory are free"):
        net.check_memory(net.inputs)
    net.to_torch()
    huge = torch.zeros(1, 2, 1, 1, 1).expand(1, 2, 4096, 4096, 4096)
    with pytest.raises(NetError, match="of memory are free; give smaller inputs"):
        net.forward({"data": huge})


def test_least_memory_frees_blobs_after_their_last_reader() -> None:
    """Blobs of 2 x 96 values, 768 bytes: bottom and top of one convolution at a time, in training all of them."""
    text = DATA + conv("c") + layer("r", "ReLU", "c", "c") + conv("d", "c") + conv("e", "d")
    for phase, blobs in (("TEST", 2), ("TRAIN", 4)):
        net = net_of(text, phase)
        assert least_memory(net.layers, net.graph, net.shapes)[0] == blobs * 768


def test_loading_warns_or_refuses() -> None:
    net = net_of(DATA + conv("c") + conv("d", "c") + layer("r", "ReLU", "d"))
    blobs = [np.zeros((2, 2, 1, 1, 1), np.float32), np.zeros(2, np.float32)]
    with pytest.warns(CaffeWarning, match=r'w: holds no weights for layer "d" of net.prototxt; they keep'):
        net.load({"c": blobs}, "w")
    with pytest.raises(WeightsError, match=r'w: holds no weights for layer "d" of net.prototxt: weights of another'):
        net.load({"c": blobs}, "w", strict=True)
    with pytest.raises(WeightsError, match=r'w: layer "r" has 2 blobs, the net \(net.prototxt:4, ReLU\) needs 0'):
        net.load({"c": blobs, "d": blobs, "r": blobs}, "w")


def test_shared_parameters() -> None:
    more = 'param { name: "w" lr_mult: 3 } param { name: "b" }'
    net = net_of(DATA + conv("c", more=more) + conv("d", "c", more=more), "TRAIN")
    assert [(one.layer, one.index, one.lr_mult) for one in net.parameters()] == [("c", 0, 3), ("c", 1, 1)]
    net.fill(1)
    net.to_torch()
    assert net.layers[1].blobs[0] is net.layers[2].blobs[0]
    np.testing.assert_array_equal(net.weights()["c"][0], net.weights()["d"][0])
    with pytest.raises(PrototxtError, match=r'shares "w" with layer "c", whose shape is'):
        net_of(DATA + conv("c", more=more) + conv("d", more='param { name: "w" }', outputs=5))


# --- execution --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["", 'engine: "MKL2017"'])
def test_average_over_an_axis_thinner_than_the_window(engine: str) -> None:
    """Found by the fuzzer: PyTorch alone refuses it in 3-D. Windows of 3 on extents 5, 1, 2 with padding 1."""
    pad = "pad: 1 avg_include_pad: false" if engine else "pad: 1"
    settings = f"pooling_param {{ pool: AVE kernel_size: 3 stride: 2 {pad} }} {engine}"
    net = net_of(DATA.replace("dim: 4 dim: 4 dim: 6", "dim: 5 dim: 1 dim: 2") + layer("p", "Pooling", more=settings))
    found = net.to_torch().forward({"data": torch.arange(1.0, 21.0).reshape(1, 2, 5, 1, 2)})["p"].numpy()
    # depths -1..1, 1..3, 3..5 of 1 3 5 7 9 and 2 4 6 8 10: the sums of both columns are 10, 33, 34 (those inside)
    sums, inside = np.array([10.0, 33.0, 34.0]), np.array([4.0, 6.0, 4.0])
    assert found.shape == (1, 2, 3, 1, 2)
    np.testing.assert_allclose(found[0, 0, :, 0, 0], sums / (inside if engine else 27), rtol=1e-6)


def test_forward_says_what_is_missing() -> None:
    net = net_of(DATA + conv("c"))
    feed = {"data": torch.zeros(net.inputs["data"])}
    with pytest.raises(NetError, match="call to_torch"):
        net.forward(feed)
    net.to_torch()
    with pytest.raises(NetError, match=r"missing: data \(the net's inputs: data\)"):
        net.forward({})
    with pytest.raises(NetError, match="unknown: date"):
        net.forward({**feed, "date": feed["data"]})
    with pytest.raises(NetError, match="no blob d "):
        net.forward(feed, keep=["d"])
    with pytest.raises(NetError, match=r'net.prototxt:2: layer "c": blob 0 has shape \(2, 2, 1, 1, 1\)'):
        net.forward({"data": torch.zeros(1, 3, 4, 4, 4)})


def test_blobs_are_freed_after_their_last_reader() -> None:
    alive: list[weakref.ref[Any]] = []

    @register_python("test_net", "Watch")
    class Watch(PythonLayer):
        def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
            return [bottoms[0]]

        def forward(self, tensors: Sequence[Any]) -> list[Any]:
            made = tensors[0] + 1
            alive.append(weakref.ref(made))
            counts.append(sum(one() is not None for one in alive))
            return [made]

    counts: list[int] = []
    watch = 'python_param { module: "test_net" layer: "Watch" }'
    net = net_of(DATA + "".join(layer(f"w{i + 1}", "Python", f"w{i}" if i else "data", more=watch) for i in range(6)))
    assert set(run(net)) == {"w6"}
    assert counts == [1, 2, 2, 2, 2, 2]
    alive.clear()
    counts.clear()
    assert set(run(net, keep=["w1"])) == {"w1", "w6"}
    assert counts == [1, 2, 3, 3, 3, 3]


def test_python_layers_come_from_a_registry() -> None:
    with pytest.raises(PrototxtError, match=r"unknown Python layer os.system \(known here: "):
        net_of(DATA + layer("p", "Python", more='python_param { module: "os" layer: "system" }'))

    @register_python("test_net", "Times")
    class Times(PythonLayer):
        def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
            return [bottoms[0]]

        def forward(self, tensors: Sequence[Any]) -> list[Any]:
            return [tensors[0] * self.param["by"]]

    with pytest.raises(ValueError, match="registered twice"):
        register_python("test_net", "Times")(Times)
    times = 'python_param { module: "test_net" layer: "Times" param_str: %s }'
    values = run(net_of(DATA + layer("p", "Python", more=times % "'{\"by\": 3}'")), keep=["data"])
    np.testing.assert_allclose(values["p"], 3 * values["data"])
    with pytest.raises(PrototxtError, match="param_str must be a JSON object"):
        net_of(DATA + layer("p", "Python", more=times % "'by = 3'"))


SHARED_MEMORY = [
    ("split", layer("s", "Split", top="a", more='top: "b"') + layer("r", "ReLU", "a", "a")),
    ("dropout", conv("c") + layer("a", "Dropout", "c") + layer("r", "ReLU", "a", "a") + layer("b", "Sigmoid", "c")),
    ("reshape", conv("c") + layer("a", "Reshape", "c", more="reshape_param { shape { dim: 0 dim: -1 } }")
     + layer("r", "ReLU", "a", "a") + layer("b", "Sigmoid", "c")),
    ("input", layer("r", "ReLU", "data", "data") + layer("b", "Sigmoid", "data")),
    ("two readers", conv("c") + layer("a", "ReLU", "c") + layer("b", "Sigmoid", "c")),
    ("reader before", conv("c") + layer("b", "Power", "c") + layer("r", "ReLU", "c", "c") + layer("d", "TanH", "c")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), SHARED_MEMORY)
def test_in_place_layers_touch_no_other_blob(name: str, text: str) -> None:
    """The same net with and without permission to overwrite memory."""
    net = net_of(DATA + text)
    net.fill(1)
    keep = [blob for blob in net.shapes if blob != "data"]
    allowed = run(net)
    net._overwritten = frozenset()
    wanted = run(net)
    for blob in wanted:
        np.testing.assert_array_equal(allowed[blob], wanted[blob])
    assert set(run(net, keep=keep)) >= set(keep)


def test_activations_overwrite_where_nobody_looks() -> None:
    net = net_of(DATA + conv("c") + layer("b", "BatchNorm", "c") + layer("r", "ReLU", "b") + layer("e", "TanH", "r"))
    assert "ReLU" in {net.layers[index].spec.type for index in net._overwritten}
    kept = run(net, keep=["b", "r"])
    np.testing.assert_array_equal(kept["r"], np.maximum(kept["b"], 0))
    assert (kept["b"] < 0).any()


def test_batch_norm_accumulates_as_caffe() -> None:
    """By hand: factor f * 0.9 + 1, mean and unbiased variance added up, after two passes."""
    net = net_of(DATA + layer("b", "BatchNorm", more="batch_norm_param { moving_average_fraction: 0.9 }"), "TRAIN")
    net.to_torch()
    rng = np.random.default_rng(1)
    batches = [rng.normal(2, 3, size=(1, 2, 4, 4, 6)).astype(np.float32) for _ in range(2)]
    for batch in batches:
        (top,) = net.forward({"data": torch.from_numpy(batch)}).values()
    mean, var, factor = net.weights()["b"]
    means, variances = ([f(b, axis=(0, 2, 3, 4)) for b in batches] for f in (np.mean, np.var))
    assert factor[0] == pytest.approx(1.9)
    np.testing.assert_allclose(mean, 0.9 * means[0] + means[1], rtol=1e-5)
    np.testing.assert_allclose(var, (0.9 * variances[0] + variances[1]) * 96 / 95, rtol=1e-5)
    column = (1, 2, 1, 1, 1)
    wanted = (batches[1] - means[1].reshape(column)) / np.sqrt(variances[1].reshape(column) + 1e-5)
    np.testing.assert_allclose(top.detach().numpy(), wanted, atol=1e-5)


def test_losses_and_their_weights() -> None:
    label = DATA.replace('"data"', '"label"')
    loss = 'layer { name: "%s" type: "%s" bottom: "c" bottom: "label" top: "%s" %s }\n'
    text = DATA + label + conv("c") + loss % ("l1", "SigmoidCrossEntropyLoss", "l1", "")
    text += loss % ("l2", "SmoothL1Loss", "l2", "loss_weight: 0.25")
    text += layer("m", "Reduction", "c", more="reduction_param { operation: ASUM } loss_weight: 2")
    net = net_of(text, "TRAIN")
    assert net.loss_tops == (("l1", 1.0), ("l2", 0.25), ("m", 2.0))
    net.fill(1)
    net.to_torch()
    values = net.forward({blob: torch.rand(shape) for blob, shape in net.inputs.items()})
    total = net.total_loss(values)
    assert float(total.detach()) == pytest.approx(
        float((values["l1"] + 0.25 * values["l2"] + 2 * values["m"]).detach())
    )
    total.backward()  # type: ignore[no-untyped-call]
    assert all(one.tensor.grad is not None for one in net.parameters())
    with pytest.raises(NetError, match="has no loss layer"):
        net_of(DATA + conv("c")).to_torch().total_loss({})


def test_dropout_only_in_train() -> None:
    text = DATA + layer("d", "Dropout", more="dropout_param { dropout_ratio: 0.25 }")
    test = run(net_of(text), keep=["data"])
    np.testing.assert_array_equal(test["d"], test["data"])
    train = run(net_of(text, "TRAIN"), keep=["data"])
    dropped = train["d"] == 0
    assert 0.1 < dropped.mean() < 0.4
    np.testing.assert_allclose(train["d"][~dropped], train["data"][~dropped] / 0.75, rtol=1e-6)


def test_channels_last_and_bfloat16_change_only_rounding() -> None:
    text = DATA + conv("c", outputs=8, side=3) + layer("b", "BatchNorm", "c", more='engine: "MKL2017"')
    text += layer("r", "ReLU", "b", "b") + layer("p", "Pooling", "b", more="pooling_param { kernel_size: 2 stride: 2 }")
    text += 'layer { name: "e" type: "Eltwise" bottom: "p" bottom: "p" top: "e" }\n'
    plain, other = net_of(text, "TRAIN"), net_of(text, "TRAIN")
    feed = {"data": torch.randn(1, 2, 8, 8, 8)}
    for net in (plain, other):
        net.fill(1)
    wanted = plain.to_torch().forward(feed)["e"]
    with torch.autocast("cpu", torch.bfloat16):
        found = other.to_torch(channels_last=True).forward(feed, keep=["c", "b", "p"])
    for blob in ("c", "b", "p", "e"):
        assert found[blob].dtype == torch.bfloat16
        # without AVX-512 PyTorch's own bfloat16 convolution runs, which answers in the plain layout
        if torch.cpu.get_capabilities().get("avx512_bw"):
            assert found[blob].is_contiguous(memory_format=torch.channels_last_3d)
    assert float((found["e"] - wanted).detach().abs().max()) < 0.1


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 8, 8)])
def test_gradients_under_autocast_are_right_where_the_input_is_narrower_than_the_kernel(shape: tuple[int, ...]) -> None:
    """oneDNN's bfloat16 gives infinite weight gradients there, in about every other run."""
    dims = " ".join(f"dim: {extent}" for extent in (8, 64, *shape))
    text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" param {{ lr_mult: 1 }} param {{ lr_mult: 1 }}
      convolution_param {{ num_output: 64 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}"""
    torch.manual_seed(0)
    for _ in range(10):
        x, pull = torch.randn(8, 64, *shape), torch.randn(8, 64, *shape)
        gradients = []
        for enabled in (False, True):
            net = Net.from_message(parse_text(text), "TRAIN").to_torch(channels_last=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = net.forward({"x": x})["y"]
            (y.float() * pull).sum().backward()
            gradients.append(net.parameters()[0].tensor.grad)
        assert torch.allclose(*gradients, atol=0.02 * float(gradients[0].abs().max()))
