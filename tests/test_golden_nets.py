"""Whole nets against outputs of real Caffe, in three engines."""

import pytest
from caffe_golden import assert_close, net_folder, read_case

torch = pytest.importorskip("torch")

RELATIVE = 1e-4
RPN = [
    ("rpn_scale", "32"),
    ("rpn_scale", "32x48x64"),
    ("rpn_plain", "32"),
    ("rpn_plain", "32x48x64"),
    ("rpn_bn5", "32"),
]
OTHERS = [("bn5", "extended"), ("legacy_v1", "bvlc"), ("unet2d", "bvlc"), ("unet2d_crop", "bvlc")]
OTHERS += [("vnet3d", "extended"), ("vnet3d_elu", "bvlc")]


def three_engines(folder: str, dialect: str, text: str = "deploy.prototxt", io: str = "io.npz") -> None:
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    from convert.to_onnx import net_to_onnx

    case = read_case(net_folder(folder), dialect, text, io)
    model = net_to_onnx(case.net).SerializeToString()
    net = case.net.to_torch()
    with torch.inference_mode():
        values = net.forward({blob: torch.from_numpy(a) for blob, a in case.inputs.items()}, keep=case.middle)
    for blob, wanted in {**case.outputs, **case.middle}.items():
        assert_close(values[blob], wanted, RELATIVE, f"torch {blob}")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)
    found = compiled(case.inputs)
    for blob, wanted in case.outputs.items():
        assert_close(session.run([blob], case.inputs)[0], wanted, RELATIVE, f"onnxruntime {blob}")
        assert_close(found[blob], wanted, RELATIVE, f"openvino {blob}")


@pytest.mark.parametrize(("folder", "size"), RPN)
def test_region_proposal_nets(folder: str, size: str) -> None:
    three_engines(folder, "extended", f"deploy_{size}.prototxt", f"io_{size}.npz")


@pytest.mark.parametrize(("folder", "size"), [("rpn_scale", "32x48x64"), ("rpn_plain", "32x48x64")])
def test_one_net_serves_every_size(folder: str, size: str) -> None:
    """The text for 32 x 32 x 32, fed with 32 x 48 x 64."""
    three_engines(folder, "extended", "deploy_32.prototxt", f"io_{size}.npz")


def test_intel_dialect() -> None:
    three_engines("rpn_scale_intel", "intel", "deploy_32.prototxt", "io_32.npz")


@pytest.mark.parametrize(("folder", "dialect"), OTHERS)
def test_other_nets(folder: str, dialect: str) -> None:
    three_engines(folder, dialect)


TOPOLOGY = ["bvlc_2d", "extended_2d", "extended_3d", "intel_2d", "intel_3d", "intel_3d_folded"]


@pytest.mark.parametrize("name", [*TOPOLOGY, "bvlc_3d_serialised_only"])
def test_topology_comes_from_the_text(name: str) -> None:
    """Files of three dialects; the folded one has no blobs for a BatchNorm and a Scale that the text lists."""
    three_engines(f"topology/{name}", "extended" if "serialised" in name else name.split("_")[0])
