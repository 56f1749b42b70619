"""Overlap of cubes by hand and by counting voxels; encode and decode are inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_models.rpn.boxes import decode, encode, iou, overlap

place = st.tuples(*[st.floats(-40, 40)] * 3)
edge = st.floats(0.5, 60)


@pytest.mark.parametrize(
    ("centre", "size", "wanted"),
    [
        ((0, 0, 0), 10, 1.0),
        ((0, 0, 5), 10, 500 / 1500),
        ((5, 5, 5), 10, 125 / 1875),
        ((0, 0, 10), 10, 0.0),
        ((0, 0, 0), 5, 125 / 1000),
        ((2, -1, 2), 5, 125 / 1000),
        ((50, 0, 0), 20, 0.0),
    ],
)
def test_iou_with_a_cube_of_ten_at_the_origin(centre: tuple[float, ...], size: float, wanted: float) -> None:
    assert iou([(0, 0, 0)], [10], [centre], [size])[0, 0] == pytest.approx(wanted)


def test_iou_counts_voxels() -> None:
    grid = np.indices((40, 40, 40))

    def inside(centre: tuple[float, float, float], size: int) -> np.ndarray:
        distance = np.abs(grid - np.reshape(centre, (3, 1, 1, 1))).max(axis=0)
        return np.asarray(distance < size / 2)

    cubes = [((10.5, 12.5, 9.5), 10), ((14.0, 10.0, 12.0), 15), ((25.5, 25.5, 25.5), 20)]
    masks = [inside(*cube) for cube in cubes]
    wanted = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    centres, sizes = zip(*cubes, strict=True)
    np.testing.assert_allclose(iou(centres, sizes, centres, sizes), wanted)


@settings(max_examples=60, deadline=None)
@given(place, edge, place, edge)
def test_iou_is_symmetric_and_between_0_and_1(a: tuple[float, ...], e: float, b: tuple[float, ...], f: float) -> None:
    one, other = iou([a], [e], [b], [f])[0, 0], iou([b], [f], [a], [e])[0, 0]
    assert one == other
    assert 0 <= one <= 1


def test_overlap_of_intervals() -> None:
    assert overlap([0, 3, 8, 20], 10, 0, 6).tolist() == [6, 5, 0, 0]


def test_encode_by_hand() -> None:
    deltas = encode([(12, 8, 10)], [20], [(10, 10, 10)], [10])
    np.testing.assert_allclose(deltas, [[0.2, -0.2, 0, np.log(2)]])


@settings(max_examples=60, deadline=None)
@given(place, edge, place, st.sampled_from([5.0, 10.0, 20.0]))
def test_decode_undoes_encode(centre: tuple[float, ...], size: float, cell: tuple[float, ...], anchor: float) -> None:
    found, diameter = decode(encode([centre], [size], [cell], [anchor]), [cell], [anchor])
    np.testing.assert_allclose(found, [centre], atol=1e-9)
    np.testing.assert_allclose(diameter, [size])
