"""What single layers do beyond a table of numbers: draw at random, take what the caller hands in, refuse, warn."""

import warnings

import numpy as np
import pytest
from caffe_golden import openvino_core, session_of

from caffe_models.errors import CaffeWarning, NetError, PrototxtError
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from convert.to_onnx import net_to_onnx

torch = pytest.importorskip("torch")

DATA = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 50 dim: 2 dim: 4 dim: 3 dim: 5 } } }\n'
)
INPUT_2D = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 100 dim: 160 } } }\n'
)


def net_of(text: str, phase: str = "TEST", dialect: str = "extended") -> Net:
    return Net.from_message(parse_text(text, "NetParameter", dialect, "net.prototxt"), phase, dialect)


def one_layer(name: str, kind: str, bottom: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {more} }}\n'


def test_memory_data_is_an_input() -> None:
    """Its tops are handed in, for PyTorch and for the exported net alike."""
    sizes = "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"
    text = f'layer {{ name: "data" type: "MemoryData" top: "data" top: "label" {sizes} }}\n'
    net = net_of(text + one_layer("r", "ReLU", "data") + 'layer { name: "s" type: "Silence" bottom: "label" }\n')
    assert net.inputs == {"data": (2, 3, 4, 5), "label": (2,)}
    model = net_to_onnx(net).SerializeToString()
    feed = {"data": np.linspace(-1, 1, 120, dtype=np.float32).reshape(2, 3, 4, 5), "label": np.zeros(2, np.float32)}
    found = net.to_torch().forward({blob: torch.from_numpy(array) for blob, array in feed.items()})["r"]
    np.testing.assert_array_equal(found.numpy(), np.maximum(feed["data"], 0))
    np.testing.assert_array_equal(session_of(model).run(["r"], feed)[0], found.numpy())
    with pytest.raises(PrototxtError, match=r"batch_size, channels, height, width \(2, 0, 4, 5\); all must be 1"):
        net_of(text.replace("channels: 3", "channels: 0"))


def test_spatial_dropout_drops_whole_channels() -> None:
    text = DATA + one_layer("d", "SpatialDropout", "data", "spatial_dropout_param { dropout_ratio: 0.25 }")
    torch.manual_seed(3)
    feed = {"data": torch.ones(50, 2, 4, 3, 5)}
    train = net_of(text, "TRAIN").to_torch().forward(feed)["d"]
    channels = train.flatten(2)
    assert bool((channels == channels[..., :1]).all())
    kept = channels[..., 0] != 0
    assert 0.6 < float(kept.float().mean()) < 0.9
    np.testing.assert_allclose(channels[kept].numpy(), 4 / 3, rtol=1e-6)


def test_stochastic_pooling_draws_in_proportion() -> None:
    """A window of 1, 2, 0, 5: 1/8, 2/8, 0 and 5/8 of the draws; the gradient goes to the value drawn."""
    more = "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"
    net = net_of(INPUT_2D + one_layer("p", "Pooling", "data", more), "TRAIN").to_torch()
    torch.manual_seed(1)
    data = torch.tensor([[1.0, 2.0], [0.0, 5.0]]).repeat(50, 80)[None, None].requires_grad_()
    drawn = net.forward({"data": data})["p"]
    assert tuple(drawn.shape) == (1, 1, 50, 80)
    share = {value: float((drawn == value).float().mean()) for value in (1, 2, 0, 5)}
    assert share[0] == 0
    assert abs(share[1] - 1 / 8) < 0.02
    assert abs(share[2] - 2 / 8) < 0.03
    drawn.sum().backward()  # type: ignore[no-untyped-call]
    assert data.grad is not None
    assert float(data.grad.sum()) == 4000
    assert bool(((data.grad == 1) | (data.grad == 0)).all())


