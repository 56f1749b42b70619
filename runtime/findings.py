"""What the network proposes, said in the patient's millimetres and in the file's own slices and pixels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.grid import Grid

if TYPE_CHECKING:
    from runtime.candidates import Candidates
    from runtime.volume import Volume

MAX_PER_SCAN = 100
"""LUNA16 counts no more marks than this of one scan."""


@dataclass(frozen=True)
class Finding:
    """One suspected nodule.

    Attributes:
        rank: 1 for the most probable of its scan.
        probability: in [0, 1], the sigmoid of the network's logit.
        x_mm, y_mm, z_mm: centre in the patient system that SimpleITK gives (LPS), as in LUNA16's CSVs.
        diameter_mm: of the sphere that the network drew around it.
        slice_index, pixel_x, pixel_y: nearest voxel of the file as it is stored, each from 0.
    """

    rank: int
    probability: float
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    slice_index: int
    pixel_x: int
    pixel_y: int


def sigmoid(logit: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)) in float64, without overflow on either side."""
    wide = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(wide))
    return np.asarray(np.where(wide >= 0, 1.0, small) / (1.0 + small))


def to_findings(
    candidates: "Candidates",
    working_grid: Grid,
    volume: "Volume",
    *,
    threshold: float = 0.0,
    max_per_scan: int = MAX_PER_SCAN,
) -> tuple[Finding, ...]:
    """Rank candidates and place them in the patient and in the file.

    Args:
        candidates: logit (n,), centre_voxel (n, 3) as (z, y, x) and diameter_voxel (n,), on `working_grid`.
        working_grid: the isotropic grid the network looked at.
        volume: the scan; its `file_grid` gives slice and pixel as stored.
        threshold: the least probability to report, in [0, 1].
        max_per_scan: at most this many, the most probable ones.

    Returns:
        Findings, most probable first; equal ones in the order of their centres, so that the list does not depend on
        the order of the candidates.

    Raises:
        ValueError: a threshold outside [0, 1] or a negative `max_per_scan`.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold {threshold} is not a probability in [0, 1]")
    if max_per_scan < 0:
        raise ValueError(f"max_per_scan {max_per_scan} is negative")
    logit = np.asarray(candidates.logit, dtype=np.float64)
    centre = np.asarray(candidates.centre_voxel, dtype=np.float64).reshape(-1, 3)
    # not the probability: logits keep their order where the sigmoid has reached 1
    order = np.lexsort((centre[:, 2], centre[:, 1], centre[:, 0], -logit))
    probability = sigmoid(logit)[order]
    chosen = order[probability >= threshold][:max_per_scan]

    world = working_grid.to_world(centre[chosen])
    stored = np.floor(volume.file_grid.to_voxel(world) + 0.5).astype(int)
    stored = np.clip(stored, 0, np.asarray(volume.file_grid.shape) - 1)
    millimetres = np.asarray(candidates.diameter_voxel, dtype=np.float64)[chosen] * np.mean(working_grid.spacing_mm)
    findings = []
    for rank, (p, (x, y, z), diameter, (index, row, column)) in enumerate(
        zip(probability[: len(chosen)].tolist(), world.tolist(), millimetres.tolist(), stored.tolist(), strict=True), 1
    ):
        findings.append(Finding(rank, p, x, y, z, diameter, index, column, row))
    return tuple(findings)
