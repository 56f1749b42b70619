"""Decoding and suppression, against figures worked out by hand and a slow, plain version."""

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.candidates import Candidates, decode, nms


def empty_head(cells: tuple[int, int, int] = (4, 5, 6)) -> NDArray[np.float32]:
    head = np.zeros((15, *cells), dtype=np.float32)
    head[::5] = -9.0
    return head


def made(*rows: tuple[float, float, float, float, float]) -> Candidates:
    """Rows of logit, z, y, x, diameter."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    return Candidates(table[:, 0], table[:, 1:4], table[:, 4])


def as_rows(found: Candidates) -> list[list[float]]:
    rows: list[list[float]] = np.column_stack([found.logit, found.centre_voxel, found.diameter_voxel]).tolist()
    return rows


def test_decode_figures() -> None:
    head = empty_head()
    # cell (1, 2, 3): centre 5.5, 9.5, 13.5. Anchor 1 is 10 voxels.
    head[5:10, 1, 2, 3] = [2.0, 0.1, -0.2, 0.05, np.log(1.5)]
    # cell (0, 0, 5), anchor 2 (20 voxels), without offsets: 1.5, 1.5, 21.5
    head[10, 0, 0, 5] = 3.0
    head[0, 3, 4, 0] = 0.5  # under the threshold
    found = decode(head, 1.0)
    np.testing.assert_allclose(as_rows(found), [[3, 1.5, 1.5, 21.5, 20], [2, 6.5, 7.5, 14.0, 15]], rtol=1e-6)
    assert len(decode(head, 0.5)) == 3  # the threshold itself counts
    assert len(decode(head, 4.0)) == 0


def test_decode_takes_any_anchors() -> None:
    head = empty_head()[:5]
    head[:, 0, 0, 0] = [1.0, 1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(as_rows(decode(head, 0, anchors=[7.0])), [[1, 8.5, 1.5, 1.5, 7]])
    with pytest.raises(ValueError, match="five channels for each of 3"):
        decode(head, 0)


def test_decode_drops_centres_outside_the_lung() -> None:
    head = empty_head()
    head[0, 1, 1, :] = 1.0  # six cells at x = 1.5 ... 21.5
    lung = np.zeros((16, 20, 22), dtype=bool)
    lung[:, :, 6:15] = True  # 5.5 rounds to 6, 9.5 to 10, 13.5 to 14; 17.5 to 18
    assert decode(head, 0, lung=lung).centre_voxel[:, 2].tolist() == [5.5, 9.5, 13.5]
    head[1, 1, 1, 2] = 3e38  # a wild offset is outside, not a crash
    head[1, 1, 1, 3] = -1e30
    assert decode(head, 0, lung=lung).centre_voxel[:, 2].tolist() == [5.5]


def test_decode_survives_wild_outputs() -> None:
    head = empty_head()
    head[:5, 0, 0, 0] = [1, 0, 0, 0, 500.0]
    head[:5, 0, 0, 1] = [1, np.nan, 0, 0, 0]
    head[:5, 0, 0, 2] = [np.inf, 0, 0, 0, 0]
    head[:5, 0, 0, 4] = [1, 0, 0, 3e38, 0]
    head[0, 0, 0, 3] = np.nan
    head[::5, 1] = -np.inf  # where no window was computed
    found = decode(head, 0.0)
    assert len(found) == 1
    assert found.diameter_voxel[0] == pytest.approx(5 * np.exp(4))


def test_decode_of_a_net_that_says_yes_everywhere() -> None:
    head = np.zeros((15, 4, 4, 4), dtype=np.float32)
    head[0] = np.arange(64).reshape(4, 4, 4)
    assert sorted(decode(head, 0.0, max_candidates=3).logit.tolist()) == [61, 62, 63]
    assert len(decode(head, 0.0)) == 192
    head[:] = 0
    assert len(decode(head, 0.0, max_candidates=3)) == 192  # all are equal to the last


def test_what_lies_beyond_the_lung_does_not_crowd_out_what_is_in_it() -> None:
    """Where everything is empty a net may say anything: a plateau of 60 cells, all likelier than the nodule."""
    head = empty_head()
    head[0] = -1.4
    head[0, :, :, 3] = -2.0
    lung = np.zeros((16, 20, 24), dtype=bool)
    lung[:, :, 12:16] = True
    found = decode(head, -2.2, lung=lung, max_candidates=30)
    assert len(found) == 20
    assert set(found.logit.tolist()) == {-2.0}


def test_overlapping_cubes() -> None:
    # cubes of edge 10: shifted by 5 along z the IoU is 500 / 1500 = 0.33; shifted by 9, 100 / 1900 = 0.053
    assert len(nms(made((1, 0, 0, 0, 10), (2, 5, 0, 0, 10)))) == 1
    assert len(nms(made((1, 0, 0, 0, 10), (2, 9, 0, 0, 10)))) == 2
    assert len(nms(made((1, 0, 0, 0, 10), (2, 9, 0, 0, 10)), iou_threshold=0.05)) == 1


def test_greedy_order() -> None:
    # b overlaps a and c, a and c do not touch: the likeliest, b, removes both; without it both stay
    a, b, c = (1, 0, 0, 0, 10), (3, 6, 0, 0, 10), (2, 12, 0, 0, 10)
    assert as_rows(nms(made(a, b, c))) == [list(b)]  # the others' centres are too far away to have a say
    assert as_rows(nms(made(a, (1.5, *b[1:]), c))) == [list(c), list(a)]


def test_concentric_boxes_are_one_nodule() -> None:
    # IoU of 6 in 20 is 216 / 8000 = 0.027, yet the centres are closer than 5
    assert nms(made((2, 50, 50, 50, 6), (1, 53, 50, 50, 20))).diameter_voxel.tolist() == [6]
    assert nms(made((1, 50, 50, 50, 6), (2, 53, 50, 50, 20))).diameter_voxel.tolist() == [20]
    # two small nodules beside each other stay two
    assert len(nms(made((1, 50, 50, 50, 5), (2, 50, 55, 50, 5)))) == 2
    assert len(nms(made((1, 50, 50, 50, 6), (2, 56, 50, 50, 20)))) == 2


def test_a_nodule_between_cells_is_found_between_them() -> None:
    found = nms(made((2, 50, 50, 50, 6), (2, 54, 50, 50, 6), (2, 50, 50, 54, 6), (2, 52, 50, 52, 6)))
    assert as_rows(found) == [[2, 51.5, 50, 51.5, 6]]
    # the cube root of the odds: 1 against 1 / e; logit and diameter are those of the likeliest
    found = nms(made((5, 50, 50, 50, 6), (2, 50, 53, 50, 7)))
    np.testing.assert_allclose(as_rows(found), [[5, 50, 50 + 3 / (1 + np.e), 50, 6]], rtol=1e-6)


def test_two_that_are_settled_in_one_place_are_one() -> None:
    """Cubes of 5 in cells that touch by a corner have an IoU of 0.02: the vote brings the first next to the second."""
    corner = (1.9, 54, 50, 54, 5)
    assert len(nms(made((2, 50, 50, 50, 5), corner))) == 2
    found = nms(made((2, 50, 50, 50, 5), (2, 54, 50, 50, 5), (2, 50, 50, 54, 5), corner))
    np.testing.assert_allclose(as_rows(found), [[2, 50 + 4 / 3, 50, 50 + 4 / 3, 5]], rtol=1e-6)


def test_who_has_a_say_is_near() -> None:
    """Within a stride of the likeliest, or within its radius."""
    for diameter, reach in ((6, 4), (10, 5), (24, 12)):
        nearer, farther = (
            nms(made((2, 50, 50, 50, diameter), (2, 50 + away, 50, 50, diameter))).centre_voxel[0, 0]
            for away in (reach - 0.1, reach + 0.1)
        )
        assert nearer == pytest.approx(50 + (reach - 0.1) / 2)
        assert farther == 50


def test_nothing_in_nothing_out() -> None:
    assert len(nms(made())) == 0
    assert nms(made()).centre_voxel.shape == (0, 3)


def slow_nms(rows: list[list[float]], threshold: float) -> list[list[float]]:
    rows = sorted(rows, key=lambda r: (-r[0], r[1], r[2], r[3], r[4]))
    groups: list[list[list[float]]] = []
    for row in rows:
        for group in groups:
            other, shared = group[0], 1.0
            for axis in (1, 2, 3):
                low = max(row[axis] - row[4] / 2, other[axis] - other[4] / 2)
                high = min(row[axis] + row[4] / 2, other[axis] + other[4] / 2)
                shared *= max(0.0, high - low)
            distance = sum((row[axis] - other[axis]) ** 2 for axis in (1, 2, 3)) ** 0.5
            same = shared / (row[4] ** 3 + other[4] ** 3 - shared) > threshold
            if same or distance < max(row[4], other[4]) / 4:
                if distance <= max(4.0, other[4] / 2):
                    group.append(row)
                break
        else:
            groups.append([row])
    result: list[list[float]] = []
    for group in groups:
        logit, *_, diameter = group[0]
        weights = [np.exp(row[0]) ** (1 / 3) for row in group]
        centre = [
            sum(w * row[axis] for w, row in zip(weights, group, strict=True)) / sum(weights) for axis in (1, 2, 3)
        ]
        if all(math.dist(centre, one[1:4]) >= max(4.0, diameter / 4, one[4] / 4) for one in result):
            result.append([logit, *centre, diameter])
    return result


def many(count: int, seed: int, extent: float) -> Candidates:
    draw = np.random.default_rng(seed)
    centre = draw.uniform(0, extent, (count, 3)).astype(np.float32)
    logit = draw.normal(0, 2, count).round(1).astype(np.float32)  # with ties
    return Candidates(logit, centre, draw.uniform(3, 30, count).astype(np.float32))


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.5])
def test_same_as_the_plain_version(threshold: float) -> None:
    candidates = many(300, 1, 60)
    found = as_rows(nms(candidates, iou_threshold=threshold))
    np.testing.assert_allclose(found, slow_nms(as_rows(candidates), threshold), rtol=1e-5)


def test_order_of_the_input_does_not_matter() -> None:
    candidates = many(500, 2, 100)
    shuffled = candidates.take(np.random.default_rng(0).permutation(500))
    assert as_rows(nms(candidates)) == as_rows(nms(shuffled))


def test_only_the_likeliest_take_part() -> None:
    found = nms(made(*[(float(i), 0, 0, 100.0 * i, 5) for i in range(10)]), max_candidates=3)
    assert found.logit.tolist() == [9, 8, 7]


@pytest.mark.parametrize("most", [0, 1, 20, 10_000])
def test_the_first_that_are_kept_do_not_depend_on_the_rest(most: int) -> None:
    candidates = many(1500, 4, 150)
    assert as_rows(nms(candidates, max_kept=most)) == as_rows(nms(candidates))[:most]


def test_many_candidates_are_quick() -> None:
    candidates = many(10_000, 3, 300)
    start = time.process_time()
    nms(candidates)
    assert time.process_time() - start < 2.0  # about 0.1 s
