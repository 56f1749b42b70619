"""Translated nets give the same outputs, in the words of the other dialect, and what cannot be said is refused.

The oracle of what a dialect can express is real Caffe: `ops/skipped.json` lists the cases each of the three could not
run.
"""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from caffe_golden import Case, net_folder, op_folders, read_case
from conftest import data_folder, need
from google.protobuf import text_format as google  # type: ignore[import-untyped]
from protobuf_oracle import message_class

from caffe_models.errors import CaffeWarning, NetError, PrototxtError, Rpn3dError
from caffe_models.net import Net
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text, read_text, write_text
from caffe_models.translate import Translation, translate
from caffe_models.translate_files import translate_files
from caffe_models.weights import Weights, read_caffemodel, write_caffemodel

torch = pytest.importorskip("torch")

NETS = {
    "bn5": ("extended", ""),
    "legacy_v1": ("bvlc", ""),
    "rpn_plain": ("extended", "_32"),
    "rpn_scale": ("extended", "_32"),
    "rpn_bn5": ("extended", "_32"),
    "rpn_scale_intel": ("intel", "_32"),
    "unet2d": ("bvlc", ""),
    "unet2d_crop": ("bvlc", ""),
    "vnet3d": ("extended", ""),
    "vnet3d_elu": ("bvlc", ""),
    **{f"topology/{name}_2d": (name, "") for name in DIALECTS},
    **{f"topology/{name}_3d": (name, "") for name in ("extended", "intel")},
    "topology/intel_3d_folded": ("intel", ""),
    "topology/bvlc_3d_serialised_only": ("extended", ""),
}
REFUSED_BY_BVLC = {name for name in NETS if name.startswith("rpn_") or "3d" in name} - {"vnet3d_elu"}
"""Pooling or PReLU in three dimensions."""

SAYS_WHAT_INTEL_CANNOT = {f"loss2d_sigmoidce_{name}" for name in ("normtrue", "valid", "full", "ignore")}
"""Run by Intel Caffe, which ignores what they say: the translation refuses instead of changing the loss."""
MADE_POSSIBLE = {"bn_scale_nobias_inplace"}
"""Intel Caffe dies of a Scale without bias; the translation gives it one."""


def outputs(net: Net, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    feed = {blob: torch.from_numpy(array.copy()) for blob, array in inputs.items()}
    with torch.inference_mode():
        return {blob: value.numpy() for blob, value in net.to_torch().forward(feed).items()}


def rebuilt(done: Translation, tmp_path: Path) -> Net:
    """From the text and from a caffemodel written to disk; both also read by Google's protobuf."""
    net = Net.from_message(parse_text(done.text, dialect=done.target))
    google.Parse(done.text, message_class("NetParameter", done.target)())
    assert done.weights is not None
    path = tmp_path / "translated.caffemodel"
    write_caffemodel(path, done.weights, "net", done.layer_types)
    theirs = message_class("NetParameter", done.target).FromString(path.read_bytes())
    assert {layer.name: [list(blob.shape.dim) for blob in layer.blobs] for layer in theirs.layer if layer.blobs} == {
        name: [list(blob.shape) for blob in blobs] for name, blobs in done.weights.items()
    }
    report = net.load(read_caffemodel(path), "translated")
    assert report.missing == report.unused == ()
    return net


def compare(case: Case, before: dict[str, np.ndarray], net: Net, exact: bool, what: str) -> None:
    after = outputs(net, case.inputs)
    assert set(after) == set(before)
    for blob, wanted in before.items():
        if exact:
            assert np.array_equal(after[blob], wanted, equal_nan=True), f"{what}: {blob}"
        else:
            assert np.abs(after[blob] - wanted).max() <= 1e-5 * np.abs(wanted).max(), f"{what}: {blob}"


@pytest.mark.parametrize("target", DIALECTS)
@pytest.mark.parametrize("name", NETS)
def test_whole_nets(name: str, target: str, tmp_path: Path) -> None:
    dialect, size = NETS[name]
    folder = net_folder(name)
    message = read_text(folder / f"deploy{size}.prototxt", dialect=dialect)
    weights = read_caffemodel(folder / "weights.caffemodel")
    if target == "bvlc" and name in REFUSED_BY_BVLC:
        with pytest.raises(PrototxtError, match=r"deploy\S*prototxt:\d+: layer .* \((Pooling|PReLU)\): bvlc Caffe"):
            translate(message, target, weights)
        return
    case = read_case(folder, dialect, f"deploy{size}.prototxt", f"io{size}.npz")
    before = outputs(case.net, case.inputs)
    for batch_norm in ("keep", "split", "merge"):
        if (target, batch_norm) == ("bvlc", "merge"):
            continue
        done = translate(message, target, weights, batch_norm=batch_norm)
        exact = not any("gamma" in change or "(Scale) goes" in change for change in done.changes)
        compare(case, before, rebuilt(done, tmp_path), exact, f"{name} {batch_norm}")
        merged = batch_norm == "merge" and "Scale" in case.net.layer_types.values()
        assert ("MKL2017" in done.text) == (merged or (target != "bvlc" and batch_norm != "split" and "bn5" in name))


@cache
def skipped() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        (need(data_folder() / "caffe_golden") / "ops/skipped.json").read_text()
    )
    return found


