"""Tools to draw anatomy on a grid: where the grid lies in the body, coarse fields made fine, tubes, smooth noise.

Large organs are signed distances (mm, negative inside) on a grid four times coarser; a cubic upsampling gives their
outlines at full resolution with partial volume at the edge. Tubes and other thin things are splatted, ball by ball,
into the full grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Numbers = float | NDArray[np.floating[Any]]

COARSE = 4
TILE = 48
PAD = 2
"""Coarse nodes beyond each end of the grid, for the cubic kernel."""


@dataclass(frozen=True)
class Space:
    """The grid on which a body is drawn, and where the body lies on it.

    Attributes:
        shape: voxels (z, y, x).
        step_mm: isotropic voxel size.
        low_mm: (x, y, z) of voxel 0.
        rotation: (3, 3), grid mm to body axes.
        scale: (3,) size of this body against the standard one, along x, y, z.
        waves: (n, 7): wave vector (3), amplitude vector (3), phase of the smooth deformation that makes it personal.
    """

    shape: tuple[int, int, int]
    step_mm: float
    low_mm: Points
    rotation: Points
    scale: Points
    waves: Points

    def _bend(self, p: Points) -> Points:
        moved = np.zeros_like(p)
        for wave in self.waves:
            moved += (
                np.sin(p[..., 0] * wave[0] + p[..., 1] * wave[1] + p[..., 2] * wave[2] + wave[6])[..., None] * wave[3:6]
            )
        return moved

    def to_body(self, mm: Points) -> Points:
        """Standard-body (x, y, z) mm of grid positions in mm."""
        p = np.einsum("...j,ij->...i", mm, self.rotation) / self.scale
        return np.asarray(p + self._bend(p))

    def to_voxel(self, body: Points) -> Points:
        """Grid index (z, y, x), with fractions, of standard-body positions (x, y, z) mm."""
        p = body.copy()
        for _ in range(4):
            p = body - self._bend(p)
        mm = np.einsum("...j,ji->...i", p * self.scale, self.rotation)
        return np.asarray((mm - self.low_mm) / self.step_mm)[..., ::-1]

    def coarse_body(self) -> tuple[Floats, Floats, Floats]:
        """Standard-body x, y, z at the coarse nodes, each (z, y, x)."""
        axes = [
            self.low_mm[2 - a] + (np.arange(coarse_size(self.shape[a])) - PAD) * COARSE * self.step_mm for a in range(3)
        ]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        body = self.to_body(np.stack([x, y, z], axis=-1)).astype(np.float32)
        return body[..., 0], body[..., 1], body[..., 2]


def coarse_size(n: int) -> int:
    """Coarse nodes for `n` fine voxels."""
    return -(-n // COARSE) + 1 + 2 * PAD


def cubic_matrix(n: int, step: float = COARSE, offset: float = PAD) -> Floats:
    """(n, coarse nodes) weights of Keys' cubic convolution (a = -0.5); fine voxel i lies at node i/step + offset."""
    position = np.arange(n) / step + offset
    distance = np.abs(position[:, None] - np.arange(int(np.ceil((n - 1) / step)) + 2 * int(offset) + 2))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0)).astype(np.float32)


