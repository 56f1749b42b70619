"""Texts that real Caffe was given, most of them wrong: what it refused is refused, what it took is taken.

Case by build (bvlc, extended, intel), from `caffe_golden/errors.json`. A refusal must name file and line, and the
layer or field with what was found; what can only be a mistake and Caffe takes in silence must be warned about.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import data_folder, need

from caffe_models.errors import CaffeWarning, Rpn3dError
from caffe_models.net import Net
from caffe_models.weights import read_caffemodel, write_caffemodel

DIALECTS = ("bvlc", "extended", "intel")

ON_PURPOSE = {
    "engine_mkl2017_on_layer": "builds with MKL take it, those of the data have no MKL; BVLC knows no engine",
    "inplace_not_allowed_conv": "Caffe overwrites its own input while it convolves: the numbers mean nothing",
    "zero_input_dim": "Extended and Intel compute nothing on nothing",
    "load_text_instead_of_binary": "Caffe takes a text as an empty caffemodel and keeps the initial weights",
}
"""Where we differ from what that Caffe did, and why."""

REFUSED: dict[str, str] = {
    "unknown_layer_type": r'^x.prototxt:5: layer "c" \(Convolution3D\): a type of another fork .*write type: "Conv',
    "unknown_field_in_param": r'^x.prototxt:10: message ConvolutionParameter has no field "kernel_d" .*allowed: num_',
    "unknown_field_in_layer": r'^x.prototxt:10: message LayerParameter has no field "foo_param"',
    "wrong_value_type": r'^x.prototxt:10: kernel_size takes a whole number, found "three"',
    "fractional_integer": r"^x.prototxt:10: pad takes a whole number, found 1.5",
    "unbalanced_braces": r'^x.prototxt:5: the text ends inside LayerParameter: the "{" of line 5',
    "engine_field_on_layer": r'^x.prototxt:10: message LayerParameter has no field "engine" .*extended has it',
    "engine_mkl2017_on_layer": r'^x.prototxt:10: message LayerParameter has no field "engine"',
    "missing_bottom_blob": r'^x.prototxt:5: layer "c" .*bottom "nowhere" is made by no layer',
    "too_many_bottoms": r'^x.prototxt:5: layer "r" \(ReLU\): has 2 bottom\(s\), allowed: 1',
    "no_top_given": r'^x.prototxt:5: layer "r" \(ReLU\): has 0 top\(s\), allowed: 1',
    "duplicate_top": r'^x.prototxt:12: layer "c2" .*top "c1" is made already by layer "c1" \(line 5\)',
    "inplace_not_allowed_conv": r'^x.prototxt:5: layer "c" \(Convolution\): cannot work in place',
    "cyclic": r'^x.prototxt:5: layer "a" .*bottom "b" .*layer "b" at line 12 makes it later',
    "eltwise_shape_mismatch": r'^x.prototxt:12: layer "e" .*\(1, 2, 4, 5, 6\), \(1, 3, 4, 5, 6\); all must be equal',
    "eltwise_coeff_with_prod": r'^x.prototxt:\d+: layer "e" .*coeff is for operation SUM, not PROD',
    "concat_shape_mismatch": r'^x.prototxt:12: layer "o" .*\(1, 2, 2, 3, 4\); all extents but that of axis 1',
    "concat_axis_out_of_range": r'^x.prototxt:\d+: layer "o" .*axis 5 is outside a blob of 5 axes; allowed: -5 to 4',
    "kernel_larger_than_padded_input": r'^x.prototxt:5: layer "c" .*\(1, 2, -2, -1, 0\) .* too small',
    "pool_pad_not_smaller_than_kernel": r'^x.prototxt:\d+: layer "p" .*pad \(2, 2, 2\) must be smaller than',
    "pool_no_kernel": r'^x.prototxt:10: layer "p" .*kernel_size',
    "pool_other_dialect_kernel_size_3d": r'^x.prototxt:10: .*no field "kernel_size_3d" .*dialect intel has it',
    "pool_scalar_kernel_size_on_5d": r'^x.prototxt:10: layer "p" .*5 axes need kernel_size_3d',
    "pool_repeated_kernel_size_on_5d": r"^x.prototxt:10: PoolingParameter.kernel_size is given twice",
    "conv_no_kernel": r'^x.prototxt:10: layer "c" .*kernel_size is missing',
    "conv_kernel_h_on_5d": r'^x.prototxt:\d+: layer "c" .*given 2 times for 3 spatial axes \(_h and _w are for two\)',
    "conv_group_not_dividing_input": r'^x.prototxt:5: layer "c" .*3 channels .* group 2',
    "conv_num_output_zero": r'^x.prototxt:\d+: layer "c" .*num_output 0',
    "conv_stride_zero": r'^x.prototxt:10: layer "c" .*stride \(0,\) must be 1 or more',
    "negative_input_dim": r'^x.prototxt:3: layer "data" .*\(1, 2, -4, 5, 6\); every extent must be 1 or more',
    "zero_input_dim": r'^x.prototxt:3: layer "data" .*\(1, 2, 0, 5, 6\); every extent must be 1 or more',
    "input_layer_without_shape": r'^x.prototxt:1: layer "data" \(Input\): 0 shape for 1 tops',
    "legacy_input_without_shape": r"^x.prototxt:1: 1 input, 0 input_shape and 0 input_dim",
    "batchnorm_too_many_param_specs": r'^x.prototxt:5: layer "b" .*4 param entries for 3 blobs',
    "scale_shape_mismatch_two_bottoms": r'^x.prototxt:9: layer "s" .*\(3,\) does not fit \(1, 2, 4, 5, 6\) from axis 1',
    "reshape_count_mismatch": r'^x.prototxt:\d+: layer "r" .*\(0, 7\) of a bottom of shape \(1, 2, 4, 5, 6\)',
    "reshape_two_inferred": r'^x.prototxt:10: layer "r" .*shape \(-1, -1\); allowed: .*at most one -1',
    "slice_not_divisible": r'^x.prototxt:\d+: layer "s" .*3 along axis 1 cannot be cut into 2 equal tops',
    "slice_points_count": r'^x.prototxt:\d+: layer "s" .*2 slice_point for 2 tops; 1 ',
    "crop_offset_too_large": r'^x.prototxt:\d+: layer "o" .*offset \(2, 2, 2\) plus \(3, 3, 3\) exceeds',
    "permute_repeated_order": r'^x.prototxt:10: layer "p" \(Permute\): order \(0, 0\) names an axis twice',
    "softmax_axis_out_of_range": r'^x.prototxt:\d+: layer "s" .*axis 5 is outside a blob of 5 axes; allowed: -5 to 4',
    "include_and_exclude": r'^x.prototxt:5: layer "r": has include and exclude rules',
    "sigmoid_ce_count_mismatch": r'^x.prototxt:9: layer "l" .*\(1, 2, 4, 5\) and \(1, 3, 4, 5\)',
    "load_wrong_blob_count": r'^w.caffemodel: layer "c" has 2 blobs, the net \(x.prototxt:5, Convolution\) needs 1',
    "load_wrong_blob_shape_num_output": r'^w.caffemodel: layer "c": blob 0 .*\(2, 2, 3, 3, 3\).*\(3, 2, 3, 3, 3\)',
    "load_wrong_blob_shape_same_count": r'^w.caffemodel: layer "c": blob 0 .*\(2, 2, 3, 3, 3\).*\(2, 2, 1, 3, 9\)',
    "load_text_instead_of_binary": r"^w.caffemodel: not a .caffemodel: it is a text file",
    "load_missing_file": r"^w.caffemodel: cannot be read: No such file",
    "solver_unknown_type": r'^solver.prototxt:1: unknown solver type "LBFGS" \(known types: AdaDelta, AdaGrad, Adam',
    "solver_unknown_lr_policy": r'^solver.prototxt:1: unknown lr_policy "cosine" \(known: fixed, ',
    "solver_unknown_regularization": r'^solver.prototxt:1: regularization_type "L3"; allowed: L1, L2',
    "solver_rmsprop_with_momentum": r"^solver.prototxt:1: type RMSProp knows no momentum, found 0.9",
    "solver_rmsprop_decay_out_of_range": r"^solver.prototxt:1: rms_decay is 1.5; allowed: 0 to less than 1",
    "solver_no_lr_policy": r"^solver.prototxt:1: lr_policy is missing \(known: fixed, ",
    "solver_step_without_stepsize": r'^solver.prototxt:1: lr_policy "step" needs a stepsize of 1 or more, found 0',
}
"""How our message reads, in every build that is refused but those of `REFUSED_BY`."""

REFUSED_BY = {
    ("permute_repeated_order", "bvlc"): r'^x.prototxt:10: message LayerParameter has no field "permute_param"',
    ("pool_pad_not_smaller_than_kernel", "bvlc"): r'layer "p" .*\(1, 2, 4, 5, 6\); allowed: 4 axes in the bvlc dialect',
    ("pool_scalar_kernel_size_on_5d", "bvlc"): r'layer "p" .*\(1, 2, 4, 5, 6\); allowed: 4 axes in the bvlc dialect',
}

WARNED: dict[str, str] = {
    "duplicate_layer_name": r'^x.prototxt:12: layer "c" \(ReLU\): line 5 has a layer of this name',
    "dropout_ratio_one": r'^x.prototxt:10: layer "dd" \(Dropout\): dropout_ratio 1 ',
    "batchnorm_lr_not_zero": r'^x.prototxt:10: layer "b" \(BatchNorm\): param with lr_mult 1 for statistics',
    "load_missing_layer_keeps_initial_values": (
        r'^w.caffemodel: holds no weights for layer "other" of x.prototxt; they keep.*\n'
        r'w.caffemodel: layer "c", "b" is not in x.prototxt and is ignored$'
    ),
    "load_extra_layer_ignored": r'^w.caffemodel: layer "b" is not in x.prototxt and is ignored$',
}
"""What is taken, with a warning."""


def cases() -> dict[str, Any]:
    path = data_folder() / "caffe_golden" / "errors.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def run(name: str, case: dict[str, Any], dialect: str) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Read, load and run what the case says; shapes of the outputs, and the first weight of each layer."""
    torch = pytest.importorskip("torch")
    Path("x.prototxt").write_text(case.get("prototxt") or case["prototxt_by_dialect"][dialect])
    if "solver_prototxt" in case:
        from caffe_models.solver import Solver

        Path("solver.prototxt").write_text(case["solver_prototxt"])
        solver = Solver.from_prototxt("solver.prototxt", dialect=dialect)
        for _ in range(2):
            solver.step({blob: torch.rand(shape) for blob, shape in solver.net.inputs.items()})
        return {blob: list(solver.net.shapes[blob]) for blob in solver.net.outputs}, {}
    net = Net.from_prototxt("x.prototxt", case["phase"], dialect)
    saved = case.get("weights_saved_from_prototxt")
    if saved is not None:
        Path("saved.prototxt").write_text(saved)
        if name == "load_text_instead_of_binary":
            Path("w.caffemodel").write_text(saved)
        else:
            other = Net.from_prototxt("saved.prototxt", "TEST", dialect)
            halves = {layer: [np.full_like(blob, 0.5) for blob in blobs] for layer, blobs in other.weights().items()}
            write_caffemodel("w.caffemodel", halves, "saved", other.layer_types)
    if name.startswith("load_"):
        net.load(read_caffemodel("w.caffemodel"), "w.caffemodel")
    found = net.to_torch().forward({blob: torch.rand(shape) for blob, shape in net.inputs.items()})
    first = {layer: float(blobs[0].flat[0]) for layer, blobs in net.weights().items()}
    return {blob: list(found[blob].shape) for blob in net.outputs}, first


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", sorted(cases()) or ["the data folder is missing"])
def test_as_real_caffe(name: str, dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(data_folder() / "caffe_golden" / "errors.json")
    case = cases()[name]
    build = case["builds"][dialect]
    monkeypatch.chdir(tmp_path)
    message = ""
    outputs: dict[str, list[int]] = {}
    first: dict[str, float] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CaffeWarning)
        try:
            outputs, first = run(name, case, dialect)
        except Rpn3dError as error:
            message = str(error)
    said = [str(one.message) for one in caught if issubclass(one.category, CaffeWarning)]
    refused = build["fails"] or name in ON_PURPOSE
    if name == "engine_mkl2017_on_layer":
        refused = dialect == "bvlc"
    assert bool(message) == refused, message or f"Caffe says: {build.get('message')}"
    if refused:
        wanted = REFUSED_BY.get((name, dialect)) or REFUSED[name]
        assert re.search(wanted, message), message
        assert "\n" not in message
        return
    if not build["fails"]:
        assert outputs == build["outputs"]
        for layer, value in build.get("first_weight_after_load", {}).items():
            assert first[layer] == value
    if name in WARNED:
        assert re.search(WARNED[name], "\n".join(said)), said
    else:
        assert said == []


def test_an_unknown_type_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "x.prototxt").write_text('\nlayer { name: "c" type: "Convolutoin" bottom: "data" top: "c" }')
    with pytest.raises(
        Rpn3dError, match=r':2: layer "c": unknown type "Convolutoin", .* Convolution\? \(known: AbsVal,'
    ):
        Net.from_prototxt(tmp_path / "x.prototxt")


def test_nothing_is_left_out() -> None:
    """64 cases, each refused, warned about, or good; and a deviation for every case that the table names."""
    found = cases() or need(data_folder() / "caffe_golden" / "errors.json")
    assert isinstance(found, dict)
    assert len(found) == 64
    refused_somewhere = {name for name, case in found.items() if any(b["fails"] for b in case["builds"].values())}
    assert set(REFUSED) == refused_somewhere | {name for name in ON_PURPOSE if name in REFUSED}
    assert set(WARNED) <= set(found) - set(REFUSED)
    assert set(ON_PURPOSE) <= set(found)
