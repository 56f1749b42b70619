"""What is left out around the lungs changes nothing, wherever the lungs lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_onnx import window, write_small_detector

from runtime.engines import openvino_engine, two_stage
from runtime.engines.base import EngineOptions, load_engine
from runtime.engines.emptiness import EXTENT_MULTIPLE, Emptiness, boxes
from runtime.network_input import OUTSIDE, to_input

SIZE = (64, 96, 112)
LUNGS: dict[str, list[tuple[slice, slice, slice]]] = {
    "none": [],
    "one": [np.s_[20:40, 30:50, 40:61]],
    "two": [np.s_[10:50, 30:71, 12:31], np.s_[5:60, 24:70, 81:99]],
    "at the faces": [np.s_[0:9, 0:20, 0:17], np.s_[50:64, 80:96, 100:112]],
    "a voxel in a corner": [np.s_[63:64, 0:1, 111:112]],
    "everywhere": [np.s_[:, :, :]],
}


def grey(place: str, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    draw = np.random.default_rng(7)
    data = np.full((1, 1, *size), OUTSIDE, dtype=np.uint8)
    for lung in LUNGS[place]:
        part = data[0, 0][lung]
        part[...] = draw.integers(0, 256, part.shape)
    return data


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_detector(tmp_path_factory.mktemp("emptiness") / "small.onnx")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Voxels that the first layers are given, call by call."""
    monkeypatch.setattr(two_stage, "LEAST_SLAB_VOXELS", 1)
    given: list[int] = []
    infer = openvino_engine._infer

    def counted(request: Any, inputs: dict[str, Any], output: str) -> Any:
        if output == "stem":
            given.append(inputs["data"].size)
        return infer(request, inputs, output)

    monkeypatch.setattr(openvino_engine, "_infer", counted)
    return given


@pytest.mark.parametrize("place", LUNGS)
def test_leaving_out_the_emptiness_changes_no_number(place: str, onnx_file: Path, computed: list[int]) -> None:
    data = grey(place)
    coord = window(*SIZE)[1]
    engine = load_engine("openvino", onnx_file, EngineOptions(precision="f32"))
    truth = engine(to_input(data), coord)
    all_of_it = sum(computed)
    computed.clear()
    np.testing.assert_array_equal(engine(data, coord), truth)
    left = sum(computed) / all_of_it
    assert left < {"none": 0.01, "one": 0.25, "two": 0.6, "at the faces": 0.25, "a voxel in a corner": 0.05}.get(
        place, 2
    )


def test_a_window_hardly_larger_than_its_faces(onnx_file: Path) -> None:
    data = grey("a voxel in a corner", (64, 16, 112))
    coord = window(64, 16, 112)[1]
    engine = load_engine("openvino", onnx_file, EngineOptions(precision="f32"))
    np.testing.assert_array_equal(engine(data, coord), engine(to_input(data), coord))


def test_emptiness_of_any_size_from_a_small_one() -> None:
    """With layers that sum a neighbourhood of two voxels to each side, nothing beyond the faces, then every other."""

    def layers(voxels: np.ndarray) -> np.ndarray:
        padded = np.pad(voxels[0, 0].astype(np.float64), 2)
        for axis in range(3):
            padded = np.apply_along_axis(lambda line: np.convolve(line, np.arange(1, 6), "valid"), axis, padded)
        return padded[None, ::2, ::2, ::2, None]

    emptiness = Emptiness(layers, 2, 2)
    wanted = layers(np.full((1, 1, 48, 16, 32), OUTSIDE, dtype=np.uint8))
    np.testing.assert_array_equal(emptiness.over((24, 8, 16)), wanted)
    with pytest.raises(ValueError, match="2 cells are fewer than the 3"):
        emptiness.over((24, 2, 16))


@given(
    corners=st.lists(st.tuples(*[st.integers(0, 1000)] * 4), min_size=1, max_size=3),
    halo=st.sampled_from([0, 2, 6]),
    height=st.sampled_from([16, 96]),
    width=st.sampled_from([32, 144]),
)
def test_all_that_sees_the_lungs_lies_in_a_core(
    corners: list[tuple[int, int, int, int]], halo: int, height: int, width: int
) -> None:
    voxels = np.full((2, height, width), OUTSIDE, dtype=np.uint8)
    wanted = np.zeros((height, width), dtype=bool)
    for y, x, tall, wide in corners:
        top, left = y % height, x % width
        bottom, right = min(height, top + 1 + tall % 40), min(width, left + 1 + wide % 40)
        voxels[1, top:bottom, left:right] = 0
        wanted[max(0, top - halo) : bottom + halo, max(0, left - halo) : right + halo] = True
    kept = np.zeros_like(wanted)
    found = boxes(voxels, 2, halo)
    for box in found:
        kept[box.core_start[0] : box.core_stop[0], box.core_start[1] : box.core_stop[1]] = True
        for axis, extent in enumerate((height, width)):
            start, stop = box.start[axis], box.stop[axis]
            core_start, core_stop = box.core_start[axis], box.core_stop[axis]
            assert 0 <= start <= core_start < core_stop <= stop <= extent
            assert (stop - start) % EXTENT_MULTIPLE == 0
            assert all(n % 2 == 0 for n in (start, core_start, core_stop))
            assert core_start - start >= halo or start == 0
            assert stop - core_stop >= halo or stop == extent
    assert len(found) in (1, 2)
    assert not (wanted & ~kept).any()
    assert sum(box.area for box in found) <= height * width


def test_nothing_to_see_needs_no_box() -> None:
    assert boxes(np.full((4, 32, 32), OUTSIDE, dtype=np.uint8), 2, 2) == []
