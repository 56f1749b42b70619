"""The exporter itself: names, single assignment, dynamic sizes, what is noted; layers have their own contract test."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import need
from onnx import numpy_helper

from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from caffe_models.weights import read_caffemodel
from convert.run_net import run_onnxruntime
from convert.to_onnx import GraphWriter, net_to_onnx, save_onnx

IN_PLACE = """
name: "small"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 6 dim: 8 } } }
layer { name: "c" type: "Convolution" bottom: "data" top: "x"
        convolution_param { num_output: 3 kernel_size: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "n" type: "BatchNorm" bottom: "x" top: "x" }
layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "s" type: "ReLU" bottom: "y" top: "y" }
"""


def net_of(text: str, phase: str = "TEST") -> Net:
    net = Net.from_message(parse_text(text, "NetParameter", "extended"), phase)
    net.fill(3)
    return net


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_in_place_layers_are_given_names_of_their_own() -> None:
    model = net_to_onnx(net_of(IN_PLACE))
    wiring = [(node.name, node.input[0], node.output[0]) for node in model.graph.node]
    assert wiring == [
        ("c", "data", "x_c"),
        ("n", "x_c", "x_n"),
        ("r", "x_n", "x"),  # the last writer of a blob gives it its name
        ("p", "x", "y_p"),
        ("s", "y_p", "y"),
    ]
    assert [value.name for value in model.graph.output] == ["y"]


def test_sizes_are_free_but_for_batch_and_channels() -> None:
    model = net_to_onnx(net_of(IN_PLACE))
    assert dims(model.graph.input[0]) == [2, 1, "data_d", "data_h", "data_w"]
    assert dims(model.graph.output[0]) == [2, 3, "y_d", "y_h", "y_w"]


def test_values(tmp_path: Path) -> None:
    net = net_of(IN_PLACE)
    net.layers[1].blobs[0][...] = np.array([2.0, -1.0, 0.5], np.float32).reshape(3, 1, 1, 1, 1)
    net.layers[2].blobs[1][...] = 1.0  # variance and factor 1: the BatchNorm changes nothing
    net.layers[2].blobs[2][...] = 1.0
    save_onnx(net_to_onnx(net), tmp_path / "m.onnx")
    data = np.arange(2 * 2 * 2 * 2, dtype=np.float32).reshape(2, 1, 2, 2, 2) - 10
    y = run_onnxruntime(tmp_path / "m.onnx", {"data": data})["y"]
    # largest of -10 .. -3 is -3, of -2 .. 5 is 5; the smallest, for weight -1, are -10 and -2
    np.testing.assert_allclose(y.reshape(2, 3), np.array([[0, 10, 0], [10, 2, 2.5]]), rtol=1e-4)


def test_what_is_noted() -> None:
    net = net_of(IN_PLACE)
    model = net_to_onnx(net)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert set(notes) == {"rpn3d_version", "source", "weights_sha256", "caffemodel_sha256"}
    assert len(notes["weights_sha256"]) == 64
    assert model.producer_name == "rpn3d"
    again = {entry.key: entry.value for entry in net_to_onnx(net_of(IN_PLACE)).metadata_props}
    assert again == notes
    net.layers[1].blobs[0][...] += 1
    other = {entry.key: entry.value for entry in net_to_onnx(net).metadata_props}
    assert other["weights_sha256"] != notes["weights_sha256"]


def test_weights_are_raw_float32() -> None:
    net = net_of(IN_PLACE)
    model = net_to_onnx(net)
    found = next(t for t in model.graph.initializer if t.dims == [3, 1, 1, 1, 1])
    assert found.raw_data
    np.testing.assert_array_equal(numpy_helper.to_array(found), net.layers[1].blobs[0])


def test_an_input_that_is_overwritten_keeps_its_name() -> None:
    model = net_to_onnx(
        net_of(
            'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }'
            'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }'
        )
    )
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["x_r"]


def test_losses_and_training_nets_are_refused() -> None:
    loss = IN_PLACE + (
        'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 3 dim: 2 dim: 3 dim: 4 } } }'
        'layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "y" bottom: "t" top: "loss" }'
    )
    with pytest.raises(NetError, match=r'<text>:\d+: layer "loss"'):
        net_to_onnx(net_of(loss))
    with pytest.raises(NetError, match=r"TRAIN phase.*read it in the TEST phase"):
        net_to_onnx(net_of(IN_PLACE, "TRAIN"))


def test_names_of_helpers() -> None:
    writer = GraphWriter(["x", "y"])
    assert writer.fresh("x") == "x_2"
    assert writer.fresh("x") == "x_3"
    assert writer.constant(np.zeros(1, np.float32), "w") == "w"
    assert writer.constant(np.zeros(1, np.float32), "w") == "w_2"
    writer.node("Sub", ["x", "w"], ["a"])
    writer.node("Sub", ["a", "w"], ["b"])
    writer.node("Relu", ["b"], ["y"])
    writer.name_nodes(0, "layer", ["y"])
    assert [node.name for node in writer.nodes] == ["layer/Sub", "layer/Sub_2", "layer"]


GOLDEN = ["rpn_plain", "rpn_scale", "rpn_scale_intel", "rpn_bn5"]
OTHERS = ["bn5", "legacy_v1", "unet2d", "unet2d_crop", "vnet3d", "vnet3d_elu"]


@pytest.mark.parametrize("name", [*GOLDEN, *OTHERS])
def test_real_caffe_gives_the_same(data_dir: Path, tmp_path: Path, name: str) -> None:
    folder = need(data_dir / "caffe_golden" / "nets" / name)
    net = Net.from_prototxt(folder / ("deploy_32.prototxt" if name in GOLDEN else "deploy.prototxt"))
    net.load(read_caffemodel(folder / "weights.caffemodel"), "weights.caffemodel")
    start = time.process_time()
    model = net_to_onnx(net)
    assert time.process_time() - start < 2.0
    save_onnx(model, tmp_path / "net.onnx")
    # one model serves every size
    for file in sorted(folder.glob("io*.npz")):
        blobs = np.load(file)
        inputs = {key[3:]: blobs[key] for key in blobs.files if key.startswith("in_")}
        found = run_onnxruntime(tmp_path / "net.onnx", inputs)
        for blob in net.outputs:
            truth = blobs[f"out_{blob}"]
            np.testing.assert_allclose(found[blob], truth, atol=1e-4 * float(np.abs(truth).max()), rtol=0)


def test_converting_needs_no_torch(tmp_path: Path, root: Path) -> None:
    (tmp_path / "net.prototxt").write_text(IN_PLACE)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from caffe_models.net import Net; from convert.to_onnx import net_to_onnx, save_onnx\n"
        "from convert.to_openvino import onnx_to_ir\n"
        "net = Net.from_prototxt(sys.argv[1] + '/net.prototxt'); net.fill(1)\n"
        "save_onnx(net_to_onnx(net), sys.argv[1] + '/net.onnx')\n"
        "onnx_to_ir(sys.argv[1] + '/net.onnx', sys.argv[1] + '/net.xml')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True)
    assert (tmp_path / "net.xml").exists()
    onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
