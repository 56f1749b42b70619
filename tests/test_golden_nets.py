"""Whole nets against outputs of real Caffe, in three engines: all io files of the data folder."""

import shutil
from pathlib import Path

import pytest
from caffe_golden import assert_close, net_folder, openvino_core, read_case, session_of
from conftest import data_folder, need

from caffe_models.net import Net

torch = pytest.importorskip("torch")

RELATIVE = 1e-4
CASES = [
    ("bn5", "extended", "deploy.prototxt", "io.npz", 0),
    ("legacy_v1", "bvlc", "deploy.prototxt", "io.npz", 1),
    ("rpn_bn5", "extended", "deploy_32.prototxt", "io_32.npz", 0),
    ("rpn_plain", "extended", "deploy_32.prototxt", "io_32.npz", 8),
    ("rpn_plain", "extended", "deploy_32x48x64.prototxt", "io_32x48x64.npz", 8),
    ("rpn_scale", "extended", "deploy_32.prototxt", "io_32.npz", 8),
    ("rpn_scale", "extended", "deploy_32x48x64.prototxt", "io_32x48x64.npz", 8),
    ("rpn_scale_intel", "intel", "deploy_32.prototxt", "io_32.npz", 0),
    ("topology/bvlc_2d", "bvlc", "deploy.prototxt", "io.npz", 1),
    # BVLC Caffe cannot run this net: its file is in BVLC's wire format, its outputs are Extended Caffe's
    ("topology/bvlc_3d_serialised_only", "extended", "deploy.prototxt", "io.npz", 1),
    ("topology/extended_2d", "extended", "deploy.prototxt", "io.npz", 1),
    ("topology/extended_3d", "extended", "deploy.prototxt", "io.npz", 1),
    ("topology/intel_2d", "intel", "deploy.prototxt", "io.npz", 1),
    ("topology/intel_3d", "intel", "deploy.prototxt", "io.npz", 1),
    ("topology/intel_3d_folded", "intel", "deploy.prototxt", "io.npz", 1),
    ("unet2d", "bvlc", "deploy.prototxt", "io.npz", 6),
    ("unet2d_crop", "bvlc", "deploy.prototxt", "io.npz", 5),
    ("vnet3d", "extended", "deploy.prototxt", "io.npz", 6),
    ("vnet3d_elu", "bvlc", "deploy.prototxt", "io.npz", 6),
]
"""Folder, dialect, text, arrays, and the number of blobs in the middle that are compared too."""


def test_all_io_files_are_cases() -> None:
    root = need(data_folder() / "caffe_golden" / "nets")
    found = {(str(path.parent.relative_to(root)), path.name) for path in root.rglob("io*.npz")}
    assert found == {(folder, io) for folder, _, _, io, _ in CASES}
    assert len(CASES) == len(found) == 19


def three_engines(folder: str, dialect: str, text: str, io: str, middle: int) -> None:
    """Outputs in every engine; blobs in the middle in PyTorch, which alone can be asked for them."""
    from convert.to_onnx import net_to_onnx

    case = read_case(net_folder(folder), dialect, text, io)
    assert len(case.middle) == middle
    model = net_to_onnx(case.net).SerializeToString()
    net = case.net.to_torch()
    with torch.inference_mode():
        values = net.forward({blob: torch.from_numpy(a) for blob, a in case.inputs.items()}, keep=case.middle)
    assert set(net.outputs) == set(case.outputs)
    for blob, wanted in {**case.outputs, **case.middle}.items():
        assert_close(values[blob], wanted, RELATIVE, f"torch {blob}")
    session, in_openvino = session_of(model), openvino_core()(model, case.inputs)
    for blob, wanted in case.outputs.items():
        assert_close(session.run([blob], case.inputs)[0], wanted, RELATIVE, f"onnxruntime {blob}")
        assert_close(in_openvino[blob], wanted, RELATIVE, f"openvino {blob}")


@pytest.mark.parametrize(
    ("folder", "dialect", "text", "io", "middle"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES]
)
def test_net(folder: str, dialect: str, text: str, io: str, middle: int) -> None:
    three_engines(folder, dialect, text, io, middle)


@pytest.mark.parametrize("folder", ["rpn_scale", "rpn_plain"])
def test_one_net_serves_every_size(folder: str) -> None:
    """The text for 32 x 32 x 32, fed with 32 x 48 x 64."""
    three_engines(folder, "extended", "deploy_32.prototxt", "io_32x48x64.npz", 8)


def test_five_blobs_are_batch_norm_and_scale(tmp_path: Path) -> None:
    """The net that Extended Caffe really ran for `bn5`: three blobs of BatchNorm and two of Scale."""
    folder = need(data_folder() / "caffe_golden" / "nets" / "bn5")
    shutil.copy(folder / "equivalent_bn_scale.prototxt", tmp_path / "deploy.prototxt")
    shutil.copy(folder / "equivalent_bn_scale.caffemodel", tmp_path / "weights.caffemodel")
    shutil.copy(folder / "io.npz", tmp_path / "io.npz")
    case, five = read_case(tmp_path, "extended"), read_case(folder, "extended")
    run = {blob: torch.from_numpy(array) for blob, array in case.inputs.items()}
    nets: list[Net] = [case.net.to_torch(), five.net.to_torch()]
    with torch.inference_mode():
        first, second = (net.forward(run)["out"] for net in nets)
    assert_close(first, case.outputs["out"], RELATIVE, "three and two")
    assert_close(second, first.numpy(), 1e-6, "five blobs against three and two")
