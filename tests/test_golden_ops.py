"""Every operator case of the three Caffes, in PyTorch (losses with their gradients), ONNX Runtime and OpenVINO.

A case is left out of an engine only where a layer of its net says so itself (`Layer.no_onnx`, which `docs/layers.md`
shows); the test then asserts the refusal and its reason.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from caffe_golden import Array, Case, assert_close, op_folders, openvino_core, read_case, session_of
from conftest import data_folder, need

from caffe_models.errors import NetError, PrototxtError
from caffe_models.net import Net

torch = pytest.importorskip("torch")

RELATIVE = 1e-5
COUNTS = {"bvlc": 194, "extended": 217, "intel": 210}
FOLDERS = {(dialect, name): folder for dialect in COUNTS for name, folder in op_folders(dialect).items()}


@lru_cache(maxsize=2)
def case_of(folder: Path, dialect: str) -> Case:
    """Read once for the engines, which follow one another. In NumPy: ONNX is written from it, torch takes another."""
    return read_case(folder, dialect)


@lru_cache(maxsize=2)
def onnx_of(folder: Path, dialect: str) -> bytes:
    from convert.to_onnx import net_to_onnx

    model: bytes = net_to_onnx(case_of(folder, dialect).net).SerializeToString()
    return model


@pytest.mark.parametrize("dialect", COUNTS)
def test_the_data_folder_has_all_cases(dialect: str) -> None:
    need(data_folder() / "caffe_golden")
    assert sum(key[0] == dialect for key in FOLDERS) == COUNTS[dialect]


def torch_values(folder: Path, dialect: str) -> None:
    case = read_case(folder, dialect)
    net = case.net.to_torch()
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


def onnxruntime_values(folder: Path, dialect: str) -> None:
    case = case_of(folder, dialect)
    session = session_of(onnx_of(folder, dialect))
    blobs = [output.name for output in session.get_outputs()]
    assert set(blobs) == set(case.outputs)
    for blob, found in zip(blobs, session.run(blobs, case.inputs), strict=True):
        assert_close(found, case.outputs[blob], RELATIVE, blob)


def openvino_values(folder: Path, dialect: str) -> None:
    case = case_of(folder, dialect)
    found = openvino_core()(onnx_of(folder, dialect), case.inputs)
    assert set(found) >= set(case.outputs)
    for blob, wanted in case.outputs.items():
        assert_close(found[blob], wanted, RELATIVE, blob)


ENGINES: dict[str, Callable[[Path, str], None]] = {
    "torch": torch_values,
    "onnxruntime": onnxruntime_values,
    "openvino": openvino_values,
}


def refusals(net: Net) -> list[str]:
    """Why the net cannot leave PyTorch, of each layer that cannot."""
    return [type(layer).no_onnx for layer in net.layers if type(layer).no_onnx]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("dialect", "name"), FOLDERS, ids=[f"{dialect}-{name}" for dialect, name in FOLDERS])
def test_case(dialect: str, name: str, engine: str) -> None:
    folder = FOLDERS[dialect, name]
    reasons = [] if engine == "torch" else refusals(case_of(folder, dialect).net)
    if not reasons:
        ENGINES[engine](folder, dialect)
        return
    with pytest.raises(NetError, match=rf"deploy.prototxt:\d+: layer .* has no ONNX form \({reasons[0]}\)"):
        onnx_of(folder, dialect)


def test_only_cases_with_losses_are_refused_outside_torch() -> None:
    """What the registry may say: no type that computes something in a deploy net is refused among the cases."""
    refused = {name for (dialect, name), folder in FOLDERS.items() if refusals(case_of(folder, dialect).net)}
    assert refused == {name for _, name in FOLDERS if "loss" in name}


OF_ONE_SIZE = {
    "bias3d_axis1_num2": "a blob covers a spatial axis",
    "bias3d_two_bottoms": "the second bottom covers a spatial axis",
    "flatten_ip_softmax": "weights for one size",
    "ip_axis23d": "weights for one size",
    "ip_direct3d": "weights for one size",
    "ip_transpose_nobias3d": "weights for one size",
    "reshape_split3d": "an extent stands in the text",
    "scale3d_axis1_num2": "a blob covers a spatial axis",
    "scale3d_axis2_num1": "a blob covers a spatial axis",
    "scale3d_axis_neg2_numall": "a blob covers spatial axes",
    "slice_axis_neg1": "an odd extent has no two equal halves",
}
"""Cases that Caffe itself cannot run at another size."""


@pytest.mark.parametrize("name", [name for dialect, name in FOLDERS if dialect == "extended" and "loss" not in name])
def test_another_size_than_declared(name: str) -> None:
    """The exported net, never told that size, agrees with PyTorch at it; Caffe's shape rule says what comes out."""
    folder = FOLDERS["extended", name]
    case = case_of(folder, "extended")
    shapes = {
        blob: (*array.shape[:2], *(extent + 2 * place + 1 for place, extent in enumerate(array.shape[2:])))
        for blob, array in case.inputs.items()
    }
    if name in OF_ONE_SIZE:
        with pytest.raises((PrototxtError, NetError)):
            case.net.infer(shapes)
        return
    wanted = case.net.infer(shapes)
    inputs: dict[str, Array] = {blob: np.resize(case.inputs[blob], shape) for blob, shape in shapes.items()}
    net = read_case(folder, "extended").net.to_torch()
    values = net.forward({blob: torch.from_numpy(array.copy()) for blob, array in inputs.items()})
    session = session_of(onnx_of(folder, "extended"))
    blobs = [output.name for output in session.get_outputs()]
    in_openvino = openvino_core()(onnx_of(folder, "extended"), inputs)
    for blob, found in zip(blobs, session.run(blobs, inputs), strict=True):
        assert found.shape == wanted[blob]
        assert_close(found, values[blob].numpy(), RELATIVE, f"onnxruntime {blob}")
        assert_close(in_openvino[blob], values[blob].numpy(), RELATIVE, f"openvino {blob}")
