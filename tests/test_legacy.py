"""Texts and weights of 2013 (V0) and 2014 (V1): the same net in all three forms gives the same outputs."""

from pathlib import Path

import numpy as np
import pytest
from protobuf_oracle import message_class

from caffe_models.errors import PrototxtError
from caffe_models.legacy import is_legacy, modern_layers
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from caffe_models.weights import read_caffemodel
from caffe_models.wire import encode

INPUT = 'name: "old" input: "data" input_dim: 1 input_dim: 4 input_dim: 9 input_dim: 8\n'
V0 = (
    INPUT
    + """
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "padded" }
layers { layer { name: "conv1" type: "conv" num_output: 6 kernelsize: 5 group: 2 stride: 2 biasterm: true
                 weight_filler { type: "gaussian" std: 0.1 } bias_filler { type: "constant" value: 0.5 }
                 blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }
         bottom: "padded" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.6 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "norm1" top: "norm1" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 biasterm: false weight_filler { type: "xavier" } }
         bottom: "norm1" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""
)
V1 = (
    INPUT
    + """
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 5 group: 2 stride: 2 pad: 2
    weight_filler { type: "gaussian" std: 0.1 } bias_filler { type: "constant" value: 0.5 } }
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "norm1" type: LRN bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 } }
layers { name: "drop" type: DROPOUT bottom: "norm1" top: "norm1" dropout_param { dropout_ratio: 0.3 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "norm1" top: "fc"
  inner_product_param { num_output: 5 bias_term: false weight_filler { type: "xavier" } } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""
)


@pytest.mark.parametrize("dialect", ["bvlc", "intel", "extended"])
def test_v0_and_v1_are_one_net(dialect: str) -> None:
    torch = pytest.importorskip("torch")
    nets = [Net.from_message(parse_text(text, dialect=dialect)) for text in (V0, V1)]
    data = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 9, 8)).astype(np.float32))
    for net in nets:
        net.fill(3)
    assert nets[0].shapes == nets[1].shapes
    assert [layer.spec.name for layer in nets[0].layers] == [layer.spec.name for layer in nets[1].layers]
    assert nets[0].layers[1].multipliers(1) == nets[1].layers[1].multipliers(1) == (2.0, 0.0)
    outputs = [net.to_torch().forward({"data": data})["prob"] for net in nets]
    assert torch.equal(outputs[0], outputs[1])
    assert outputs[0].shape == (1, 5)


def test_modern_form_of_each_layer() -> None:
    text = 'name: "old"\n' + "\n".join(
        [
            'layers { layer { name: "d" type: "data" source: "db" meanfile: "mean" batchsize: 8 scale: 0.5',
            'cropsize: 227 mirror: true rand_skip: 3 } top: "data" top: "label" }',
            'layers { layer { name: "i" type: "images" source: "list" new_height: 5 shuffle_images: true } top: "i" }',
            'layers { layer { name: "c" type: "concat" concat_dim: 1 } bottom: "data" bottom: "i" top: "c" }',
            'layers { layer { name: "o" type: "hdf5_output" hdf5_output_param { file_name: "f" } } bottom: "c" }',
        ]
    )
    data, images, concat, output = modern_layers(parse_text(text, dialect="bvlc"))
    assert data.get_str("type") == "Data"
    transform = data.get_message("transform_param")
    assert (transform.get_float("scale"), transform.get_str("mean_file")) == (0.5, "mean")
    assert (transform.get_int("crop_size"), transform.get_bool("mirror")) == (227, True)
    settings = data.get_message("data_param")
    assert (settings.get_str("source"), settings.get_int("batch_size"), settings.get_int("rand_skip")) == ("db", 8, 3)
    assert not settings.has("mirror")
    assert images.get_message("image_data_param").get_int("new_height") == 5
    assert images.get_message("image_data_param").get_bool("shuffle")
    assert concat.get_message("concat_param").get_int("concat_dim") == 1
    assert output.get_message("hdf5_output_param").get_str("file_name") == "f"


