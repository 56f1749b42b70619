"""Crops for training: which places of prepared scans are drawn. How they are varied stands in `train.augment`.

The batch of an iteration depends on (seed, iteration) alone. So a run that is killed and resumed sees the same crops
as one that never stopped, whatever was drawn ahead, and nothing about the data needs to stand in a snapshot.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.network_input import to_input
from train.augment import Crop, Variation, cut
from train.dataset import TARGET, DatasetError, PreparedScan
from train.mine import Hard
from train.python_layers import CropBatch
from train.surroundings import WALL_SHARE, dense_share

UNKNOWN = 0.5
"""How sure a model is taken to be of a nodule that it was not asked about."""

LEAST_SURE = 1e-4
"""Probabilities are taken to be this far from 0 and 1, where their odds would have no end."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Variation):
    """What is drawn; how it is varied stands in `train.augment.Variation`.

    Attributes:
        batch: crops in a batch.
        random_share: share of crops drawn anywhere in the lungs instead of round a nodule (the original: 0.3).
        hard_share: share of crops drawn round a false positive of the model before, where there are any; `random_share`
            is of the others.
        small_weight: how much more often a nodule under 10 mm is drawn than a larger one.
        wall_weight: how much more often one at the pleura or the mediastinum is drawn than a larger one that is not,
            whatever its size (`train.surroundings`).
        missed_weight: how much more often a nodule that the model before missed is drawn than one it was sure of.
        bound_voxel: least distance of the drawn nodule's centre from the crop's faces (the original: 12).
    """

    batch: int
    random_share: float = 0.3
    hard_share: float = 0.4
    small_weight: float = 2.0
    wall_weight: float = 4.0
    missed_weight: float = 3.0
    bound_voxel: float = 12.0


@dataclass(frozen=True)
class Choice:
    """One crop to be: `place` of scan number `scan` (z, y, x in its voxels) comes to lie at `target` of the crop."""

    kind: Literal["nodule", "random", "hard"]
    scan: int
    place: NDArray[np.float64]
    target: NDArray[np.float64]


