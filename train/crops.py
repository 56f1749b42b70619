"""Crops for training, drawn from prepared scans and augmented.

The batch of an iteration depends on (seed, iteration) alone. So a run that is killed and resumed sees the same crops
as one that never stopped, whatever was drawn ahead, and nothing about the data needs to stand in a snapshot.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from runtime.network_input import OUTSIDE, STRIDE, to_input
from train.dataset import IGNORE, TARGET, DatasetError, PreparedScan
from train.mine import Hard
from train.python_layers import CropBatch

PADDING = -1.0
MAX_NODULES = 12
UNKNOWN = 0.5
"""How sure a model is taken to be of a nodule that it was not asked about."""


@dataclass(frozen=True)
class Sampling:
    """What is drawn, and how it is varied.

    Attributes:
        crop: edge of the cubic crop in voxels, a multiple of 16.
        batch: crops in a batch.
        random_share: share of crops drawn anywhere in the lungs instead of round a nodule (the original: 0.3).
        hard_share: share of crops drawn round a false positive of the model before, where there are any; `random_share`
            is of the others.
        small_weight: how much more often a nodule under 10 mm is drawn than a larger one.
        missed_weight: how much more often a nodule that the model before missed is drawn than one it was sure of.
        bound_voxel: least distance of the drawn nodule's centre from the crop's faces (the original: 12).
        scale: range of random magnification.
        tilt_deg: largest rotation about the x and y axes; about z it is free.
        noise: largest standard deviation of added noise, in grey levels of 7 HU.
        blur_voxel: largest standard deviation of the Gaussian blur.
        shift: largest offset of all grey levels.
    """

    crop: int
    batch: int
    random_share: float = 0.3
    hard_share: float = 0.4
    small_weight: float = 2.0
    missed_weight: float = 3.0
    bound_voxel: float = 12.0
    scale: tuple[float, float] = (0.8, 1.25)
    tilt_deg: float = 15.0
    noise: float = 6.0
    blur_voxel: float = 0.7
    shift: float = 6.0


@dataclass(frozen=True)
class Crop:
    """One crop: `voxels` (z, y, x) float32 grey levels, `coord` (3, z/4, y/4, x/4), `nodules` (MAX_NODULES, 5)."""

    voxels: NDArray[np.float32]
    coord: NDArray[np.float32]
    nodules: NDArray[np.float32]
    mining: bool


class CropSource:
    """Batches by iteration: `source(iteration)` gives a `CropBatch`, the same each time it is asked.

    One batch is drawn ahead by a thread: SciPy's resampling and PyTorch both let go of the interpreter lock.

    Args:
        hard: what a model got wrong on these scans (`train.mine`); crops are then drawn round its false positives,
            the likelier ones more often, and round nodules the more often, the less it was sure of them.

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
        self._false_weights = _shares([row[4] for _, row in self._false])
        sure = {(number[one.seriesuid], _place(row)): float(row[4]) for one in hard for row in one.nodules}
        missed = np.array([1.0 - sure.get((s, _place(self.scans[s].nodules[n])), UNKNOWN) for s, n in self._targets])
        small = np.where(diameters < 10.0, sampling.small_weight, 1.0)
        self._weights = _shares(small * (1.0 + (sampling.missed_weight - 1.0) * missed))
        self._lung_voxels = [np.flatnonzero(scan.lung).astype(np.int32) for scan in self.scans]
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
        crops = [self._draw_crop(np.random.default_rng((self.seed, iteration, k))) for k in range(self.sampling.batch)]
        return CropBatch(
            data=to_input(np.stack([c.voxels for c in crops])[:, None]),
            coord=np.stack([c.coord for c in crops]),
            nodules=np.stack([c.nodules for c in crops]),
            mining=np.array([c.mining for c in crops], dtype=np.float32),
        )

    def _draw_crop(self, rng: np.random.Generator) -> Crop:
        size = self.sampling.crop
        middle = (size - 1) / 2.0
        if self._false and rng.random() < self.sampling.hard_share:
            s, mark = self._false[int(rng.choice(len(self._false), p=self._false_weights))]
            bound = min(self.sampling.bound_voxel * size / 128.0 + 4.0, middle)
            target = rng.uniform(bound, size - 1 - bound, 3)
            return cut(self.scans[s], mark[:3].astype(np.float64), target, self.sampling, rng)
        if rng.random() < self.sampling.random_share:
            s = int(rng.integers(len(self.scans)))
            flat = self._lung_voxels[s]
            shape = self.scans[s].voxels.shape
            place = np.array(np.unravel_index(int(flat[rng.integers(len(flat))]), shape), dtype=np.float64)
            return cut(self.scans[s], place, np.full(3, middle), self.sampling, rng)
        s, n = self._targets[int(rng.choice(len(self._targets), p=self._weights))]
        nodule = self.scans[s].nodules[n]
        bound = min(max(self.sampling.bound_voxel * size / 128.0 + 4.0, 0.6 * float(nodule[3])), middle)
        target = rng.uniform(bound, size - 1 - bound, 3) if bound < middle else np.full(3, middle)
        return cut(self.scans[s], nodule[:3].astype(np.float64), target, self.sampling, rng)


