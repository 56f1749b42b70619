"""Labels of anchors: by hand, against overlaps computed for every anchor, and that targets decode to their nodules."""

import itertools

import numpy as np
import pytest

from caffe_models.rpn.anchors import ANCHORS_VOXEL, cell_centres
from caffe_models.rpn.boxes import decode, iou
from caffe_models.rpn.targets import IGNORED, POSITIVE, TargetRule, anchor_targets

CELLS = (8, 6, 10)
PADDING = [-1.0] * 5


def every_anchor() -> tuple[np.ndarray, np.ndarray]:
    """Centres and edges in the order of labels.ravel()."""
    grid = itertools.product(ANCHORS_VOXEL, *(cell_centres(n) for n in CELLS))
    table = np.array(list(grid))
    return table[:, 1:], table[:, 0]


def made(nodules: list[list[float]], rule: TargetRule | None = None, seed: int = 0) -> np.ndarray:
    result = anchor_targets(nodules, CELLS, rule or TargetRule(), np.random.default_rng(seed))
    assert result.shape == (15, *CELLS)
    assert result.dtype == np.float32
    return result


def test_an_empty_crop_is_background() -> None:
    assert not made([PADDING, PADDING]).any()


def test_a_nodule_on_an_anchor() -> None:
    """Diameter 10 on the centre of cell (3, 2, 5): the anchor of 10 there is the only one with enough overlap."""
    result = made([[13.5, 9.5, 21.5, 10, 1]])
    assert np.argwhere(result[::5] == POSITIVE).tolist() == [[1, 3, 2, 5]]
    np.testing.assert_allclose(result[6:10, 3, 2, 5], 0, atol=1e-7)
    assert result[0, 3, 2, 5] == IGNORED  # the anchor of 5 there overlaps by 1/8
    assert result[5, 7, 0, 0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_labels_agree_with_all_overlaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [[*(rng.uniform(-2, 4 * n + 2) for n in CELLS), rng.uniform(3, 30), k] for k in (1, 0, 1)]
    labels = made([*rows, PADDING])[::5].ravel()
    centres, edges = every_anchor()
    overlaps = iou(centres, edges, [r[:3] for r in rows], [r[3] for r in rows])
    background = overlaps.max(axis=1) < 0.02
    positive = labels == POSITIVE
    assert np.array_equal(labels == 0, background & ~positive)
    assert 1 <= positive.sum() <= 2
    for index in np.flatnonzero(positive):
        reached = [overlaps[index, k] >= min(0.5, overlaps[:, k].max() - 1e-9) for k in (0, 2)]
        assert any(reached)


def test_deltas_decode_to_the_nodule() -> None:
    result = made([[14.2, 8.1, 20.7, 7.3, 1]])
    (anchor, z, y, x), *more = np.argwhere(result[::5] == POSITIVE)
    assert not more
    deltas = result[5 * anchor + 1 : 5 * anchor + 5, z, y, x]
    origin = [cell_centres(n)[i] for n, i in zip(CELLS, (z, y, x), strict=True)]
    centre, diameter = decode(deltas, [origin], [ANCHORS_VOXEL[anchor]])
    np.testing.assert_allclose(centre, [[14.2, 8.1, 20.7]], atol=1e-5)
    np.testing.assert_allclose(diameter, [7.3], rtol=1e-6)


def test_of_equal_overlaps_the_nearest_is_taken() -> None:
    """40 across swallows several anchors of 20 whole; none has half of it in common."""
    result = made([[13.4, 9.6, 21.4, 40, 1]])
    assert np.argwhere(result[::5] == POSITIVE).tolist() == [[2, 3, 2, 5]]


def test_positives_are_drawn_at_random_among_the_good_ones() -> None:
    nodule = [13.5, 9.5, 21.5, 19.0, 1]
    good = iou(*every_anchor(), [nodule[:3]], [19.0])[:, 0] >= 0.5
    assert good.sum() == 7  # the cell's own anchor of 20 and its six neighbours
    drawn = {int(np.flatnonzero(made([nodule], seed=s)[::5].ravel() == POSITIVE)[0]) for s in range(60)}
    assert drawn == set(np.flatnonzero(good))


@pytest.mark.parametrize(("wanted", "found"), [(1, 1), (4, 4), (100, 7)])
def test_positives_per_nodule(wanted: int, found: int) -> None:
    labels = made([[13.5, 9.5, 21.5, 19.0, 1]], TargetRule(positives_per_nodule=wanted))[::5]
    assert (labels == POSITIVE).sum() == found


def test_ignored_nodules_only_spare_their_surroundings() -> None:
    labels = made([[13.5, 9.5, 21.5, 10, 0]])[::5]
    assert not (labels == POSITIVE).any()
    assert labels[1, 3, 2, 5] == IGNORED


def test_two_nodules_at_one_place_have_a_positive_each() -> None:
    labels = made([[13.5, 9.5, 21.5, 10, 1]] * 2)[::5]
    assert (labels == POSITIVE).sum() == 2


def test_a_nodule_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="diameter must be above 0"):
        made([[13.5, 9.5, 21.5, 0, 1]])
