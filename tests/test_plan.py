"""Windows that fit the memory and whose cores hold every lung cell once."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_models.errors import Rpn3dError
from runtime.cover import lung_cells, place, sizes_to_try
from runtime.engine_memory import engine_bytes
from runtime.plan import Plan, plan_windows

GB = 10**9


def ellipsoids(shape: tuple[int, int, int]) -> np.ndarray:
    """Two lungs, left and right in x."""
    z, y, x = (np.linspace(-1, 1, n).reshape([-1 if a == k else 1 for a in range(3)]) for k, n in enumerate(shape))
    return np.maximum(1 - z**2 - y**2 - ((x - 0.5) / 0.42) ** 2, 1 - z**2 - y**2 - ((x + 0.5) / 0.42) ** 2) > 0


def plan(
    shape: tuple[int, int, int], lung: np.ndarray, memory: float, precision: str = "bf16", margin_voxel: int = 32
) -> Plan:
    return plan_windows(shape, lung, int(memory), precision, 2, held_bytes=0, margin_voxel=margin_voxel)


def test_the_whole_volume_where_it_fits() -> None:
    shape = (310, 250, 320)
    found = plan(shape, ellipsoids(shape), 4 * GB)
    (window,) = found.windows
    assert found.padded_shape == (320, 256, 320)
    assert (window.start, window.size) == ((0, 0, 0), (320, 256, 320))
    assert (window.core_start, window.core_stop) == ((0, 0, 0), (320, 256, 320))
    assert "holds all of the lungs" in found.reason


def test_what_the_process_holds_counts() -> None:
    shape = (160, 160, 160)
    lung = np.ones(shape, dtype=bool)
    room = engine_bytes(160**3, "f32") + 160**3  # the head takes a byte for each voxel
    assert len(plan_windows(shape, lung, room + 1000, "f32", held_bytes=1000).windows) == 1
    assert len(plan_windows(shape, lung, room + 1000, "f32", held_bytes=1001).windows) > 1


def test_memory_is_kept_for_the_next_scan_only_where_there_is_room() -> None:
    shape = (160, 160, 160)
    lung = np.ones(shape, dtype=bool)
    plain = plan_windows(shape, lung, 64 * GB, "int8", held_bytes=GB)
    kept = plan_windows(shape, lung, 64 * GB, "int8", held_bytes=GB, may_keep=True)
    assert (plain.keeps_memory, kept.keeps_memory) == (False, True)
    assert kept.windows == plain.windows
    assert kept.predicted_peak_bytes - plain.predicted_peak_bytes >= 0.5 * engine_bytes(160**3, "int8")
    least = 2 * kept.predicted_peak_bytes
    assert plan_windows(shape, lung, least, "int8", held_bytes=GB, may_keep=True).keeps_memory
    short = plan_windows(shape, lung, least - 2, "int8", held_bytes=GB, may_keep=True)
    assert not short.keeps_memory
    assert (short.windows, short.predicted_peak_bytes) == (plain.windows, plain.predicted_peak_bytes)


def test_spacing_in_numbers() -> None:
    line = np.ones(80, dtype=bool)
    assert sizes_to_try(line, 32)[:3] == [320, 192, 160]
    spans = [(s.start, s.core_start, s.core_stop) for s in place(line, 192, 32)]
    assert spans == [(0, 0, 160), (128, 160, 320)]
    assert min(sizes_to_try(line, 32)) == 80  # twice the margin and one step
    line[20:60] = False  # lung in 0..80 and 240..320
    spans = [(s.start, s.core_start, s.core_stop) for s in place(line, 112, 32)]
    assert spans == [(0, 0, 80), (208, 240, 320)]


def test_left_and_right_apart_where_that_is_less_work_though_the_whole_fits() -> None:
    shape = (128, 128, 512)
    lung = np.zeros(shape, dtype=bool)
    lung[:, :, :96] = True
    lung[:, :, 416:] = True
    found = plan(shape, lung, 8 * GB)
    assert [w.start[2] for w in found.windows] == [0, 384]
    assert {w.size for w in found.windows} == {(128, 128, 128)}
    assert found.others[0].count == 1
    assert "only 0.50 times the voxels" in found.reason


def test_what_no_lung_needs_is_cut_off() -> None:
    lung = np.zeros((256, 128, 128), dtype=bool)
    lung[64:128] = True
    (window,) = plan((256, 128, 128), lung, 8 * GB).windows
    assert (window.start, window.size) == ((32, 0, 0), (128, 128, 128))
    assert (window.core_start[0], window.core_stop[0]) == (64, 128)


def test_an_apex_needs_fewer_windows_than_a_base() -> None:
    lung = np.zeros((256, 256, 256), dtype=bool)
    lung[:128, 96:160, 96:160] = True
    lung[128:] = True
    found = plan(lung.shape, lung, engine_bytes(160**3, "bf16") + lung.size)
    assert len(found.windows) < 8


def test_less_memory_gives_smaller_windows_and_says_so() -> None:
    shape = (320, 256, 320)
    found = plan(shape, ellipsoids(shape), 1.2 * GB)
    assert len(found.windows) > 1
    assert found.predicted_peak_bytes <= 1.2 * GB
    assert f"{len(found.windows)} windows of " in found.reason
    assert re.search(r"one over all of the lungs would take 1\.\d GiB of the 1\.1 GiB allowed", found.reason)
    assert found.others[0].count == 1
    assert not found.others[0].fits


def test_windows_without_lung_are_left_out() -> None:
    shape = (128, 128, 512)
    lung = np.zeros(shape, dtype=bool)
    lung[:, :, :100] = True
    lung[:, :, 420:] = True
    found = plan(shape, lung, engine_bytes(128 * 128 * 224, "bf16") + lung.size)
    starts = sorted(window.start[2] for window in found.windows)
    assert starts[0] == 0
    assert max(window.start[2] + window.size[2] for window in found.windows) == 512
    assert len(found.windows) == 2


def test_no_lung_no_windows() -> None:
    found = plan((32, 32, 32), np.zeros((32, 32, 32), dtype=bool), GB)
    assert found.windows == ()
    assert "no lung" in found.reason


def test_too_little_memory_names_the_least_that_works() -> None:
    shape = (300, 300, 300)
    lung = np.ones(shape, dtype=bool)
    with pytest.raises(Rpn3dError, match=r"too little for openvino in f32.* need \d+ MiB at least") as caught:
        plan(shape, lung, 0.15 * GB, "f32")
    least = int(str(caught.value).split(" need ")[1].split(" ")[0]) << 20
    assert plan(shape, lung, least, "f32").windows
    with pytest.raises(Rpn3dError):
        plan(shape, lung, least - (2 << 20), "f32")


@pytest.mark.parametrize(
    ("precision", "voxels", "measured"),
    [
        ("int8", 192**3, 221e6),
        ("int8", 320 * 224 * 304, 525e6),
        ("int8", 320 * 320 * 336, 815e6),
        ("f32", 192**3, 525e6),
        ("f32", 256**3, 1194e6),
    ],
)
def test_the_prediction_is_never_below_what_was_measured(precision: str, voxels: int, measured: float) -> None:
    assert measured < engine_bytes(voxels, precision) < 1.3 * measured


def test_unknown_precision() -> None:
    with pytest.raises(Rpn3dError, match=r"memory of openvino in f64 is not known; known: openvino f32"):
        engine_bytes(1, "f64")


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(5, 230)] * 3),
    margin=st.sampled_from([0, 8, 20, 32]),
    share=st.floats(0.02, 1.0),
    seed=st.integers(0, 9),
)
def test_cores_hold_every_lung_cell_once(shape: tuple[int, int, int], margin: int, share: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    lung = np.zeros(shape, dtype=bool)
    for _ in range(3):
        corner = [int(draw.integers(0, n)) for n in shape]
        lung[tuple(slice(c, c + int(draw.integers(1, 80))) for c in corner)] = True
    smallest = 2 * margin + 32
    padded = [-(-n // 16) * 16 for n in shape]
    least = int(np.prod([min(n, smallest) for n in padded]))
    memory = engine_bytes(max(least, int(share * np.prod(padded))), "bf16") + int(np.prod(padded))
    found = plan(shape, lung, memory, margin_voxel=margin)
    assert found.padded_shape == tuple(padded)
    count = np.zeros([n // 4 for n in padded], dtype=int)
    for window in found.windows:
        axes = list(zip(window.start, window.size, window.core_start, window.core_stop, padded, strict=True))
        for start, size, first, stop, extent in axes:
            assert start % 16 == 0
            assert size % 16 == 0
            assert start >= 0
            assert start + size <= extent
            assert first % 4 == 0
            assert stop % 4 == 0
            # a core keeps its distance from every cut that is not the volume's own face
            assert first - start >= margin or start == first == 0
            assert start + size - stop >= margin or stop == extent
        assert window.size == found.windows[0].size
        count[tuple(slice(first // 4, stop // 4) for _, _, first, stop, _ in axes)] += 1
    assert count.max(initial=0) <= 1
    assert count[lung_cells(lung, found.padded_shape)].all()
    assert found.predicted_peak_bytes <= memory


def test_cells_of_a_mask() -> None:
    lung = np.zeros((9, 4, 5), dtype=bool)
    lung[8, 0, 4] = True  # the last voxel along z and x: cells 2, 0, 1
    cells = lung_cells(lung, (16, 16, 16))
    assert cells.shape == (4, 4, 4)
    assert np.argwhere(cells).tolist() == [[2, 0, 1]]