def _place(row: NDArray[np.float32]) -> tuple[float, ...]:
    """A nodule's centre as a key: to a tenth of a voxel, as far as files agree."""
    return tuple(np.round(row[:3].astype(np.float64), 1).tolist())


def _shares(weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that add up to 1."""
    array = np.asarray(weights, dtype=np.float64)
    return array / array.sum() if len(array) else array


def random_matrix(sampling: Sampling, rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) matrix that takes crop offsets (z, y, x) to scan offsets: rotation, flips and magnification.

    The rotation about z is free, the tilts are small: patients lie, and slices are thicker than pixels.
    """
    tilt = np.deg2rad(sampling.tilt_deg)
    angles = rng.uniform(-1, 1, 3) * np.array([np.pi, tilt, tilt])
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    flips = np.where(rng.random(3) < 0.5, -1.0, 1.0)
    return np.asarray(matrix * flips / rng.uniform(*sampling.scale))


def cut(
    scan: PreparedScan,
    place: NDArray[np.float64],
    target: NDArray[np.float64],
    sampling: Sampling,
    rng: np.random.Generator,
) -> Crop:
    """Cut a crop in which the scan's voxel position `place` (z, y, x) comes to lie at the crop's `target`.

    The coordinate channels carry the true position of each output cell in the scan, whatever the rotation.
    """
    size = sampling.crop
    matrix = random_matrix(sampling, rng)
    voxels = ndimage.affine_transform(
        scan.voxels,
        matrix,
        offset=place - matrix @ target,
        output_shape=(size, size, size),
        output=np.float32,
        order=1,
        mode="constant",
        cval=OUTSIDE,
    )
    cells = STRIDE * np.arange(size // STRIDE) + (STRIDE - 1) / 2.0
    offsets = np.stack(np.meshgrid(*(cells - t for t in target), indexing="ij"))
    position = np.einsum("ij,jzyx->izyx", matrix, offsets) + place[:, None, None, None]
    extent = np.array(scan.voxels.shape, dtype=np.float64)[:, None, None, None]
    coord = ((position + 0.5) / extent - 0.5).astype(np.float32)
    inverse = np.linalg.inv(matrix)
    magnification = float(np.cbrt(abs(np.linalg.det(inverse))))
    rows = np.full((MAX_NODULES, 5), PADDING, dtype=np.float32)
    count = 0
    for z, y, x, diameter, kind in scan.nodules:
        where = inverse @ (np.array((z, y, x)) - place) + target
        radius = diameter * magnification / 2.0
        if count == MAX_NODULES or np.any(where < -radius) or np.any(where > size - 1 + radius):
            continue
        inside = bool(np.all(where >= 0) and np.all(where <= size - 1))
        rows[count] = (*where, diameter * magnification, kind if inside else IGNORE)
        count += 1
    return Crop(vary(voxels, sampling, rng), coord, rows, scan.mining)


def vary(voxels: NDArray[np.float32], sampling: Sampling, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur, noise and an offset on a crop's grey levels; what the lung mask has cut away stays as it is."""
    inside = np.abs(voxels - OUTSIDE) > 0.5
    out = voxels
    sigma = rng.uniform(0, sampling.blur_voxel)
    if sigma > 0.25:
        out = ndimage.gaussian_filter(out, sigma, truncate=2.5)
    level = rng.uniform(0, sampling.noise)
    noise = rng.standard_normal(voxels.shape, dtype=np.float32)
    if rng.random() < 0.5:  # reconstruction kernels leave noise that is correlated over about a voxel
        noise = ndimage.gaussian_filter(noise, 0.6, truncate=2.5) * 2.2
    out = out + np.float32(level) * noise + np.float32(rng.uniform(-sampling.shift, sampling.shift))
    return np.where(inside, np.clip(out, 0, 255), voxels).astype(np.float32)
