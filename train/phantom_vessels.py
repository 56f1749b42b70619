"""Branching trees that fill the lungs: arteries with the bronchi beside them, veins between them.

A branch grows towards the middle of the points it has to supply, then these are split in two by the plane of their
greatest spread (after Tawhai et al., Ann Biomed Eng 2000); radii follow Murray's law from the tips to the root.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.phantom_fields import Points, hermite

EARLY = 0.6
"""The largest vessels divide soon; without this each lobe has one thick star in its middle."""


@dataclass(frozen=True)
class Tree:
    """Branches: from `start[i]` to `end[i]` (x, y, z mm), children of `parent[i]` (-1: root).

    `tips` counts the tips that a branch supplies; `radius` is in mm.
    """

    start: Points
    end: Points
    parent: NDArray[np.int64]
    tips: NDArray[np.int64]
    radius: Points

    def curve(self, step: float, wanted: NDArray[np.bool_], offset: Points | None = None) -> tuple[Points, Points]:
        """Points and radii along the branches `wanted`, smoothly bent, about every `step` mm."""
        own = self.end - self.start
        length = np.linalg.norm(own, axis=1, keepdims=True)
        unit = own / np.maximum(length, 1e-6)
        before = np.where(self.parent[:, None] >= 0, unit[self.parent], unit)
        tangent_end = unit + 0.0
        tangent_start = 0.6 * before + unit
        tangent_start /= np.maximum(np.linalg.norm(tangent_start, axis=1, keepdims=True), 1e-6)
        root_radius = np.where(self.parent >= 0, self.radius[self.parent], self.radius)
        r0 = np.minimum(root_radius, self.radius * 1.25)
        shift0 = np.zeros_like(self.start)
        shift1 = shift0
        if offset is not None:
            shift1 = offset
            shift0 = np.where(self.parent[:, None] >= 0, offset[self.parent], offset)
        i = np.flatnonzero(wanted)
        return hermite(
            (self.start + shift0)[i], (self.end + shift1)[i], (tangent_start * length)[i], (tangent_end * length)[i],
            r0[i], (self.radius * 0.92)[i], step,
        )  # fmt: skip


def grow(
    rng: np.random.Generator,
    root: Points,
    groups: list[Points],
    tip_radius: float,
    exponent: float,
    reach: tuple[float, float] = (0.36, 0.62),
) -> Tree:
    """A tree from `root` (x, y, z) to every point; the first division follows `groups` (one array (n, 3) a lobe)."""
    start: list[Points] = []
    end: list[Points] = []
    parent: list[int] = []
    tips: list[int] = []
    todo: list[tuple[Points, int, Points, int]] = [(root, -1, g, 0) for g in groups if len(g)]
    while todo:
        here, mother, points, depth = todo.pop()
        n = len(points)
        if n == 1:
            goal = points[0]
        else:
            goal = here + (points.mean(axis=0) - here) * rng.uniform(*reach) * (EARLY if n > 250 else 1)
            goal = goal + rng.normal(0, 0.035, 3) * float(np.abs(goal - here).sum())
        index = len(start)
        start.append(here)
        end.append(goal)
        parent.append(mother)
        tips.append(n)
        if n == 1:
            continue
        if n == 2:
            halves = (points[:1], points[1:])
        else:
            middle = points - points.mean(axis=0)
            along = goal - here
            along = along / max(1e-6, float(np.sqrt(along @ along)))
            flat = middle - (middle * along).sum(axis=1)[:, None] * along * 0.7
            _, vectors = np.linalg.eigh(np.einsum("ki,kj->ij", flat, flat))
            height = (middle * vectors[:, 2]).sum(axis=1)
            cut = min(n - 1, max(1, round(n * float(rng.uniform(0.2, 0.55)))))
            order = np.argpartition(height, cut)
            halves = (points[order[:cut]], points[order[cut:]])
        todo.extend((goal, index, half, depth + 1) for half in halves)
    count = np.asarray(tips)
    flow = np.zeros(count.size)
    tip = tip_radius * rng.uniform(0.75, 1.3, count.size)
    mothers = np.asarray(parent)
    for i in range(count.size - 1, -1, -1):  # children stand after their mothers
        if count[i] == 1:
            flow[i] = tip[i] ** exponent
        if mothers[i] >= 0:
            flow[mothers[i]] += flow[i]
    return Tree(np.asarray(start), np.asarray(end), mothers, count, flow ** (1 / exponent))


def beside(tree: Tree, towards: Points, gap: float = 0.4) -> Points:
    """Offset of the bronchus from each artery's end: at right angles to it, on the side `towards`, touching walls."""
    own = tree.end - tree.start
    unit = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-6)
    side = towards - (unit * towards).sum(axis=1)[:, None] * unit
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 0.3)
    return np.asarray(side * (1.95 * tree.radius + gap)[:, None])
