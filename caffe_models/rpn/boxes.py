"""Cubes round nodules and anchors: overlap, and the deltas that lead from an anchor to a nodule.

A cube is its centre (z, y, x) and its edge, in voxels; the edge of a nodule's cube is its diameter. The deltas are
those of the 3-D Faster R-CNN: centre = o + delta * a, diameter = a * exp(dlogd), with o the anchor's centre and a its
edge.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def overlap(centre_a: ArrayLike, edge_a: ArrayLike, centre_b: ArrayLike, edge_b: ArrayLike) -> Floats:
    """Length that two intervals, given by centre and length, have in common; 0 if they are apart. Broadcasts."""
    distance = np.abs(np.asarray(centre_a, np.float64) - np.asarray(centre_b, np.float64))
    a, b = np.asarray(edge_a, np.float64), np.asarray(edge_b, np.float64)
    shared: Floats = np.clip((a + b) / 2.0 - distance, 0.0, np.minimum(a, b))
    return shared


def iou(centre_a: ArrayLike, edge_a: ArrayLike, centre_b: ArrayLike, edge_b: ArrayLike) -> Floats:
    """(n, m) intersection over union of every cube of a with every cube of b; symmetric, 0 to 1.

    Args:
        centre_a: (n, 3) and `edge_a` (n,), above 0.
        centre_b: (m, 3) and `edge_b` (m,), above 0.
    """
    a = np.asarray(edge_a, np.float64).reshape(-1, 1)
    b = np.asarray(edge_b, np.float64).reshape(1, -1)
    centres_a = np.asarray(centre_a, np.float64).reshape(-1, 1, 3)
    centres_b = np.asarray(centre_b, np.float64).reshape(1, -1, 3)
    return iou_of_volumes(overlap(centres_a, a[..., None], centres_b, b[..., None]).prod(axis=-1), a, b)


def iou_of_volumes(intersection: Floats, edge_a: ArrayLike, edge_b: ArrayLike) -> Floats:
    """Intersection over union of cubes whose intersection is known."""
    # the sum of the volumes first: a + b is the same as b + a to the last bit, so the result is symmetric
    volumes = np.asarray(edge_a, np.float64) ** 3 + np.asarray(edge_b, np.float64) ** 3
    result: Floats = intersection / (volumes - intersection)
    return result


def encode(centre: ArrayLike, diameter: ArrayLike, anchor_centre: ArrayLike, anchor_edge: ArrayLike) -> Floats:
    """(n, 4) deltas (dz, dy, dx, dlogd) that lead from each anchor to its nodule.

    Args:
        centre: (n, 3) of the nodules and `diameter` (n,), above 0.
        anchor_centre: (n, 3) and `anchor_edge` (n,), above 0.
    """
    edge = np.asarray(anchor_edge, np.float64).reshape(-1, 1)
    shift = (np.asarray(centre, np.float64).reshape(-1, 3) - np.asarray(anchor_centre, np.float64)) / edge
    growth = np.log(np.asarray(diameter, np.float64).reshape(-1, 1) / edge)
    return np.concatenate([shift, growth], axis=1)


def decode(deltas: ArrayLike, anchor_centre: ArrayLike, anchor_edge: ArrayLike) -> tuple[Floats, Floats]:
    """Centres (n, 3) and diameters (n,) from (n, 4) deltas; the inverse of `encode`."""
    given = np.asarray(deltas, np.float64).reshape(-1, 4)
    edge = np.asarray(anchor_edge, np.float64).reshape(-1, 1)
    centre: Floats = np.asarray(anchor_centre, np.float64) + given[:, :3] * edge
    diameter: Floats = (np.exp(given[:, 3:]) * edge)[:, 0]
    return centre, diameter