def test_transformations_of_v1_data_layers_move() -> None:
    text = (
        'layers { name: "d" type: DATA top: "data" data_param { source: "db" scale: 0.5 crop_size: 7 mirror: true } }'
    )
    (layer,) = modern_layers(parse_text(text, dialect="bvlc"))
    assert layer.get_message("data_param").names() == ("source",)
    assert layer.get_message("transform_param").names() == ("scale", "mirror", "crop_size")


def test_a_padding_layer_serves_several_readers() -> None:
    text = (
        INPUT
        + """
    layers { layer { name: "p" type: "padding" pad: 1 } bottom: "data" top: "p" }
    layers { layer { name: "a" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "a" }
    layers { layer { name: "b" type: "pool" kernelsize: 3 } bottom: "p" top: "b" }
    """
    )
    for dialect in ("bvlc", "extended"):
        net = Net.from_message(parse_text(text, dialect=dialect))
        assert [layer.spec.bottoms for layer in net.layers] == [(), ("data",), ("data",)]
        assert net.shapes["a"] == (1, 2, 9, 8)
        assert net.shapes["b"] == (1, 4, 9, 8)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            'layers { layer { name: "x" type: "warp" } }',
            r'<text>:2: layer "x" \(warp\): unknown V0 type \(known: accur',
        ),
        ('layers { layer { name: "x" type: "relu"\npool: AVE } }', r'<text>:3: layer "x" \(relu\): has pool, which'),
        (
            'layers { layer { name: "x" type: "relu" } }\nlayers { name: "y" type: RELU }',
            "<text>:3: a V1 layer among V0",
        ),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "data" top: "p" }\n'
            'layers { layer { name: "x" type: "relu" } bottom: "p" top: "x" }',
            r'layer "x" \(relu\): reads a padding layer; only conv and pool',
        ),
        ('layers { layer { name: "p" type: "padding" pad: 1 } top: "p" }', "takes one bottom"),
        ('layers { name: "x" type: NONE }', "V1 layer type NONE is not known"),
    ],
)
def test_mistakes_in_old_texts(layers: str, expected: str) -> None:
    with pytest.raises(PrototxtError, match=expected):
        modern_layers(parse_text(INPUT + layers, dialect="bvlc"))


def test_weights_of_2013(tmp_path: Path) -> None:
    """Blobs inside V0 layers, in four legacy extents, written by Google's protobuf."""
    torch = pytest.importorskip("torch")
    reference = Net.from_message(parse_text(V1, dialect="bvlc"))
    reference.fill(5)
    net = message_class("NetParameter", "bvlc")(name="old")
    for name, blobs in reference.weights().items():
        layer = net.layers.add().layer
        layer.name, layer.type = name, {"conv1": "conv", "fc": "innerproduct"}[name]
        for blob in blobs:
            made = layer.blobs.add()
            made.num, made.channels, made.height, made.width = (1,) * (4 - blob.ndim) + blob.shape
            made.data.extend(blob.reshape(-1).tolist())
    net.layers.add(top=["data"]).layer.name = "data"
    path = tmp_path / "old.caffemodel"
    path.write_bytes(net.SerializeToString())
    old = Net.from_message(parse_text(V0, dialect="bvlc"))
    assert old.load(read_caffemodel(path), str(path)).missing == ()
    data = torch.ones(1, 4, 9, 8)
    wanted, found = (one.to_torch().forward({"data": data})["prob"] for one in (reference, old))
    assert torch.equal(wanted, found)


def test_what_is_legacy() -> None:
    assert is_legacy(parse_text(V0))
    assert is_legacy(parse_text('input: "data"'))
    assert not is_legacy(parse_text('layer { name: "r" type: "ReLU" }'))
    assert encode(parse_text(V0, dialect="bvlc")) == message_class("NetParameter", "bvlc").FromString(
        encode(parse_text(V0, dialect="bvlc"))
    ).SerializeToString(deterministic=True)
