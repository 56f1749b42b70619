"""Fillers: ranges and moments by hand, and bilinear weights typed out."""

import json
import math
from typing import Any

import numpy as np
import pytest
from conftest import data_folder, need

from caffe_models.errors import PrototxtError
from caffe_models.fillers import Array, FillerSpec, fill
from caffe_models.net import Net
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text

SHAPE = (64, 16, 3, 3, 3)
FAN_IN, FAN_OUT = 16 * 27, 64 * 27


def draw(shape: tuple[int, ...] = SHAPE, **settings: object) -> np.ndarray:
    return fill(FillerSpec(**settings), shape, np.random.default_rng(1))  # type: ignore[arg-type]


def test_constant() -> None:
    values = draw(type="constant", value=0.5)
    assert values.dtype == np.float32
    assert (values == 0.5).all()


def test_uniform() -> None:
    values = draw(type="uniform", min=-2, max=1)
    assert -2 <= values.min() < -1.99
    assert 0.99 < values.max() <= 1
    assert values.mean() == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", FAN_IN), ("FAN_OUT", FAN_OUT), ("AVERAGE", (FAN_IN + FAN_OUT) / 2)])
def test_xavier_and_msra(norm: str, n: float) -> None:
    xavier = draw(type="xavier", variance_norm=norm)
    assert np.abs(xavier).max() == pytest.approx(math.sqrt(3 / n), rel=1e-3)
    assert xavier.std() == pytest.approx(math.sqrt(1 / n), rel=0.02)
    msra = draw(type="msra", variance_norm=norm)
    assert msra.std() == pytest.approx(math.sqrt(2 / n), rel=0.02)
    assert np.abs(msra).max() > 3 * math.sqrt(2 / n)  # a normal distribution, not a uniform one


def test_gaussian_with_and_without_zeros() -> None:
    values = draw(type="gaussian", mean=3, std=0.5)
    assert values.mean() == pytest.approx(3, abs=0.02)
    assert values.std() == pytest.approx(0.5, rel=0.02)
    sparse = draw(type="gaussian", std=1, sparse=8)
    assert (sparse != 0).mean() == pytest.approx(8 / 64, rel=0.1)


def test_positive_unitball_sums_to_one() -> None:
    values = draw(type="positive_unitball")
    assert values.min() >= 0
    np.testing.assert_allclose(values.reshape(64, -1).sum(1), 1, rtol=1e-5)


def test_bilinear() -> None:
    # kernel 4: f = 2, c = 0.75: 1 - |i / 2 - 0.75| = .25 .75 .75 .25
    line = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    np.testing.assert_allclose(draw((2, 1, 4, 4), type="bilinear")[1, 0], np.outer(line, line))
    cube = draw((1, 1, 4, 4, 4), type="bilinear")[0, 0]
    np.testing.assert_allclose(cube, line[:, None, None] * np.outer(line, line))
    # kernel 3: f = 2, and c = 0.75 (.25 .75 .75) or in BVLC Caffe c = 0.5 (.5 1 .5)
    np.testing.assert_allclose(draw((1, 1, 3, 3), type="bilinear")[0, 0, 1], [0.1875, 0.5625, 0.5625])
    np.testing.assert_allclose(draw((1, 1, 3, 3), type="bilinear", symmetric=True)[0, 0, 1], [0.5, 1.0, 0.5])
    with pytest.raises(PrototxtError, match=r"equal spatial sides, found shape \(1, 1, 3, 4\)"):
        draw((1, 1, 3, 4), type="bilinear")


def read(text: str) -> FillerSpec:
    layer = f'layer {{ name: "c" type: "Convolution"\n convolution_param {{ num_output: 1 kernel_size: 1 {text} }} }}'
    message = parse_text(layer, "NetParameter", "extended", "net.prototxt")
    return FillerSpec.read(message.get("layer")[0].get("convolution_param"), "weight_filler")


def test_read() -> None:
    assert read("").type == "constant"
    spec = read('weight_filler { type: "msra" variance_norm: AVERAGE }')
    assert (spec.type, spec.variance_norm, spec.where) == ("msra", "AVERAGE", "net.prototxt:2")
    with pytest.raises(PrototxtError, match=r'net.prototxt:2: weight_filler: unknown filler "xaver" \(known: bilinear'):
        read('weight_filler { type: "xaver" }')
    with pytest.raises(PrototxtError, match="min not above max"):
        read('weight_filler { type: "uniform" min: 2 max: 1 }')


def table(dialect: str) -> dict[str, Any]:
    path = data_folder() / "caffe_golden" / "fillers" / f"{dialect}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"absent": {}}


ENTRIES = [(dialect, name) for dialect in DIALECTS for name in table(dialect)]
KURTOSIS = {"uniform": 1.8, "xavier": 1.8, "positive_unitball": 1.8, "gaussian": 3.0, "msra": 3.0}
SIGMAS, TAIL = 5, 15