@pytest.mark.parametrize("target", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_operator_case(dialect: str, target: str, tmp_path: Path) -> None:
    """All 621 cases into all dialects: refused exactly where that Caffe could not run the case, else equal."""
    need(data_folder() / "caffe_golden")
    wrong = []
    for name, folder in op_folders(dialect).items():
        impossible = name not in op_folders(target) and name not in MADE_POSSIBLE
        if target == "intel" and dialect != "intel" and name in SAYS_WHAT_INTEL_CANNOT:
            impossible = True
        message = read_text(folder / "deploy.prototxt", dialect=dialect)
        stored = folder / "weights.caffemodel"
        weights = read_caffemodel(stored) if stored.exists() else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CaffeWarning)
                done = translate(message, target, weights)
        except Rpn3dError as error:
            if not impossible or "deploy.prototxt:" not in str(error) or 'layer "' not in str(error):
                wrong.append(f"{name}: {error}")
            continue
        if impossible:
            wrong.append(f"{name}: translated, but real Caffe says: {skipped()[target].get(name)}")
            continue
        if target == dialect and done.net.equals(message):
            assert {key: [b.tobytes() for b in blobs] for key, blobs in (done.weights or {}).items()} == {
                key: [b.tobytes() for b in blobs] for key, blobs in weights.items()
            }
            continue
        case = read_case(folder, dialect)
        before = outputs(case.net, case.inputs)
        compare(case, before, rebuilt(done, tmp_path), True, f"{dialect} {name}")
    assert wrong == []