class CropSource:
    """Batches by iteration: `source(iteration)` gives a `CropBatch`, the same each time it is asked.

    One batch is drawn ahead by a thread: SciPy's resampling and PyTorch both let go of the interpreter lock.

    Args:
        hard: what a model got wrong on these scans (`train.mine`); crops are then drawn round its false positives,
            the likelier ones more often (by the square root of their odds), and round nodules the more often, the less
            it was sure of them.

    Raises:
        DatasetError: no scan has a nodule that fits into the crop.
    """

    def __init__(self, scans: Sequence[PreparedScan], sampling: Sampling, seed: int, hard: Sequence[Hard] = ()) -> None:
        self.scans = list(scans)
        self.sampling = sampling
        self.seed = seed
        self._targets = [
            (s, n)
            for s, scan in enumerate(self.scans)
            for n, row in enumerate(scan.nodules)
            if row[4] == TARGET and row[3] <= 0.8 * sampling.crop
        ]
        if not self._targets:
            raise DatasetError(f"no prepared scan has a nodule that fits into a crop of {sampling.crop} voxels")
        diameters = np.array([self.scans[s].nodules[n, 3] for s, n in self._targets])
        number = {scan.seriesuid: s for s, scan in enumerate(self.scans)}
        self._false = [(number[one.seriesuid], row) for one in hard for row in one.false_positives]
        self._likely_false = _cumulative(_pull(np.array([row[4] for _, row in self._false], dtype=np.float64)))
        sure = {(number[one.seriesuid], _place(row)): float(row[4]) for one in hard for row in one.nodules}
        missed = np.array([1.0 - sure.get((s, _place(self.scans[s].nodules[n])), UNKNOWN) for s, n in self._targets])
        soft = np.array([dense_share(self.scans[s], self.scans[s].nodules[n]) for s, n in self._targets])
        size = np.where(diameters < 10.0, sampling.small_weight, 1.0)
        rare = np.where(soft > WALL_SHARE, np.maximum(size, sampling.wall_weight), size)
        self._likely = _cumulative(rare * (1.0 + (sampling.missed_weight - 1.0) * missed))
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crops")
        self._ahead: dict[int, Future[CropBatch]] = {}

    def __call__(self, iteration: int) -> CropBatch:
        ready = self._ahead.pop(iteration, None)
        self._ahead.clear()
        self._ahead[iteration + 1] = self._pool.submit(self.draw, iteration + 1)
        return ready.result() if ready is not None else self.draw(iteration)

    def close(self) -> None:
        """Let go of the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def draw(self, iteration: int) -> CropBatch:
        """The batch of this iteration, drawn now."""
        crops = [self._draw_crop(self._rng(iteration, k)) for k in range(self.sampling.batch)]
        return CropBatch(
            data=to_input(np.stack([c.voxels for c in crops])[:, None]),
            coord=np.stack([c.coord for c in crops]),
            nodules=np.stack([c.nodules for c in crops]),
            mining=np.array([c.mining for c in crops], dtype=np.float32),
        )

    def chosen(self, iteration: int) -> list[Choice]:
        """Why each crop of this iteration's batch was drawn, and from where; nothing is cut."""
        return [self._choose(self._rng(iteration, k)) for k in range(self.sampling.batch)]

    def _rng(self, iteration: int, k: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, iteration, k))

    def _draw_crop(self, rng: np.random.Generator) -> Crop:
        choice = self._choose(rng)
        return cut(self.scans[choice.scan], choice.place, choice.target, self.sampling, rng)

    def _choose(self, rng: np.random.Generator) -> Choice:
        size = self.sampling.crop
        middle = (size - 1) / 2.0
        if self._false and rng.random() < self.sampling.hard_share:
            s, mark = self._false[_drawn(self._likely_false, rng)]
            bound = min(self.sampling.bound_voxel * size / 128.0 + 4.0, middle)
            target = rng.uniform(bound, size - 1 - bound, 3)
            return Choice("hard", s, mark[:3].astype(np.float64), target)
        if rng.random() < self.sampling.random_share:
            s = int(rng.integers(len(self.scans)))
            return Choice("random", s, self.scans[s].random_lung_voxel(rng), np.full(3, middle))
        s, n = self._targets[_drawn(self._likely, rng)]
        nodule = self.scans[s].nodules[n]
        bound = min(max(self.sampling.bound_voxel * size / 128.0 + 4.0, 0.6 * float(nodule[3])), middle)
        target = rng.uniform(bound, size - 1 - bound, 3) if bound < middle else np.full(3, middle)
        return Choice("nodule", s, nodule[:3].astype(np.float64), target)


def _pull(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often a false positive is drawn: by the square root of its odds.

    Hard mining shows as many hard negatives as nodules, so a model that is not calibrated yet calls all of a scan's
    60 false positives likely: by the probability, the surest one would be drawn two or three times as often as the
    last. Whatever is added to all logits leaves these shares as they are. By the odds themselves 50 of the 1380 that
    level 6 left in 23 scans would get half.
    """
    p = np.clip(probability, LEAST_SURE, 1.0 - LEAST_SURE)
    return np.sqrt(p / (1.0 - p))


def _place(row: NDArray[np.float32]) -> tuple[float, ...]:
    """A nodule's centre as a key: to a tenth of a voxel, as far as files agree."""
    return tuple(np.round(row[:3].astype(np.float64), 1).tolist())


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the weights up to each, of the sum of all: what `_drawn` draws by."""
    sums = np.cumsum(weights)
    return sums / sums[-1:]


def _drawn(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """As `rng.choice` with these weights draws, which adds them up each time: .2 ms for 36,000 false positives."""
    return int(cumulative.searchsorted(rng.random(), side="right"))