def filled(dialect: str, name: str, entry: dict[str, Any]) -> list[Array]:
    """Weight and bias of the layer that Caffe filled, in a net that is filled as for training."""
    if "bilinear" in name:
        axes, kernel = name[6], name[-1]
        kind, param, text, inputs = (
            "Deconvolution",
            f"num_output: 2 group: 2 kernel_size: {kernel}",
            'type: "bilinear"',
            2,
        )
        spatial = [5] * int(axes)
    elif "shape" in entry:
        kind, param, text = entry["layer"], entry["layer_param"], entry["filler"]
        group = int(param.rpartition("group: ")[2]) if "group" in param else 1
        inputs = entry["shape"][0] if kind == "Deconvolution" else entry["shape"][1] * group
        spatial = [5] * 3
    else:  # refused: any 5-D weight
        kind, param, text, inputs, spatial = "Convolution", "num_output: 4 kernel_size: 3", entry["filler"], 2, [5] * 3
    dims = " ".join(f"dim: {extent}" for extent in (1, inputs, *spatial))
    net = f"""layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "l" type: "{kind}" bottom: "data" top: "l" convolution_param {{ {param}
        weight_filler {{ {text} }} bias_filler {{ type: "constant" value: 0.125 }} }} }}"""
    made = Net.from_message(parse_text(net, "NetParameter", dialect, "net.prototxt"), "TRAIN")
    made.fill(seed=3)
    return made.weights()["l"]


@pytest.mark.parametrize(("dialect", "name"), ENTRIES)
def test_as_real_caffe(dialect: str, name: str) -> None:
    """One draw of Caffe's against one of ours, each figure to 5 standard errors of the difference of two such draws.

    The spread of a spread depends on the kurtosis; the largest of n uniform numbers misses its bound by range / n on
    average, that of n normal ones varies by sigma / sqrt(2 log n) (Gumbel): 15 of these have odds of 3e-7.
    """
    entry = json.loads(need(data_folder() / "caffe_golden" / "fillers" / f"{dialect}.json").read_text())[name]
    if "fails" in entry:
        with pytest.raises(PrototxtError, match=r"^net.prototxt:3: filler \w+ cannot fill a weight of 5 axes"):
            filled(dialect, name, entry)
        return
    values, bias = filled(dialect, name, entry)
    if "weights" in entry:
        np.testing.assert_allclose(values, np.array(entry["weights"], np.float32), rtol=1e-6)
        return
    assert (bias == entry["bias_value"]).all()
    assert values.shape == tuple(entry["shape"])
    assert (values.size / values.shape[0], values.size / values.shape[1]) == (entry["fan_in"], entry["fan_out"])
    slices = values.reshape(len(values), -1).sum(1, dtype=np.float64)
    if 'type: "constant"' in entry["filler"]:
        assert {values.min(), values.max()} == {entry["min"]} == {entry["max"]}
        assert (slices[0], slices[-1]) == (entry["sum_first_slice"], entry["sum_last_slice"])
        return
    kind = entry["filler"].split('"')[1]
    n, sigma, zeros = values.size, entry["std"], entry["zero_fraction"]
    kurtosis = KURTOSIS[kind] / (1 - zeros)
    assert values.mean() == pytest.approx(entry["mean"], abs=SIGMAS * sigma * math.sqrt(2 / n))
    assert values.std() == pytest.approx(sigma, abs=SIGMAS * sigma * math.sqrt(2 * (kurtosis - 1) / (4 * n)))
    assert (values == 0).mean() == pytest.approx(zeros, abs=SIGMAS * math.sqrt(2 * zeros * (1 - zeros) / n))
    extreme = sigma / math.sqrt(2 * math.log(n)) if kind in ("gaussian", "msra") else (entry["max"] - entry["min"]) / n
    if kind == "positive_unitball":  # the largest belongs to the slice with the least sum: 1/12 of variance a number
        extreme = SIGMAS * entry["max"] * math.sqrt(1 / 3 / (n / len(values))) / TAIL
        np.testing.assert_allclose(slices, 1, rtol=1e-5)
    assert values.max() == pytest.approx(entry["max"], abs=TAIL * extreme)
    assert values.min() == pytest.approx(entry["min"], abs=TAIL * extreme)
    spread = SIGMAS * sigma * math.sqrt(2 * n / len(values))
    assert slices[0] == pytest.approx(entry["sum_first_slice"], abs=spread)
    assert slices[-1] == pytest.approx(entry["sum_last_slice"], abs=spread)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "gaussian" std: 0', "std must be above 0"),
        ('type: "xavier" sparse: 3', "sparse 3; allowed: 0 or more, with type gaussian alone"),
        ('type: "gaussian" sparse: -2', "sparse -2; allowed"),
    ],
)
def test_what_caffe_refuses(text: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=f"net.prototxt:2: weight_filler: {message}"):
        read(f"weight_filler {{ {text} }}")
