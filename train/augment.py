"""A crop cut out of a prepared scan and varied: turned, mirrored, scaled, warped; blurred, sharpened, noisy, shifted.

Geometry is one map from crop to scan, sampled once. The nodules' rows and the coordinate channels follow the same map.
The elastic warp is that of Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to
visual document analysis" (2003), with a cubic B-spline in place of their Gaussian. What is done to grey levels stands
for the ways of other scanners: slice thickness, reconstruction kernel, dose, calibration, depth of breath.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from runtime.network_input import OUTSIDE, STRIDE
from train.dataset import IGNORE, PreparedScan

PADDING = -1.0
MAX_NODULES = 12
LUNG = 50.0
"""Grey level of lung tissue (about -850 HU), which stays as it is when the contrast varies."""

Floats = NDArray[np.floating[Any]]
Voxels = NDArray[np.float32]


@dataclass(frozen=True)
class Variation:
    """How a crop is varied; every range is drawn from uniformly unless said otherwise.

    Attributes:
        crop: edge of the cubic crop in voxels, a multiple of 16.
        scale: range of random magnification.
        tilt_deg: largest rotation about the x and y axes; about z it is free.
        warp_share: share of crops that are warped.
        warp_voxel: largest displacement along an axis.
        warp_spacing: range of the distance between the warp's control points, in voxels.
        blur_voxel: largest standard deviation of the Gaussian blur.
        sharpen_share: share of crops that are sharpened instead of blurred.
        sharpen: largest weight of the unsharp mask.
        thick_voxel: largest standard deviation of the blur along the scan's z axis: a slice of 3 mm has 0.9.
        noise: largest standard deviation of added noise, in grey levels of 7 HU; drawn as its square, so mostly low.
        contrast: largest relative change of contrast about the grey level of lung.
        shift: largest offset of all grey levels.
    """

    crop: int
    scale: tuple[float, float] = (0.8, 1.25)
    tilt_deg: float = 15.0
    warp_share: float = 0.5
    warp_voxel: float = 2.5
    warp_spacing: tuple[float, float] = (16.0, 24.0)
    blur_voxel: float = 0.7
    sharpen_share: float = 0.3
    sharpen: float = 0.8
    thick_voxel: float = 1.0
    noise: float = 10.0
    contrast: float = 0.07
    shift: float = 6.0


@dataclass(frozen=True)
class Crop:
    """One crop: `voxels` (z, y, x) float32 grey levels, `coord` (3, z/4, y/4, x/4), `nodules` (MAX_NODULES, 5).

    `mining` is False if a nodule in it has no row, because nobody marked it or there were too many.
    """

    voxels: Voxels
    coord: NDArray[np.float32]
    nodules: NDArray[np.float32]
    mining: bool


@dataclass(frozen=True)
class Warp:
    """A smooth displacement: a cubic B-spline over the crop.

    Attributes:
        control: (3, n, n, n), displacement (z, y, x) in scan voxels; the first control point lies one spacing before
            the crop's first voxel.
        spacing: crop voxels between control points.
        size: edge of the crop.
    """

    control: Floats
    spacing: float
    size: int

    def weights(self, along: Floats) -> Floats:
        """(p, n): what each control point along one axis weighs at crop positions `along` (p,), kept to the crop."""
        count = self.control.shape[1]
        cells = np.clip(along, 0, self.size - 1) / self.spacing
        first = np.minimum(np.floor(cells).astype(int), count - 4)
        t = cells - first
        four = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
        result = np.zeros((len(t), count))
        np.put_along_axis(result, first[:, None] + np.arange(4), four, axis=1)
        return result

    def at(self, points: Floats) -> Floats:
        """Displacements (p, 3) at crop positions (p, 3)."""
        z, y, x = np.moveaxis(self.weights(points.reshape(-1)).reshape(*points.shape, -1), 1, 0)
        lines = np.einsum("izyx,pz->piyx", self.control, z)
        return np.asarray(np.einsum("piyx,py,px->pi", lines, y, x))


@dataclass(frozen=True)
class CropMap:
    """Where a crop comes from: scan position = matrix @ crop position + offset + warp at the crop position."""

    matrix: Floats
    offset: Floats
    warp: Warp | None

    def grid(self, along: Floats) -> Voxels:
        """Scan positions (3, p, p, p) of the crop positions `along` (p,) on all three axes."""
        if self.warp is None:
            axes = np.meshgrid(along, along, along, indexing="ij")
            flat = self.matrix @ np.stack(axes).reshape(3, -1) + self.offset[:, None]
            return flat.reshape(3, *axes[0].shape).astype(np.float32)
        # A B-spline reproduces a linear function from its values at the control points: the warp takes the rest along.
        count = self.warp.control.shape[1]
        lattice = CropMap(self.matrix, self.offset, None).grid((np.arange(count) - 1) * self.warp.spacing)
        control = (lattice + self.warp.control).astype(np.float32)
        weights = self.warp.weights(along).astype(np.float32)
        lines = np.einsum("zyxi,bx->izyb", np.moveaxis(control, 0, 3), weights)
        planes = np.einsum("ay,izyb->izab", weights, lines)
        # einsum, not @: BLAS's threads would wait, spinning, for cores on which the network computes
        return np.asarray(np.einsum("az,izyx->iayx", weights, planes))

    def to_scan(self, points: Floats) -> Floats:
        """Scan positions (p, 3) of crop positions (p, 3)."""
        straight = points @ self.matrix.T + self.offset
        return straight if self.warp is None else straight + self.warp.at(points)

    def to_crop(self, point: Floats) -> Floats:
        """The crop position (3,) that comes from the scan position `point` (3,), to a hundredth of a voxel.

        Fixed-point iteration: the warp changes far less from voxel to voxel than the rest of the map does.
        """
        inverse = np.linalg.inv(self.matrix)
        found = inverse @ (point - self.offset)
        for _ in range(30 if self.warp is not None else 0):
            step = inverse @ (point - self.to_scan(found[None])[0])
            found = found + step
            if np.abs(step).max() < 0.01:
                break
        return np.asarray(found)

    def magnification(self, point: Floats, reach: float) -> float:
        """How much larger than in the scan a ball of radius `reach` about the crop position `point` is in the crop."""
        steps = reach * np.eye(3)
        jacobian = (self.to_scan(point + steps) - self.to_scan(point - steps)) / (2 * reach)
        return float(1 / np.cbrt(abs(np.linalg.det(jacobian))))


def random_matrix(sampling: Variation, rng: np.random.Generator) -> Floats:
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


def random_warp(sampling: Variation, still: Floats, rng: np.random.Generator) -> Warp:
    """A warp that leaves the crop position `still` (3,) where it is."""
    spacing = rng.uniform(*sampling.warp_spacing)
    count = int(np.ceil((sampling.crop - 1) / spacing)) + 3
    raw = Warp(rng.uniform(-1, 1, (3, count, count, count)), spacing, sampling.crop)
    knots = raw.weights(np.linspace(0, sampling.crop - 1, count))
    moved = raw.control
    for path in ("izyx,az->iayx", "iayx,by->iabx", "iabx,cx->iabc"):  # one by one, not by a path that asks BLAS
        moved = np.einsum(path, moved, knots)
    largest = np.abs(moved).max()
    control = raw.control * (rng.uniform(0, sampling.warp_voxel) / largest)
    rest = Warp(control, spacing, sampling.crop).at(still[None])[0]
    return Warp(control - rest[:, None, None, None], spacing, sampling.crop)


def cut(scan: PreparedScan, place: Floats, target: Floats, sampling: Variation, rng: np.random.Generator) -> Crop:
    """Cut a crop in which the scan's voxel position `place` (z, y, x) comes to lie at the crop's `target`.

    The coordinate channels carry the true position of each output cell in the scan, whatever the map.
    """
    size = sampling.crop
    matrix = random_matrix(sampling, rng)
    offset = place - matrix @ target
    warp = random_warp(sampling, target, rng) if rng.random() < sampling.warp_share else None
    crop_map = CropMap(matrix, offset, warp)
    how: dict[str, Any] = {"output": np.float32, "order": 1, "mode": "constant", "cval": OUTSIDE}
    if warp is None:
        voxels = ndimage.affine_transform(scan.voxels, matrix, offset=offset, output_shape=(size,) * 3, **how)
    else:
        voxels = ndimage.map_coordinates(scan.voxels, crop_map.grid(np.arange(size, dtype=np.float64)), **how)
    position = crop_map.grid(STRIDE * np.arange(size // STRIDE) + (STRIDE - 1) / 2.0)
    extent = np.array(scan.shape, dtype=np.float32)[:, None, None, None]
    coord = ((position + 0.5) / extent - 0.5).astype(np.float32)
    along_z = np.linalg.inv(matrix)[:, 0]
    rows, complete = _rows(scan, crop_map, size)
    return Crop(vary(voxels, along_z, sampling, rng), coord, rows, scan.mining and complete)


def _rows(scan: PreparedScan, crop_map: CropMap, size: int) -> tuple[NDArray[np.float32], bool]:
    """The scan's nodules in the crop's voxels, and whether all of them found room.

    A nodule whose centre is outside the crop is to be ignored. If there are more than MAX_NODULES, targets come first,
    and the crop must not be mined: one without a row would be taken for a false positive.
    """
    found: list[tuple[float, ...]] = []
    inverse = np.linalg.inv(crop_map.matrix)
    plain = float(np.cbrt(abs(np.linalg.det(inverse))))
    room = 10.0 if crop_map.warp is not None else 0.0  # what no warp moves a nodule by
    known = scan.nodules.astype(np.float64)
    straight = (known[:, :3] - crop_map.offset) @ inverse.T
    reach = known[:, 3:4] * plain / 2.0 + room
    for row in known[np.all((straight >= -reach) & (straight <= size - 1 + reach), axis=1)]:
        point, diameter, kind = row[:3], float(row[3]), float(row[4])
        where = crop_map.to_crop(point)
        across = diameter * crop_map.magnification(where, diameter * plain / 2.0)
        if np.any(where < -across / 2) or np.any(where > size - 1 + across / 2):
            continue
        inside = bool(np.all(where >= 0) and np.all(where <= size - 1))
        found.append((*where, across, kind if inside else IGNORE))
    found.sort(key=lambda row: -row[4])
    rows = np.full((MAX_NODULES, 5), PADDING, dtype=np.float32)
    rows[: len(found)] = np.reshape(found[:MAX_NODULES], (-1, 5))
    return rows, len(found) <= MAX_NODULES


def vary(voxels: Voxels, along_z: Floats, sampling: Variation, rng: np.random.Generator) -> Voxels:
    """Grey levels as another scanner gives them; what the lung mask has cut away stays exactly as it is.

    Thick slices and a soft kernel blur; then noise comes; a sharp kernel enhances edges and noise alike; last comes
    the calibration.

    Args:
        voxels: (z, y, x) grey levels; not changed.
        along_z: (3,) the step in the crop, in voxels (z, y, x), of one voxel along the scan's z axis.
        sampling: how far to go.
        rng: what to draw from.
    """
    thick = rng.uniform(0, sampling.thick_voxel) * np.abs(along_z)
    sharp = rng.uniform(0, sampling.sharpen) if rng.random() < sampling.sharpen_share else 0.0
    soft = rng.uniform(0, sampling.blur_voxel) if sharp == 0.0 else 0.0
    out = smooth(voxels, np.hypot(thick, soft))
    out = voxels.copy() if out is voxels else out
    level = sampling.noise * rng.random() ** 2
    noise = rng.standard_normal(voxels.shape, dtype=np.float32)
    if rng.random() < 0.5:  # reconstruction kernels leave noise that is correlated over about a voxel
        sigmas = np.hypot(thick, rng.uniform(0.4, 0.8))
        noise = smooth(noise, sigmas)
        level /= np.prod([np.sqrt(np.square(kernel(sigma)).sum()) for sigma in sigmas])
    noise *= np.float32(level)
    out += noise
    if sharp > 0.0:
        soft_copy = smooth(out, np.full(3, rng.uniform(0.7, 1.1)))
        out *= np.float32(1 + sharp)
        soft_copy *= np.float32(sharp)
        out -= soft_copy
    slope = rng.uniform(1 - sampling.contrast, 1 + sampling.contrast)
    out *= np.float32(slope)
    out += np.float32(LUNG * (1 - slope) + rng.uniform(-sampling.shift, sampling.shift))
    np.clip(out, 0, 255, out=out)
    np.copyto(out, voxels, where=np.abs(voxels - OUTSIDE) <= 0.5)
    return out


def kernel(sigma: float) -> Floats:
    """A Gaussian's weights, to 2.5 sigma; a sigma up to 0.25 voxels does nothing."""
    reach = int(2.5 * sigma + 0.5) if sigma > 0.25 else 0
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / max(sigma, 1e-6)))
    return np.asarray(weights / weights.sum())


def smooth(voxels: Voxels, sigmas: Floats) -> Voxels:
    """Gaussian blur with a standard deviation for each axis; the very array if there is nothing to do.

    Sums of shifted arrays in float32: for crops that fit into a cache, in a third of the time of SciPy's `correlate1d`.
    """
    for axis, sigma in enumerate(sigmas):
        weights = kernel(float(sigma)).astype(np.float32)
        reach = len(weights) // 2
        if not reach:
            continue
        size, before = voxels.shape[axis], (slice(None),) * axis
        shape = list(voxels.shape)
        shape[axis] += 2 * reach
        wide = np.empty(shape, np.float32)  # as np.pad's "edge" makes it, which takes as long as the sums
        wide[*before, reach:-reach] = voxels
        wide[*before, :reach] = voxels[*before, :1]
        wide[*before, -reach:] = voxels[*before, -1:]
        shifted = [wide[*before, k : k + size] for k in range(2 * reach + 1)]
        voxels = weights[reach] * shifted[reach]
        for k in range(reach):
            pair = shifted[k] + shifted[2 * reach - k]
            pair *= weights[k]
            voxels += pair
    return voxels
