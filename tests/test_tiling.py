"""Tiling with predictors whose right answer is known."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.cover import Window, lung_cells
from runtime.engine_memory import engine_bytes
from runtime.network_input import coord_channels, to_input
from runtime.plan import Plan, plan_windows
from runtime.tiling import run_windows


@dataclass
class Working:
    voxels: NDArray[np.uint8]


def pooled(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each 4x4x4 block."""
    d, h, w = (n // 4 for n in data.shape)
    return np.asarray(data.reshape(d, 4, h, 4, w, 4).mean(axis=(1, 3, 5), dtype=np.float64), dtype=np.float32)


def local_predictor(data: NDArray[np.uint8], coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channel 0: blocks' means; channels 1 to 3: coord."""
    head = np.zeros((1, 15, *coord.shape[2:]), dtype=np.float32)
    head[0, 0] = pooled(to_input(data)[0, 0])
    head[0, 1:4] = coord[0]
    return head


def wide_predictor(data: NDArray[np.uint8], coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sees 24 voxels to each side and aligns to blocks of 16, as a net of four poolings does."""
    coarse = to_input(data)[0, 0].reshape(*[v for n in data.shape[2:] for v in (n // 16, 16)]).max(axis=(1, 3, 5))
    for axis in range(3):
        before, after = np.roll(coarse, 1, axis), np.roll(coarse, -1, axis)
        edge = [slice(None)] * 3
        edge[axis] = slice(0, 1)
        before[tuple(edge)] = -1
        edge[axis] = slice(-1, None)
        after[tuple(edge)] = -1
        coarse = np.maximum(coarse, np.maximum(before, after))
    head = np.zeros((1, 15, *coord.shape[2:]), dtype=np.float32)
    head[0, 0] = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return head


def volume(shape: tuple[int, int, int]) -> tuple[Working, NDArray[np.bool_]]:
    draw = np.random.default_rng(3)
    lung = np.zeros(shape, dtype=bool)
    lung[3:-3, 3:-3, 3:-3] = True
    return Working(draw.integers(0, 256, shape, dtype=np.uint8)), lung


SHAPES = [(16, 16, 16), (70, 33, 100), (100, 97, 130), (40, 128, 160), (161, 50, 17)]


@pytest.mark.parametrize("shape", SHAPES)
def test_local_predictor_through_windows_equals_the_whole(shape: tuple[int, int, int]) -> None:
    working, lung = volume(shape)
    memory = engine_bytes(int(np.prod([min(n, 96) for n in shape])) + 96**3 // 3, "f32")
    plan = plan_windows(shape, lung, memory, "f32", held_bytes=0, margin_voxel=16)
    out = run_windows(working, plan, local_predictor)
    padded = np.full(plan.padded_shape, 170, dtype=np.uint8)
    padded[tuple(map(slice, shape))] = working.voxels
    assert out.covered[lung_cells(lung, plan.padded_shape)].all()
    np.testing.assert_array_equal(out.values[0][out.covered], pooled(to_input(padded))[out.covered])
    coord = coord_channels(shape, (0, 0, 0), plan.padded_shape)
    np.testing.assert_array_equal(out.values[1:4][:, out.covered], coord[:, out.covered])
    assert np.isneginf(out.values[0::5][:, ~out.covered]).all()


def test_margin_and_alignment_are_enough_for_a_predictor_of_that_reach() -> None:
    working, lung = volume((144, 160, 176))
    whole = plan_windows((144, 160, 176), lung, 10**10, "f32", held_bytes=0)
    cut = plan_windows(
        (144, 160, 176), lung, engine_bytes(112**3, "f32") + 5 * 10**6, "f32", held_bytes=0, margin_voxel=32
    )
    assert len(whole.windows) == 1
    assert len(cut.windows) >= 4
    a, b = (run_windows(working, plan, wide_predictor) for plan in (whole, cut))
    np.testing.assert_array_equal(a.values[0][b.covered], b.values[0][b.covered])


def test_a_predictor_that_reaches_beyond_the_margin_is_seen() -> None:
    working, lung = volume((144, 160, 176))
    working.voxels[:] = np.arange(160, dtype=np.uint8)[:, None]
    plan = plan_windows(
        (144, 160, 176), lung, engine_bytes(96**3, "f32") + 5 * 10**6, "f32", held_bytes=0, margin_voxel=0
    )
    whole = plan_windows((144, 160, 176), lung, 10**10, "f32", held_bytes=0)
    a, b = (run_windows(working, p, wide_predictor) for p in (whole, plan))
    assert (a.values[0] != b.values[0]).any()


def test_padding_is_170() -> None:
    working = Working(np.zeros((10, 16, 16), dtype=np.uint8))
    seen = []

    def remember(data: NDArray[np.uint8], coord: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(to_input(data))
        return local_predictor(data, coord)

    run_windows(working, plan_windows((10, 16, 16), np.ones((10, 16, 16), bool), 10**9, "f32", held_bytes=0), remember)
    assert (seen[0][0, 0, :10] == -1.0).all()
    assert (seen[0][0, 0, 10:] == np.float32(42 / 128)).all()


def test_progress_and_nothing_to_do() -> None:
    working, lung = volume((64, 64, 64))
    steps: list[tuple[int, int]] = []
    plan = plan_windows((64, 64, 64), lung, 10**9, "f32", held_bytes=0)
    run_windows(working, plan, local_predictor, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(1, 1)]
    out = run_windows(working, plan_windows((64,) * 3, ~np.ones((64,) * 3, bool), 10**9, "f32"), local_predictor)
    assert not out.covered.any()
    assert np.isneginf(out.values[[0, 5, 10]]).all()
    assert (out.values[[1, 4, 14]] == 0).all()


def test_wrong_plan_or_predictor_is_refused() -> None:
    working, lung = volume((64, 64, 64))
    plan = plan_windows((64, 64, 64), lung, 10**9, "f32", held_bytes=0)
    with pytest.raises(ValueError, match="the plan is for a padded shape of"):
        run_windows(Working(np.zeros((40, 64, 64), np.uint8)), plan, local_predictor)
    with pytest.raises(ValueError, match="the predictor gave"):
        run_windows(working, plan, lambda data, coord: coord)
    assert isinstance(plan, Plan)
    assert isinstance(plan.windows[0], Window)
