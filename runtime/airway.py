"""The trachea and the main bronchi, to be taken out of the lungs.

The trachea is the one thing in the upper chest that shows as a small round island of air, well apart from the lungs,
in slice after slice. From there the lumen is followed downwards under the highest threshold that does not yet break
through a bronchus' wall into the lung (Mori et al., IEEE TMI 2000, with the threshold searched from outside), and
only what is as wide as a main bronchus is kept: smaller bronchi stay in the lung, where the mask wants them.
"""

import cc3d
import numpy as np
from numpy.typing import NDArray

from runtime.morphology import Bools, Spacing, box_of, components, depth, dilate

MIN_AREA_MM2, MAX_AREA_MM2 = 50.0, 900.0  # from a child's trachea to a wide one, cut obliquely
MIN_LENGTH_MM = 25.0
LUMEN_HU = (-850, -880, -910, -930, -950, -965)  # tried in this order, the highest that does not leak wins
MAX_GROWTH_ML = 70.0  # main and lobar bronchi together have less
MIN_CALIBRE_MM = 7.0
MAX_REACH_MM = 70.0  # below the end of the trachea's island: the main bronchi


def find_trachea(air: Bools, spacing: Spacing, axis_x: float, lung_z: tuple[int, int]) -> Bools | None:
    """The trachea as a stack of small round islands of air; None where no such stack is found.

    Args:
        air: coarse air inside the body (z, y, x), z to the head.
        spacing: mm along z, y, x.
        axis_x: the body's middle, in voxels.
        lung_z: the lungs' extent, half-open; the trachea begins above their middle.
    """
    from_z = (lung_z[0] + lung_z[1]) // 2
    upper = air[from_z:]
    if not upper.size:
        return None
    labels, count = _islands(upper)
    if not count:
        return None
    found = cc3d.statistics(labels)
    area = found["voxel_counts"] * spacing[1] * spacing[2]
    keep = np.zeros(count + 1, bool)
    for i, box in enumerate(found["bounding_boxes"][1:], start=1):
        high = (box[1].stop - box[1].start) * spacing[1]
        wide = (box[2].stop - box[2].start) * spacing[2]
        x_mm = abs((box[2].start + box[2].stop - 1) / 2 - axis_x) * spacing[2]
        keep[i] = (
            MIN_AREA_MM2 <= area[i] <= MAX_AREA_MM2
            and max(high, wide) <= 3.0 * min(high, wide)
            and area[i] >= 0.45 * high * wide
            and x_mm <= 45.0
        )
    stacks, _ = components(keep[labels])
    best, best_score = 0, 0.0
    for i, box3 in enumerate(cc3d.statistics(stacks)["bounding_boxes"][1:], start=1):
        length = (box3[0].stop - box3[0].start) * spacing[0]
        off = abs((box3[2].start + box3[2].stop - 1) / 2 - axis_x) * spacing[2]
        if length >= MIN_LENGTH_MM and length - off > best_score:
            best, best_score = i, length - off
    if not best:
        return None
    trachea = np.zeros(air.shape, bool)
    trachea[from_z:] = stacks == best
    return trachea


def _islands(air: Bools) -> tuple[NDArray[np.uint32], int]:
    """Components within each slice (pixels that share an edge), numbered from 1 through the slices; and how many."""
    labels = np.zeros(air.shape, np.uint32)
    count = 0
    for k in np.flatnonzero(air.any(axis=(1, 2))):
        flat, found = cc3d.connected_components(air[k], connectivity=4, out_dtype=np.uint32, return_N=True)
        labels[k] = np.where(flat > 0, flat + np.uint32(count), np.uint32(0))
        count += int(found)
    return labels, count


def grow_airway(hu: NDArray[np.int16], air: Bools, trachea: Bools, spacing: Spacing, threads: int = 1) -> Bools:
    """Trachea and main bronchi, lumen only, grown from the trachea's islands.

    Args:
        hu: coarse volume (z, y, x).
        air: where the airway may run.
        trachea: from `find_trachea`.
        spacing: mm along z, y, x.
        threads: for the distance transform.
    """
    voxel_ml = float(np.prod(spacing)) / 1000
    bottom = int(np.flatnonzero(trachea.any(axis=(1, 2)))[0])
    limit = MAX_GROWTH_ML + trachea.sum() * voxel_ml
    for level in LUMEN_HU:
        lumen = trachea | (air & (hu < level))
        labels, counts = components(lumen)
        seeded = np.zeros(len(counts), np.bool_)
        seeded[labels[trachea]] = True
        grown = seeded[labels]
        if grown.sum() * voxel_ml <= limit:
            break
    else:
        grown = trachea
    box = box_of(grown, (1, 1, 1))
    inner = depth(grown[box], spacing, threads) >= MIN_CALIBRE_MM / 2
    wide = np.zeros(grown.shape, np.bool_)
    wide[box] = dilate(inner, MIN_CALIBRE_MM / 2 + 1.0, spacing) & grown[box]
    wide[: max(0, bottom - round(MAX_REACH_MM / spacing[0]))] = False
    return np.asarray(wide | trachea)
