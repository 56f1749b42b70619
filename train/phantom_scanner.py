"""The scanner: what it makes of a body on its 1 mm grid: slices, blur, noise, streaks, field of view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from train.phantom_fields import Floats

FLOOR_HU = -1024
"""Outside the field of view; a volume holds nothing lower."""
NOISE_SLICES = 16


@dataclass(frozen=True)
class Scanner:
    """How a scan is taken.

    Attributes:
        blur_mm: sigma of the in-plane point spread.
        sharp: 0 (smooth kernel) to 1 (edges enhanced, grainy noise).
        thickness_mm: slice thickness.
        noise_hu: standard deviation in the middle of the body.
        grain_mm: sigma of the noise's correlation in the plane.
        streaks: strength of horizontal streaks through the shoulders.
        circle: outside the circular field of view there is `padding_hu`.
    """

    blur_mm: float
    sharp: float
    thickness_mm: float
    noise_hu: float
    grain_mm: float
    streaks: float
    circle: bool
    padding_hu: int


def random_scanner(rng: np.random.Generator, slice_mm: float) -> Scanner:
    """A scanner with its protocol; thin slices and sharp kernels are noisier."""
    sharp = float(np.clip(rng.beta(1.1, 1.6), 0, 1))
    noise = float(rng.lognormal(2.35, 0.4) * (1 + 2.2 * sharp) * (1.8 / max(slice_mm, 0.8)) ** 0.5)
    return Scanner(
        blur_mm=float(rng.uniform(0.32, 0.45) + 0.22 * (1 - sharp)),
        sharp=sharp,
        thickness_mm=float(slice_mm * rng.choice((1.0, 1.0, 1.25, 1.6)) if slice_mm < 2.6 else slice_mm),
        noise_hu=min(noise, 75.0),
        grain_mm=float(0.75 - 0.4 * sharp),
        streaks=float(rng.uniform(0, 0.9)),
        circle=bool(rng.random() < 0.7),
        padding_hu=int(rng.choice((-1024, -2000, -2048, -3024))),
    )


def slice_weights(positions: NDArray[np.float64], n_in: int, width: float, sigma: float) -> list[tuple[int, Floats]]:
    """For each slice at `positions` (input samples): first input sample and weights of a box with soft ends."""
    result = []
    for p in positions:
        half = width / 2 + 2.5 * sigma
        first = max(0, int(np.ceil(p - half)))
        last = min(n_in - 1, int(np.floor(p + half)))
        if last < first:
            first = last = int(np.clip(round(p), 0, n_in - 1))
        d = np.abs(np.arange(first, last + 1) - p)
        w = 1 / (1 + np.exp((d - width / 2) / (0.45 * sigma)))
        result.append((first, (w / w.sum()).astype(np.float32)))
    return result


def blur_matrix(positions: NDArray[np.float64], n_in: int, sigma: float, sharp: float) -> sparse.csr_array:
    """(positions, n_in) weights: a Gaussian, less a wider one as `sharp` says (the overshoot of a lung kernel)."""
    first = np.floor(positions).astype(int)
    reach = int(np.ceil(3 * sigma * (1.8 if sharp > 0 else 1))) + 1
    index = first[:, None] + np.arange(1 - reach, reach + 1)
    d2 = (index - positions[:, None]) ** 2
    w = np.exp(-d2 / (2 * sigma**2))
    w /= w.sum(axis=1, keepdims=True)
    if sharp > 0:
        wide = np.exp(-d2 / (2 * (1.7 * sigma) ** 2))
        w = (1 + 0.35 * sharp) * w - 0.35 * sharp * wide / wide.sum(axis=1, keepdims=True)
    w[np.abs(w) < 1e-3] = 0
    w /= w.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(positions)), index.shape[1])
    matrix = sparse.coo_array(
        (w.ravel().astype(np.float32), (rows, np.clip(index, 0, n_in - 1).ravel())), shape=(len(positions), n_in)
    ).tocsr()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def noise_pool(rng: np.random.Generator, size: tuple[int, int], grain: float, sharp: float, count: int) -> Floats:
    """`count` slices of CT noise of unit variance: band-passed, as filtered back-projection makes it."""
    pool = rng.standard_normal((count, *size), dtype=np.float32)
    for k in range(count):
        soft = ndimage.gaussian_filter(pool[k], max(0.3, grain), mode="wrap", truncate=3)
        wide = ndimage.gaussian_filter(soft, 1.6 * max(0.6, grain), mode="wrap", truncate=2.5)
        pool[k] = soft - np.float32(0.45 + 0.35 * sharp) * wide
        pool[k] /= pool[k].std()
    return pool


def take_scan(
    rng: np.random.Generator,
    scanner: Scanner,
    body: Floats,
    step_mm: float,
    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.int16]:
    """The scan of `body` (z, y, x; HU at `step_mm`).

    Args:
        positions: of the scan's voxel centres in voxels of `body`, along z, y, x; beyond the body there is air.
    """
    z, y, x = positions
    pixel_mm = float(y[1] - y[0]) * step_mm
    slice_mm = float(z[1] - z[0]) * step_mm if len(z) > 1 else scanner.thickness_mm
    weights = slice_weights(z, body.shape[0], scanner.thickness_mm / step_mm, 0.35)
    rows = blur_matrix(y, body.shape[1], scanner.blur_mm / step_mm, scanner.sharp)
    columns = blur_matrix(x, body.shape[2], scanner.blur_mm / step_mm, scanner.sharp)
    size = (len(y), len(x))
    count = min(NOISE_SLICES, max(4, len(z)))
    pool = noise_pool(rng, size, scanner.grain_mm / pixel_mm, scanner.sharp, count)
    streak = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(pool, 26, axis=2, mode="wrap"), 0.5, axis=1)
    streak /= max(1e-6, float(streak.std()))
    overlap = float(np.clip(1 - slice_mm / scanner.thickness_mm, 0, 0.8))
    out = np.empty((len(z), *size), np.int16)
    outside = _outside(size) if scanner.circle else None
    shifts = rng.integers(0, 1 << 30, (len(z), 2, 3))
    mix = np.sqrt(0.5)
    before: Floats | None = None
    for k, (first, w) in enumerate(weights):
        flat = w[0] * body[first]
        for i in range(1, len(w)):
            flat += w[i] * body[first + i]
        image = np.ascontiguousarray((columns @ np.ascontiguousarray((rows @ flat).T)).T)
        coarse = np.clip(image[::8, ::8] / 1000 + 1, 0, 2.2)
        # attenuation along x and y through each point; noise grows with its root, and the shoulders make streaks
        along_x = coarse.sum(axis=1) * 8 * pixel_mm / 300
        along_y = coarse.sum(axis=0) * 8 * pixel_mm / 300
        load = ndimage.gaussian_filter(np.exp(0.55 * (along_x[:, None] + along_y[None, :]) - 0.55), 3)
        grown = np.repeat(np.repeat(np.clip(0.55 * load, 0.35, 3), 8, axis=0), 8, axis=1)[: size[0], : size[1]]
        a, b = shifts[k]
        grain = mix * _rolled(pool, a) + mix * _rolled(pool, b)
        if before is not None and overlap > 0:
            grain = np.sqrt(1 - overlap**2) * grain + overlap * before
        before = grain
        image += np.float32(scanner.noise_hu) * grown * grain
        heavy = np.clip(along_x - 1.2, 0, 1)
        if scanner.streaks > 0 and heavy.any():
            strength = np.repeat(ndimage.gaussian_filter1d(heavy, 2), 8)[: size[0], None]
            image += np.float32(160 * scanner.streaks) * strength.astype(np.float32) * _rolled(streak, a)
        np.rint(image, out=image)
        np.clip(image, -1023, 3071, out=image)
        if outside is not None:
            image[outside] = FLOOR_HU
        out[k] = image
    return out


def _rolled(pool: Floats, shift: NDArray[np.int64]) -> Floats:
    one = pool[int(shift[0]) % len(pool)]
    return np.roll(one, (int(shift[1]) % one.shape[0], int(shift[2]) % one.shape[1]), axis=(0, 1))


def _outside(size: tuple[int, int]) -> NDArray[np.bool_]:
    y, x = (np.arange(n) - (n - 1) / 2 for n in size)
    return np.asarray(np.hypot(y[:, None] / (size[0] / 2), x[None, :] / (size[1] / 2)) > 1)