def test_dummy_data_draws_anew_in_every_pass() -> None:
    text = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1000 } data_filler { '
    net = net_of(text + 'type: "gaussian" mean: 2 std: 0.5 } } }\n').to_torch()
    first, second = net.forward({})["d"], net.forward({})["d"]
    assert not torch.equal(first, second)
    assert abs(float(first.mean()) - 2) < 0.1
    assert abs(float(first.std()) - 0.5) < 0.05
    with pytest.raises(NetError, match="filler gaussian draws anew in every pass, which has no ONNX form"):
        net_to_onnx(net)


def test_a_sequence_that_goes_on_at_the_first_step_is_warned_of() -> None:
    text = 'layer { name: "in" type: "Input" top: "x" top: "cont" input_param { '
    text += "shape { dim: 2 dim: 1 dim: 3 } shape { dim: 2 dim: 1 } } }\n"
    text += 'layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "l" recurrent_param { num_output: 2 } }\n'
    net = net_of(text).to_torch()
    feed = {"x": torch.ones(2, 1, 3), "cont": torch.tensor([[0.0], [1.0]])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.forward(feed)
    with pytest.warns(CaffeWarning, match=r"a sequence goes on at the first step"):
        net.forward({**feed, "cont": torch.ones(2, 1)})


@pytest.mark.parametrize("type_name", ["Embed", "BatchReindex"])
def test_indices_beyond_the_end_are_refused(type_name: str) -> None:
    """Caffe checks them in debug builds only and reads memory that is not its own."""
    text = 'layer { name: "in" type: "Input" top: "x" top: "i" input_param { '
    text += "shape { dim: 3 dim: 2 } shape { dim: 2 } } }\n"
    bottoms = 'bottom: "x" bottom: "i"' if type_name == "BatchReindex" else 'bottom: "i"'
    more = "embed_param { num_output: 2 input_dim: 3 }" if type_name == "Embed" else ""
    net = net_of(text + f'layer {{ name: "it" type: "{type_name}" {bottoms} top: "t" {more} }}\n').to_torch()
    for wrong in (3.0, -1.0):
        with pytest.raises(NetError, match=rf'layer "it": index {int(wrong)} in .*allowed: 0 to 2'):
            net.forward({"x": torch.zeros(3, 2), "i": torch.tensor([0.0, wrong])})


def test_infogain_loss_refuses_scores_where_it_wants_probabilities() -> None:
    """Extended Caffe's has no softmax inside: it would take the logarithm of negative numbers as that of 1e-20."""
    text = 'layer { name: "in" type: "Input" top: "x" top: "y" top: "h" input_param { '
    text += "shape { dim: 1 dim: 2 } shape { dim: 1 } shape { dim: 2 dim: 2 } } }\n"
    text += 'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "y" bottom: "h" top: "l" }\n'
    feed = {"x": torch.tensor([[-1.0, 3.0]]), "y": torch.zeros(1), "h": torch.eye(2)}
    with pytest.raises(NetError, match=r'layer "l": bottom "x" holds -1 to 3, not probabilities; put a Softmax'):
        net_of(text).to_torch().forward(feed)
    with pytest.raises(PrototxtError, match="Intel Caffe's formula is not known"):
        Net.from_message(parse_text(text, "NetParameter", "intel"), dialect="intel")


@pytest.mark.parametrize("dialect", ["extended", "intel"])
@pytest.mark.parametrize("bins", [3, 6, 7, 14])
def test_bins_of_regions_are_the_same_in_every_engine(dialect: str, bins: int) -> None:
    """Boxes of 1 to 127 cells. Of 7 bins over 57 cells the last ends at 58 in float32 and at 57 in whole numbers."""
    boxes = np.array([[0, 3, 0, 3 + more, 0] for more in range(127)], np.float32)
    feed = {"x": np.arange(140, dtype=np.float32).reshape(1, 1, 1, 140), "boxes": boxes}
    text = 'layer { name: "in" type: "Input" top: "x" top: "boxes" input_param { '
    text += "shape { dim: 1 dim: 1 dim: 1 dim: 140 } shape { dim: 127 dim: 5 } } }\n"
    text += 'layer { name: "r" type: "ROIPooling" bottom: "x" bottom: "boxes" top: "r" '
    net = net_of(text + f"roi_pooling_param {{ pooled_h: 1 pooled_w: {bins} }} }}\n", dialect=dialect)
    model = net_to_onnx(net).SerializeToString()
    found = net.to_torch().forward({blob: torch.from_numpy(array) for blob, array in feed.items()})["r"].numpy()
    np.testing.assert_array_equal(session_of(model).run(["r"], feed)[0], found)
    np.testing.assert_array_equal(openvino_core()(model, feed)["r"], found)
    if bins == 7:
        assert found[56, 0, 0].tolist() == [11, 19, 27, 35, 43, 51, 60 if dialect == "extended" else 59]