def layer(name: str, kind: str, bottom: str, top: str = "", more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" {more} }}\n'


def data(*shape: int) -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    return f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'


FLAT, DEEP = data(1, 2, 8, 8), data(1, 2, 8, 8, 8)
NORM = layer("b", "BatchNorm", "data", "b")


def texts(text: str, origin: str, target: str, batch_norm: str = "keep") -> Translation:
    return translate(parse_text(text, dialect=origin, source="net.prototxt"), target, batch_norm=batch_norm)


def only(done: Translation, kind: str) -> list[str]:
    """The layers of one type, as text."""
    return [" ".join(write_text(one).split()) for one in done.net.get_messages("layer") if one.get_str("type") == kind]


@pytest.mark.parametrize(
    ("top", "fields", "origin", "target", "written"),
    [
        (FLAT, "kernel_size: 3 stride: 2 pad: 1", "bvlc", "extended", "pad: 1 kernel_size: 3 stride: 2"),
        (FLAT, "kernel_size: 3 stride: 2 pad: 1", "extended", "intel", "kernel_size: 3 stride: 2 pad: 1"),
        (FLAT, "kernel_size: 3 kernel_size: 3", "extended", "bvlc", "kernel_size: 3"),
        (FLAT, "kernel_size: 3 kernel_size: 2", "extended", "bvlc", "kernel_h: 3 kernel_w: 2"),
        (FLAT, "kernel_h: 3 kernel_w: 2 stride: 2", "bvlc", "extended", "stride: 2 kernel_h: 3 kernel_w: 2"),
        (FLAT, "kernel_size: 3 stride_h: 1 stride_w: 2", "intel", "bvlc", "kernel_size: 3 stride_h: 1 stride_w: 2"),
        (FLAT, "global_pooling: true pool: AVE", "bvlc", "intel", "pool: AVE global_pooling: true"),
        (DEEP, "kernel_size: 3 pad: 1", "extended", "intel", "pad_3d: 1 kernel_size_3d: 3"),
        (DEEP, "kernel_size: [1, 2, 3]", "extended", "intel", "kernel_size_3d: 1 kernel_size_3d: 2"),
        (DEEP, "kernel_size_3d: [3, 3, 3] stride_3d: 2", "intel", "extended", "kernel_size: 3 kernel_size: 3 kernel_"),
        (FLAT, "kernel_size: 2 round_mode: CEIL", "bvlc", "extended", "{ kernel_size: 2 }"),
        (FLAT, "kernel_size: 2 avg_include_pad: true engine: MKLDNN", "intel", "bvlc", "{ kernel_size: 2 }"),
        (
            FLAT,
            "kernel_size: 2 avg_include_pad: false engine: CAFFE",
            "intel",
            "bvlc",
            "{ kernel_size: 2 engine: CAFFE }",
        ),
        (FLAT, "kernel_size: 2 axis: 1", "extended", "intel", "kernel_size: 2 axis: 1"),
    ],
)
def test_the_spellings_of_pooling(top: str, fields: str, origin: str, target: str, written: str) -> None:
    done = texts(top + layer("p", "Pooling", "data", more=f"pooling_param {{ {fields} }}"), origin, target)
    assert written in only(done, "Pooling")[0]


CONV = "convolution_param { num_output: 2 kernel_size: 1"


@pytest.mark.parametrize(
    ("text", "origin", "target", "message"),
    [
        (
            layer("p", "Pooling", "data", more="pooling_param { kernel_size: 2 }"),
            "extended",
            "bvlc",
            "no pooling in three",
        ),
        (
            layer("p", "Pooling", "data", more="pooling_param {\nkernel_size_3d: 2 }"),
            "intel",
            "bvlc",
            r'net.prototxt:2: layer "p" \(Pooling\): bvlc Caffe has no pooling in three dimensions',
        ),
        (
            layer("p", "Permute", "data"),
            "extended",
            "bvlc",
            r'net.prototxt:2: layer "p" \(Permute\): bvlc Caffe has no su',
        ),
        (layer("c", "Clip", "data", more="clip_param { min: 0 max: 1 }"), "bvlc", "extended", "only bvlc have"),
        (layer("s", "Swish", "data"), "bvlc", "extended", "extended Caffe has no such layer type"),
        (
            layer("s", "Swish", "data", more="swish_param {\nbeta: 2 }"),
            "bvlc",
            "intel",
            "net.prototxt:2: .*swish_param cannot be written for intel; only bvlc know it",
        ),
        (layer("p", "PReLU", "data"), "extended", "bvlc", "bvlc Caffe refuses bottoms of 5 axes here"),
        (
            layer("c", "Convolution", "data", more=CONV + "\nrelu: true } }"[:-2]),
            "intel",
            "bvlc",
            "net.prototxt:3: .*relu: true is what Intel Caffe writes when it fuses a ReLU in; remove it",
        ),
        (
            layer("b", "BatchNorm", "data", more="batch_norm_param { stats_batch_size: 4 }"),
            "intel",
            "extended",
            "stats_batch_size 4 cannot be written for extended; only intel know it",
        ),
    ],
)
def test_what_a_dialect_cannot_say(text: str, origin: str, target: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message):
        texts(DEEP + text, origin, target)


@pytest.mark.parametrize(
    ("fields", "origin", "target", "message"),
    [
        (
            "\nround_mode: FLOOR",
            "bvlc",
            "extended",
            "net.prototxt:3: .*round_mode FLOOR cannot be written for extended",
        ),
        ("\nround_mode: FLOOR", "bvlc", "intel", "whose pooling rounds up"),
        (
            'pool: AVE pad: 1 avg_include_pad: false } engine: "MKLDNN" softmax_param {',
            "intel",
            "bvlc",
            "avg_include_pad: f",
        ),
        ("axis: 2", "extended", "bvlc", "axis 2; the channel axis must be 1"),
    ],
)
def test_what_pooling_cannot_be(fields: str, origin: str, target: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message):
        texts(FLAT + layer("p", "Pooling", "data", more=f"pooling_param {{ kernel_size: 2 {fields} }}"), origin, target)


MKL = 'engine: "MKL2017" param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 3 } '
RULES = "include { phase: TRAIN } batch_norm_param { eps: 0.1 use_global_stats: false filler { value: 2 } }"


def test_splitting_keeps_rules_rates_fillers_and_names() -> None:
    text = FLAT + layer("b", "BatchNorm", "data", "data", MKL + RULES) + layer("b_scale", "ReLU", "data", "data")
    text += layer("b", "BatchNorm", "data", "data", 'engine: "MKL2017" include { phase: TEST }')
    done = texts(text, "extended", "bvlc")
    norms, scales = only(done, "BatchNorm"), only(done, "Scale")
    assert norms[0] == (
        f'name: "b" type: "BatchNorm" bottom: "data" top: "data"{" param { lr_mult: 0 }" * 3}'
        " include { phase: TRAIN } batch_norm_param { eps: 0.1 }"
    )
    assert scales[0] == (
        'name: "b_scale_2" type: "Scale" bottom: "data" top: "data" param { lr_mult: 3 } include { phase: TRAIN } '
        "scale_param { filler { value: 2 } bias_term: true }"
    )
    assert scales[1].startswith('name: "b_scale_2"'), "one name, since TRAIN and TEST share the weights"
    assert [one.get_str("name") for one in done.net.get_messages("layer")] == [
        "data",
        "b",
        "b_scale_2",
        "b_scale",
        "b",
        "b_scale_2",
    ]


@pytest.mark.parametrize(
    ("settings", "blobs"),
    [
        ("", (3, 2)),
        ("batch_norm_param { bias_term: false }", (3, 1)),
        ("batch_norm_param { use_weight_bias: false }", (3,)),
    ],
)
def test_three_four_and_five_blobs(settings: str, blobs: tuple[int, ...]) -> None:
    text = 'engine: "MKLDNN"' + FLAT + layer("b", "BatchNorm", "data", "b", settings) + layer("r", "ReLU", "b", "b")
    message = parse_text(text, dialect="extended")
    net = Net.from_message(message)
    draw = np.random.default_rng(0)
    weights: Weights = {"b": [draw.random(blob.shape, np.float32) for blob in net.layers[1].blobs]}
    net.load(weights, "w")
    for target, batch_norm in (("bvlc", "keep"), ("extended", "split"), ("intel", "split"), ("intel", "keep")):
        done = translate(message, target, weights, batch_norm=batch_norm)
        assert done.weights is not None
        found = tuple(len(one) for one in done.weights.values())
        filled = (3, 2) if target == "intel" and blobs == (3, 1) else blobs
        assert found == ((sum(blobs),) if batch_norm == "keep" and target != "bvlc" else filled)
        again = Net.from_message(done.net)
        again.load(done.weights, "translated")
        feed = {"data": draw.normal(size=(1, 2, 8, 8)).astype(np.float32)}
        fresh = Net.from_message(message)
        fresh.load(weights, "w")
        assert np.allclose(outputs(again, feed)["b"], outputs(fresh, feed)["b"], rtol=1e-5, atol=1e-6)


SCALE = layer("s", "Scale", "b", "b", "scale_param { bias_term: true } param { lr_mult: 5 }")


@pytest.mark.parametrize(
    ("text", "merged"),
    [
        (NORM + SCALE, True),
        (NORM + layer("s", "Scale", "b", "s") + layer("r", "ReLU", "s"), True),
        (layer("b", "BatchNorm", "data", "data") + layer("s", "Scale", "data", "data"), True),
        (NORM + layer("s", "Scale", "b", "s") + layer("r", "ReLU", "b"), False),
        (NORM + layer("r", "ReLU", "b") + layer("s", "Scale", "b", "s"), False),
        (NORM + layer("r", "ReLU", "b", "b") + SCALE, False),
        (NORM + layer("s", "Scale", "b", "b", "scale_param { axis: 2 }"), False),
        (NORM + layer("s", "Scale", "b", "b", "include { phase: TEST }"), False),
        (layer("b", "BatchNorm", "data", "b", "batch_norm_param { use_global_stats: false }") + SCALE, False),
        (NORM + layer("s", "Scale", "b", "b", 'param { name: "shared" }'), False),
    ],
)
def test_merging_only_where_nothing_reads_between(text: str, merged: bool) -> None:
    done = texts(FLAT + text, "extended", "intel", "merge")
    assert bool(only(done, "Scale")) != merged
    assert ("MKL2017" in done.text) == merged


def test_merging_keeps_the_learning_rates() -> None:
    (norm,) = only(texts(FLAT + NORM + SCALE, "extended", "extended", "merge"), "BatchNorm")
    still = "param { lr_mult: 0 decay_mult: 0 } " * 3
    assert norm.endswith(f'top: "b" {still}param {{ lr_mult: 5 }} batch_norm_param {{ }} engine: "MKL2017"')


def test_statistics_stay_as_still_as_they_were() -> None:
    """BVLC never learns them; the others do what param says."""
    still = " param { lr_mult: 0 decay_mult: 0 }" * 3
    assert still in only(texts(FLAT + NORM, "bvlc", "extended"), "BatchNorm")[0]
    loud = FLAT + layer("b", "BatchNorm", "data", "b", "param { lr_mult: 1 }")
    assert still in only(texts(loud, "extended", "bvlc"), "BatchNorm")[0]
    assert "lr_mult: 1" in only(texts(loud, "extended", "intel"), "BatchNorm")[0]


def test_a_scale_without_bias_gets_one_for_intel() -> None:
    weights: Weights = {"b": [np.zeros(2, np.float32)] * 2 + [np.ones(1, np.float32)], "s": [np.full(2, 3, np.float32)]}
    message = parse_text(FLAT + NORM + layer("s", "Scale", "b", "b"), dialect="extended")
    done = translate(message, "intel", weights)
    assert done.weights is not None
    assert [blob.tolist() for blob in done.weights["s"]] == [[3, 3], [0, 0]]
    (scale,) = only(done, "Scale")
    assert "param { } param { lr_mult: 0 decay_mult: 0 } scale_param { bias_term: true }" in scale


def test_engines_are_dropped_or_kept() -> None:
    text = FLAT + layer("c", "Convolution", "data", more='engine: "MKLDNN" ' + CONV + " engine: MKLDNN }")
    for target in ("intel", "extended"):
        assert 'engine: "MKLDNN"' in texts(text, "intel", target).text
    dropped = texts(text, "intel", "bvlc")
    assert "engine" not in dropped.text
    assert dropped.changes == (
        'layer "c" (Convolution): engine MKLDNN is dropped',
        'layer "c" (Convolution): engine "MKLDNN" is dropped',
    )
    assert (
        "engine: CUDNN" in texts(text.replace('engine: "MKLDNN"', "").replace("MKLDNN", "CUDNN"), "intel", "bvlc").text
    )


LOSS = data(2, 3, 4, 4) + data(2, 3, 4, 4).replace("data", "label")
SIGMOID = (
    'layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "data" bottom: "label" top: "l" loss_weight: 2 %s }'
)


@pytest.mark.parametrize(
    ("settings", "origin", "target", "written"),
    [
        ("", "intel", "bvlc", ""),
        (
            "loss_param { normalization: VALID ignore_label: 1 }",
            "intel",
            "bvlc",
            "loss_param { normalization: BATCH_SIZE }",
        ),
        ("loss_param { normalization: NONE }", "intel", "extended", "loss_param { normalization: NONE }"),
        ("loss_param { normalize: false }", "bvlc", "intel", "loss_param { normalize: false }"),
    ],
)
def test_the_loss_that_intel_reads_in_its_own_way(settings: str, origin: str, target: str, written: str) -> None:
    text = LOSS + SIGMOID % settings
    done = texts(text, origin, target)
    assert written in only(done, "SigmoidCrossEntropyLoss")[0]
    draw = np.random.default_rng(0)
    feed = {blob: draw.random((2, 3, 4, 4), np.float32).round() for blob in ("data", "label")}
    before, after = (outputs(Net.from_message(one), feed) for one in (parse_text(text, dialect=origin), done.net))
    assert np.array_equal(before["l"], after["l"])


def test_a_net_whose_images_come_from_files_is_translated_as_two_dimensional() -> None:
    text = 'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 } }\n'
    text += layer("p", "Pooling", "data", more="pooling_param { kernel_size: 2 }")
    assert "kernel_size: 2" in only(texts(text, "bvlc", "intel"), "Pooling")[0]
    unknown = text.replace('"Data"', '"HDF5Data"').replace("data_param { source", "hdf5_data_param { source")
    with pytest.raises(PrototxtError, match="HDF5Data"):
        texts(unknown, "bvlc", "intel")


def test_files(tmp_path: Path) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_text("# a comment\n" + FLAT + layer("b", "BatchNorm", "data", more='engine: "MKL2017"'))
    ones = np.ones(2, np.float32)
    write_caffemodel(weights, {"b": [ones, ones, ones[:1], ones, ones]}, "n", {})
    done = translate_files(net, "bvlc", tmp_path / "out", weights)
    assert [path.name for path in done.files] == ["net.prototxt", "net.caffemodel"]
    assert json.loads(json.dumps(done.as_json()))["changes"] == list(done.translation.changes)
    assert set(read_caffemodel(tmp_path / "out" / "net.caffemodel")) == {"b", "b_scale"}
    done = translate_files(net, "intel", tmp_path / "x.prototxt", weights, tmp_path / "x.caffemodel.h5")
    assert set(read_caffemodel(tmp_path / "x.caffemodel.h5")) == {"b"}
    assert done.lines()[-1].startswith("wrote ")
    for out in (tmp_path, net):
        with pytest.raises(NetError, match="would replace what is read"):
            translate_files(net, "intel", out, weights)
    with pytest.raises(NetError, match="no weights given"):
        translate_files(net, "intel", tmp_path / "y.prototxt", None, tmp_path / "y.caffemodel")
    with pytest.raises(NetError, match="bvlc Caffe has no BatchNorm with gamma"):
        translate_files(net, "bvlc", tmp_path / "z", batch_norm="merge")
    with pytest.raises(NetError, match='no dialect "nvidia"'):
        translate_files(net, "nvidia", tmp_path / "z")
    assert not (tmp_path / "z").exists()


def test_the_message_that_is_translated_stays_as_it_was() -> None:
    message = parse_text(FLAT + layer("b", "BatchNorm", "data", "b", MKL + RULES), dialect="extended")
    before = write_text(message)
    translate(message, "bvlc")
    assert write_text(message) == before


SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 9 '


@pytest.mark.parametrize(
    ("more", "origin", "target", "written"),
    [
        ("solver_type: NESTEROV", "bvlc", "extended", 'type: "Nesterov"'),
        ("layer_wise_reduce: true snapshot_format: HDF5", "bvlc", "intel", "snapshot_format: HDF5"),
        ('type: "Adam" delta: 0.001', "extended", "bvlc", "delta: 0.001"),
        ("show_per_class_result: false", "extended", "bvlc", "max_iter: 9"),
    ],
)
def test_solvers(more: str, origin: str, target: str, written: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER + more)
    done = translate_files(path, target, tmp_path / "out", dialect=origin)
    text = done.files[0].read_text()
    assert written in text
    assert not {"layer_wise_reduce", "show_per_class_result", "solver_type"} & set(text.split(": "))
    google.Parse(text, message_class("SolverParameter", target)())
    assert done.translation.changes[-1] == "net still names net.prototxt: translate it too"


@pytest.mark.parametrize(
    ("more", "origin", "target", "message"),
    [
        ('\nweights: "w.caffemodel"', "bvlc", "extended", "solver.prototxt:2: the solver: weights .*only bvlc know it"),
        ("\nlayer_wise_reduce: false", "bvlc", "intel", "solver.prototxt:2: the solver: layer_wise_reduce False"),
        ('type: "RMSProp" momentum: 0.5', "intel", "extended", "RMSProp knows no momentum"),
    ],
)
def test_what_a_solver_cannot_be(more: str, origin: str, target: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER + more)
    with pytest.raises(PrototxtError, match=message):
        translate_files(path, target, tmp_path / "out", dialect=origin)
    path.write_text(SOLVER.replace("fixed", "plateau"))
    with pytest.raises(PrototxtError, match='"plateau" cannot be written for bvlc'):
        translate_files(path, "bvlc", tmp_path / "out", dialect="extended")
    with pytest.raises(NetError, match="is a solver, which has no weights"):
        translate_files(path, "intel", tmp_path / "out", path)
    assert not (tmp_path / "out").exists()
