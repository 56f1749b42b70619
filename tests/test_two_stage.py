"""The net in two stages gives bit for bit what it gives in one piece."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openvino import opset13 as ops
from small_onnx import window, write_small_detector

from runtime.engines import two_stage
from runtime.engines.base import EngineOptions, load_engine
from runtime.engines.openvino_core import core
from runtime.engines.two_stage import slabs, split_at_first_pooling
from runtime.network_input import to_input

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_detector(tmp_path_factory.mktemp("stages") / "small.onnx")


def in_one_piece(model: Any, data: np.ndarray, coord: np.ndarray) -> np.ndarray:
    compiled = core().compile_model(model, "CPU", F32)
    return np.array(compiled({"data": data, "coord": coord})["head"])


def quantised(model: Any) -> Any:
    """The same net with what nncf puts before the pooling: a quantiser of 256 steps from 0."""
    pool = next(op for op in model.get_ordered_ops() if op.get_type_name() == "MaxPool")
    bounds = [ops.constant(np.float32(value)) for value in (0, 3.7, 0, 3.7)]
    pool.input(0).replace_source_output(ops.fake_quantize(pool.input_value(0), *bounds, 256).output(0))
    return model


@pytest.mark.parametrize("steps", [False, True])
def test_two_stages_equal_one_piece(onnx_file: Path, steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_stage, "LEAST_SLAB_VOXELS", 1)
    model = quantised(core().read_model(str(onnx_file))) if steps else core().read_model(str(onnx_file))
    data, coord = window(64, 32, 48)
    truth = in_one_piece(model, data, coord)
    engine = load_engine("openvino", onnx_file, EngineOptions(precision="f32"))
    if steps:
        stages = split_at_first_pooling(model)
        assert stages is not None
        assert stages.dtype is np.uint8
        engine._stages = stages  # type: ignore[attr-defined]
        engine._requests = [  # type: ignore[attr-defined]
            core().compile_model(part, "CPU", F32).create_infer_request() for part in (stages.stem, stages.rest)
        ]
    assert len(list(slabs(64, 32 * 48, 2, 2))) == 9
    np.testing.assert_allclose(engine(data, coord), truth, rtol=0, atol=0 if not steps else 1e-5)


def test_what_the_first_layers_see_is_read_from_the_net(onnx_file: Path) -> None:
    stages = split_at_first_pooling(core().read_model(str(onnx_file)))
    assert stages is not None
    assert (stages.stride, stages.halo, stages.channels, stages.dtype) == (2, 2, 6, np.float32)


def test_bytes_and_floats_are_one_input(onnx_file: Path) -> None:
    _, coord = window(32, 32, 48)
    grey = np.random.default_rng(1).integers(0, 256, (1, 1, 32, 32, 48), dtype=np.uint8)
    engine = load_engine("openvino", onnx_file)
    np.testing.assert_array_equal(engine(grey, coord), engine(to_input(grey), coord))


@pytest.mark.parametrize("change", ["no pooling", "strided", "sees coord"])
def test_another_net_stays_in_one_piece(change: str) -> None:
    data, coord = (ops.parameter([1, c, -1, -1, -1], np.float32, name=n) for n, c in (("data", 1), ("coord", 3)))
    stride = [2] * 3 if change == "strided" else [1] * 3
    weights = ops.constant(np.ones((4, 1, 3, 3, 3), dtype=np.float32))
    x = ops.convolution(data, weights, stride, [1] * 3, [1] * 3, [1] * 3)
    if change == "sees coord":
        x = ops.add(
            x,
            ops.convolution(
                coord, ops.constant(np.ones((4, 3, 1, 1, 1), np.float32)), *[[1] * 3, *[[0] * 3] * 2, [1] * 3]
            ),
        )
    if change != "no pooling":
        x = ops.max_pool(x, [2] * 3, [1] * 3, [0] * 3, [0] * 3, [2] * 3).output(0)
    model = openvino.Model([ops.result(x)], [data, coord], "other")
    assert split_at_first_pooling(model) is None


@given(
    depth=st.integers(1, 60).map(lambda n: 16 * n),
    plane=st.sampled_from([256, 40_000, 160_000, 1_000_000]),
    halo=st.sampled_from([0, 2, 6]),
)
def test_slabs_cover_each_slice_once_and_see_enough(depth: int, plane: int, halo: int) -> None:
    found = list(slabs(depth, plane, 2, halo))
    assert found[0].core_start == 0
    assert found[-1].core_stop == depth
    assert all(a.core_stop == b.core_start for a, b in pairwise(found))
    assert len({slab.stop - slab.start for slab in found}) == 1
    for slab in found:
        assert 0 <= slab.start <= slab.core_start < slab.core_stop <= slab.stop <= depth
        assert all(n % 2 == 0 for n in (slab.start, slab.stop, slab.core_start, slab.core_stop))
        assert slab.core_start - slab.start >= halo or slab.start == 0
        assert slab.stop - slab.core_stop >= halo or slab.stop == depth
