"""Stored numbers into Hounsfield units as int16, and the question whether they can be Hounsfield units at all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ScanError

FLOOR_HU = -1024
"""Everything below becomes this: air is -1000, and unseen places are filled with -2000, -3024 and the like."""

CEILING_HU = 32767
"""Everything above becomes this, the end of int16; metal ends near 30000."""

AIR_HU = -300
"""Lung and air lie below, tissue above. A chest CT in Hounsfield units has voxels on either side."""


def put_hu(
    values: NDArray[Any], slope: float, intercept: float, out: NDArray[np.int16], source: str, what: str = "voxel"
) -> None:
    """Write values * slope + intercept, rounded and kept within [FLOOR_HU, CEILING_HU], into `out`.

    Args:
        values: stored numbers of any integer or float type and byte order.
        out: int16, same shape; nothing larger than `values` in float64 is made on the way, so hand in pieces.
        source, what: name of the scan and of the number for the message.

    Raises:
        ScanError: NaN or infinity among the values: nobody can say what was there.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and slope == 1 and float(intercept).is_integer():
        if intercept == 0 and values.dtype.kind == "i" and values.dtype.itemsize == 2:
            np.maximum(values, np.int16(FLOOR_HU), out=out)
            return
        wide = np.add(values, np.int32(np.clip(intercept, -(2**30), 2**30)), dtype=np.int32)
        np.clip(wide, FLOOR_HU, CEILING_HU, out=wide)
        out[...] = wide
        return
    exact = values.astype(np.float64)
    exact *= slope
    exact += intercept
    if values.dtype.kind == "f" and not np.isfinite(exact).all():
        count = int(np.count_nonzero(~np.isfinite(exact)))
        raise ScanError(
            f"{source}: found at least {count} {what}{'s'[: count > 1]} with NaN or infinity, allowed are finite "
            f"Hounsfield units; write the scan again with numbers there (-1024 where nothing was measured)"
        )
    np.rint(exact, out=exact)
    np.clip(exact, FLOOR_HU, CEILING_HU, out=exact)
    out[...] = exact


def check_hounsfield(hu: NDArray[np.int16], source: str) -> None:
    """Refuse a scan whose values cannot be Hounsfield units of a chest.

    There must be voxels of lung or air above the floor (FLOOR_HU < v <= AIR_HU) and voxels of tissue (v > AIR_HU).
    The floor itself does not count as air, since padding ends there whatever the scale of the rest. Both are looked
    for slice by slice from the middle on, and mostly found in the first.

    Raises:
        ScanError: a constant image, a picture in 0..255, CT numbers stored with an offset of 1024, or a mask.
    """
    middle = hu.shape[0] // 2
    order = [*range(middle, hu.shape[0]), *range(middle)]
    air = any(bool(((hu[z] > FLOOR_HU) & (hu[z] <= AIR_HU)).any()) for z in order)
    tissue = any(bool((hu[z] > AIR_HU).any()) for z in order)
    if air and tissue:
        return
    low, high = int(hu.min()), int(hu.max())
    if low == high:
        why = "every voxel has this one value"
    elif not tissue:
        why = "no voxel is tissue"
    elif low >= 0 and high <= 1:
        why = "this looks like a mask or a normalised image"
    elif low >= 0 and high <= 255:
        why = "this looks like an 8-bit picture"
    elif low >= 0:
        why = "this looks like CT numbers with an offset, mostly 1024, still to be subtracted"
    else:
        why = f"no voxel between {FLOOR_HU} and {AIR_HU} HU, so there is no lung"
    raise ScanError(
        f"{source}: found values {low} to {high}, which cannot be the Hounsfield units of a chest ({why}); "
        f"allowed are air near -1000 and water at 0; export the scan again in HU"
    )
