"""Where voxels lie in the patient.

Conventions of the whole project, stated once: arrays are (z, y, x); world coordinates are (x, y, z) in millimetres in
the patient system that SimpleITK gives (LPS: x to the patient's left, y to the back, z to the head), as in LUNA16's
CSVs; spacing and origin are (x, y, z); boxes are (z1, y1, x1, z2, y2, x2), half-open.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in the patient.

    Attributes:
        shape: voxels as (z, y, x).
        spacing_mm: distance of neighbouring voxel centres along x, y, z of the array.
        origin_mm: world position of the centre of voxel (0, 0, 0).
        direction: the 3x3 direction cosines row by row, as SimpleITK's `GetDirection`; column k is the world
            direction of array axis x (k=0), y (k=1), z (k=2).
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: tuple[float, ...] = IDENTITY

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3): world = origin + matrix @ (x, y, z index)."""
        cosines = np.asarray(self.direction, dtype=np.float64).reshape(3, 3)
        return cosines * np.asarray(self.spacing_mm, dtype=np.float64)

    def to_world(self, zyx: Any) -> NDArray[np.float64]:
        """World (x, y, z) mm of voxel positions (z, y, x); shape (..., 3), fractions allowed."""
        index = np.asarray(zyx, dtype=np.float64)[..., ::-1]
        return np.asarray(index @ self.matrix.T + np.asarray(self.origin_mm))

    def to_voxel(self, xyz: Any) -> NDArray[np.float64]:
        """Voxel position (z, y, x), with fractions, of world (x, y, z) mm; shape (..., 3)."""
        offset = np.asarray(xyz, dtype=np.float64) - np.asarray(self.origin_mm)
        return np.asarray((offset @ np.linalg.inv(self.matrix).T)[..., ::-1])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def extent_mm(self) -> Triple:
        """Size of the grid along its own (z, y, x) axes."""
        z, y, x = (n * s for n, s in zip(self.shape, reversed(self.spacing_mm), strict=True))
        return (z, y, x)

    def moved(self, permutation: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> "Grid":
        """The grid of `numpy.flip(numpy.transpose(array, permutation), axes where flips)`.

        `permutation` and `flips` are over array axes (z, y, x); `flips` counts after the transposition.
        """
        shape = tuple(self.shape[p] for p in permutation)
        corner = np.zeros(3)
        for axis, flipped in enumerate(flips):
            if flipped:
                corner[permutation[axis]] = shape[axis] - 1
        # array axis a is world axis 2 - a in SimpleITK's order
        columns = [2 - permutation[2 - k] for k in range(3)]
        cosines = np.asarray(self.direction, dtype=np.float64).reshape(3, 3)[:, columns].copy()
        for k in range(3):
            if flips[2 - k]:
                cosines[:, k] *= -1
        x, y, z = self.to_world(corner)
        return Grid(
            (shape[0], shape[1], shape[2]),
            (self.spacing_mm[columns[0]], self.spacing_mm[columns[1]], self.spacing_mm[columns[2]]),
            (float(x), float(y), float(z)),
            tuple(float(v) for v in (cosines + 0.0).ravel()),
        )

    def to_canonical(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """Permutation and flips that bring an array on this grid nearest to axial LPS, for `moved`.

        After them the array's x runs to the patient's left, y to the back, z to the head, up to the rotation of an
        oblique scan, which stays in the direction cosines. Axes are given away greedily, largest cosine first.
        """
        cosines = np.asarray(self.direction, dtype=np.float64).reshape(3, 3)
        rest = np.abs(cosines).copy()
        source = [0, 0, 0]
        for _ in range(3):
            world, column = np.unravel_index(int(np.argmax(rest)), (3, 3))
            source[int(world)] = int(column)
            rest[world, :] = -1
            rest[:, column] = -1
        permutation = (2 - source[2], 2 - source[1], 2 - source[0])
        flips = (
            bool(cosines[2, source[2]] < 0),
            bool(cosines[1, source[1]] < 0),
            bool(cosines[0, source[0]] < 0),
        )
        return permutation, flips
