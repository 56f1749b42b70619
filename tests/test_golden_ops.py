"""Every layer type against outputs of Extended Caffe, in PyTorch, ONNX Runtime and OpenVINO."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from caffe_golden import Case, assert_close, op_folders, read_case
from conftest import data_folder, need

torch = pytest.importorskip("torch")

FOLDERS = op_folders("extended")
LOSSES = {name for name in FOLDERS if "loss" in name}
RELATIVE = 1e-5


@lru_cache(maxsize=4)
def case_of(folder: Path) -> Case:
    """Read once for the engines, which follow one another."""
    return read_case(folder, "extended")


def test_the_data_folder_has_all_cases() -> None:
    need(data_folder() / "caffe_golden")
    assert len(FOLDERS) == 217


def check_in_torch(case: Case) -> None:
    net = case.net if case.net.on_torch else case.net.to_torch()
    inputs = {blob: torch.from_numpy(array.copy()) for blob, array in case.inputs.items()}
    for blob in case.gradients:
        inputs[blob].requires_grad_()
    values = net.forward(inputs, keep=case.middle)
    assert set(net.outputs) == set(case.outputs)
    for blob, wanted in {**case.outputs, **case.middle}.items():
        assert_close(values[blob].detach(), wanted, RELATIVE, blob)
        assert net.shapes[blob] == wanted.shape
    if net.loss_tops:
        net.total_loss(values).backward()  # type: ignore[no-untyped-call]
    for blob, wanted in case.gradients.items():
        gradient = inputs[blob].grad if net.loss_tops else torch.zeros_like(inputs[blob])
        assert_close(gradient, wanted, RELATIVE, f"gradient of {blob}")


@pytest.mark.parametrize("name", FOLDERS)
def test_torch(name: str) -> None:
    check_in_torch(case_of(FOLDERS[name]))


@pytest.mark.parametrize(("dialect", "count"), [("bvlc", 194), ("intel", 210)])
def test_other_dialects(dialect: str, count: int) -> None:
    need(data_folder() / "caffe_golden")
    folders = op_folders(dialect)
    assert len(folders) == count
    for name, folder in folders.items():
        try:
            check_in_torch(read_case(folder, dialect))
        except Exception as error:
            pytest.fail(f"{dialect} {name}: {error}")


@pytest.mark.parametrize("name", sorted(set(FOLDERS) - LOSSES))
def test_onnxruntime_and_openvino(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from convert.to_onnx import net_to_onnx

    case = case_of(FOLDERS[name])
    model = net_to_onnx(case.net).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    blobs = [output.name for output in session.get_outputs()]
    for blob, found in zip(blobs, session.run(blobs, case.inputs), strict=True):
        assert_close(found, case.outputs[blob], RELATIVE, f"onnxruntime {blob}")
    compiled = openvino_core().compile_model(openvino_core().read_model(model, b""), "CPU", OPENVINO)
    found = compiled(case.inputs)
    for port in compiled.outputs:
        assert_close(found[port], case.outputs[port.any_name], RELATIVE, f"openvino {port.any_name}")


OPENVINO = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


@lru_cache(maxsize=1)
def openvino_core():  # type: ignore[no-untyped-def]
    return pytest.importorskip("openvino").Core()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_refused_by_onnx(name: str) -> None:
    from caffe_models.errors import NetError
    from convert.to_onnx import net_to_onnx

    with pytest.raises(NetError, match=r"deploy.prototxt:\d+: layer .* has no ONNX form"):
        net_to_onnx(case_of(FOLDERS[name]).net)


def test_blobs_follow_the_input_size() -> None:
    """A net declared at 5 x 6 x 7 also runs at other sizes, with the sizes Caffe would infer."""
    net = read_case(FOLDERS["conv3d_k3p1s2"], "extended").net.to_torch()
    shapes = net.infer({"data": (1, 3, 9, 4, 12)})
    top = net.forward({"data": torch.from_numpy(np.zeros((1, 3, 9, 4, 12), np.float32))})[net.outputs[0]]
    assert tuple(top.shape) == shapes[net.outputs[0]] == (1, 4, 5, 2, 6)
