"""Fillers: ranges and moments by hand, and bilinear weights typed out."""

import json
import math

import numpy as np
import pytest
from conftest import data_folder, need

from caffe_models.errors import PrototxtError
from caffe_models.fillers import FillerSpec, fill
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


@pytest.mark.parametrize("dialect", ["bvlc", "extended", "intel"])
def test_as_real_caffe(dialect: str) -> None:
    """Moments and bounds of one draw of Caffe's against one of ours; bilinear weights exactly."""
    table = json.loads(need(data_folder() / "caffe_golden" / "fillers" / f"{dialect}.json").read_text())
    compared = 0
    for name, entry in table.items():
        if "weights" in entry:
            wanted = np.array(entry["weights"], np.float32)
            np.testing.assert_allclose(
                draw(wanted.shape, type="bilinear", symmetric=dialect == "bvlc"), wanted, rtol=1e-5, err_msg=name
            )
            compared += 1
        elif not entry.get("fails"):
            shape = tuple(entry["shape"])
            values = fill(read(f"weight_filler {{ {entry['filler']} }}"), shape, np.random.default_rng(3))
            error = 6 * entry["std"] / math.sqrt(values.size)
            assert values.mean() == pytest.approx(entry["mean"], abs=error + 1e-6), name
            assert values.std() == pytest.approx(entry["std"], rel=0.05, abs=1e-6), name
            assert (values == 0).mean() == pytest.approx(entry["zero_fraction"], abs=0.02), name
            if "gaussian" not in entry["filler"] and "msra" not in entry["filler"]:
                assert values.max() == pytest.approx(entry["max"], rel=0.1, abs=1e-6), name
            compared += 1
    assert compared > 40