class Upsampler:
    """Makes slabs of the full grid out of coarse fields."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.matrices = [cubic_matrix(n)[:, : coarse_size(n)] for n in shape]

    def box(self, coarse: Floats, below: float) -> tuple[slice, slice, slice] | None:
        """Fine box that holds all of `coarse < below`; None if there is nothing."""
        found = coarse < below
        slices = []
        for axis in range(3):
            hit = np.flatnonzero(found.any(axis=tuple(a for a in range(3) if a != axis)))
            if not hit.size:
                return None
            low = max(0, (int(hit[0]) - PAD - 1) * COARSE)
            slices.append(slice(low, max(low, min(self.shape[axis], (int(hit[-1]) - PAD + 1) * COARSE + 1))))
        return slices[0], slices[1], slices[2]

    def __call__(self, coarse: Floats, box: tuple[slice, slice, slice]) -> Floats:
        """`coarse` at the fine voxels of `box`, float32."""
        mz, my, mx = (m[s] for m, s in zip(self.matrices, box, strict=True))
        # only the nodes that the box touches
        cut = []
        trimmed = []
        for m in (mz, my, mx):
            used = np.flatnonzero(m.any(axis=0))
            cut.append(slice(int(used[0]), int(used[-1]) + 1))
            trimmed.append(m[:, cut[-1]])
        c = coarse[tuple(cut)]
        return upsample(c, trimmed)


def upsample(coarse: Floats, matrices: Sequence[Floats]) -> Floats:
    """`coarse` (z, y, x) times a matrix (fine, coarse) along each axis.

    Sparse products, the costly axis last: they are as fast as BLAS here, and unlike BLAS give the same bits whatever
    the number of threads.
    """
    mz, my, mx = (sparse.csr_array(m) for m in matrices)
    z, y, x = coarse.shape
    wide = (mx @ np.ascontiguousarray(coarse.reshape(-1, x).T)).reshape(-1, z, y)
    high = np.stack([my @ np.ascontiguousarray(wide[:, k].T) for k in range(z)])
    return np.asarray((mz @ high.reshape(z, -1)).reshape(-1, high.shape[1], high.shape[2]))


def inside(distance: Floats, step_mm: float = 1.0, ramp: float = 1.0) -> Floats:
    """Share of a voxel that lies inside, from the signed distance of its centre."""
    alpha = distance * np.float32(-1.0 / (step_mm * ramp))
    alpha += np.float32(0.5)
    return np.asarray(np.clip(alpha, 0, 1, out=alpha))


def blend(target: Floats, alpha: Floats, value: Floats | float) -> None:
    """target += alpha * (value - target), in place."""
    change = np.subtract(value, target, dtype=np.float32)
    change *= alpha
    target += change


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int], scale: float) -> Floats:
    """Smooth noise of unit variance, (z, y, x), features of about `scale` voxels."""
    if shape[0] > TILE and scale < 6:
        # fine noise is costly: one tile of slices, shifted at random in the plane, fills the stack
        tile = smooth_noise(rng, (TILE, *shape[1:]), scale)
        full = np.empty(shape, np.float32)
        for start in range(0, shape[0], TILE):
            n = min(TILE, shape[0] - start)
            shift = (int(rng.integers(shape[1])), int(rng.integers(shape[2]))) if start else (0, 0)
            full[start : start + n] = np.roll(tile, shift, axis=(1, 2))[:n]
        return full
    matrices = [cubic_matrix(n, scale, 2) for n in shape]
    field = rng.standard_normal([m.shape[1] for m in matrices], dtype=np.float32)
    fine = upsample(field, matrices)
    # Keys' kernel keeps 0.68 of the variance on average along each axis
    fine *= np.float32(0.68**-1.5)
    return fine


def splat(field: Floats, centres: Points, radii: Points, strength: Points | float = 1.0) -> None:
    """Draw balls into `field` (z, y, x): the greater of what is there and the ball's share of the voxel.

    Args:
        centres: (n, 3) (z, y, x) voxels.
        radii: (n,) voxels; a ball thinner than a voxel fades instead of shrinking.
        strength: (n,) or one number: value inside.
    """
    radii = np.asarray(radii, dtype=np.float32)
    power = np.broadcast_to(np.asarray(strength, dtype=np.float32), radii.shape)
    reach = np.ceil(np.maximum(radii, 0.5) + 0.5).astype(int)
    limit = np.asarray(field.shape)
    keep = np.all((centres > -reach[:, None]) & (centres < limit - 1 + reach[:, None]), axis=1)
    centres, radii, power, reach = centres[keep], radii[keep], power[keep], reach[keep]
    flat = field.reshape(-1)
    for k in np.unique(reach):
        group = np.flatnonzero(reach == k)
        offsets = np.arange(-k, k + 1)
        chunk = max(1, 1_500_000 // offsets.size**3)
        for start in range(0, group.size, chunk):
            part = group[start : start + chunk]
            base = np.rint(centres[part]).astype(np.int64)
            place = base[:, None, :] + offsets[None, :, None]
            gap = ((place - centres[part][:, None, :]) ** 2).astype(np.float32)
            distance = np.sqrt(gap[:, :, None, None, 0] + gap[:, None, :, None, 1] + gap[:, None, None, :, 2])
            r = radii[part][:, None, None, None]
            thick = np.maximum(r, np.float32(0.5))
            alpha = np.clip(thick + np.float32(0.5) - distance, 0, 1)
            # a tube of radius r < 0.5 fills about r / 0.5 squared of the voxel that a tube of 0.5 fills
            alpha *= np.minimum(1, r / np.float32(0.5)) ** 2 * power[part][:, None, None, None]
            good = [(place[:, :, a] >= 0) & (place[:, :, a] < limit[a]) for a in range(3)]
            alpha *= good[0][:, :, None, None] & good[1][:, None, :, None] & good[2][:, None, None, :]
            index = (
                (place[:, :, 0] * limit[1] * limit[2])[:, :, None, None]
                + (place[:, :, 1] * limit[2])[:, None, :, None]
                + place[:, :, 2][:, None, None, :]
            )
            hit = alpha > 0
            np.maximum.at(flat, index[hit], alpha[hit])


def path(points: Points, radii: Points, step: float = 1.0) -> tuple[Points, Points]:
    """A smooth curve (Catmull-Rom) through `points` (n, 3) and its radius, sampled about every `step`."""
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    tangent = np.gradient(points, axis=0) if len(points) > 2 else np.repeat(np.diff(points, axis=0), 2, axis=0)
    return hermite(points[:-1], points[1:], tangent[:-1], tangent[1:], radii[:-1], radii[1:], step)


def hermite(
    p0: Points, p1: Points, m0: Points, m1: Points, r0: Points, r1: Points, step: float
) -> tuple[Points, Points]:
    """Samples about every `step` along cubic Hermite curves, all curves at once: positions and radii."""
    length = np.linalg.norm(p1 - p0, axis=1)
    count = np.maximum(2, np.ceil(length / step)).astype(int)
    which = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    t = ((np.arange(which.size) - first[which]) / np.maximum(1, count - 1)[which])[:, None]
    h00, h10 = (2 * t - 3) * t * t + 1, ((t - 2) * t + 1) * t
    h01, h11 = (3 - 2 * t) * t * t, (t - 1) * t * t
    where = h00 * p0[which] + h10 * m0[which] + h01 * p1[which] + h11 * m1[which]
    radius = r0[which] + (r1 - r0)[which] * t[:, 0]
    return where, radius
