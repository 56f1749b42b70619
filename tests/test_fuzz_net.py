"""Whole nets from damaged prototxts: a net whose shapes torch confirms, or an error of ours."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged_text, fuzz, mild_damages, prototxts, tried

from caffe_models.errors import CaffeWarning, NetError, PrototxtError
from caffe_models.net import Net
from caffe_models.text_format import parse_text

TEXTS = prototxts()
SMALL = 1 << 20


@fuzz(120)
@given(st.sampled_from(TEXTS), mild_damages, st.sampled_from(("TEST", "TRAIN")))
def test_a_net_or_an_error(text: str, steps: list[tuple[str, float, float]], phase: str) -> None:
    torch = pytest.importorskip("torch")
    try:
        message = parse_text(damaged_text(text, steps), source="x.prototxt")
    except PrototxtError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaffeWarning)
        net, refusal = tried(lambda: Net.from_message(message, phase))
    if net is None:
        assert refusal.startswith("x.prototxt")
        return
    if (
        sum(map(math.prod, net.shapes.values())) > SMALL
        or sum(math.prod(s) for layer in net.layers for s in layer.blob_shapes) > SMALL
    ):
        return
    net.to_torch()
    try:
        found = net.forward({blob: torch.rand(shape) for blob, shape in net.inputs.items()}, keep=list(net.shapes))
    except NetError:  # labels that are no class numbers, for one
        return
    assert {blob: tuple(value.shape) for blob, value in found.items()} == net.shapes
