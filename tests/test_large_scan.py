"""Memory of pre-processing, measured on a scan of many voxels in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

SHAPE = (200, 1024, 1024)
"""A quarter of the 800 slices that must do: what pre-processing holds grows with the voxels, or does not at all."""

MEASURE = """
import json, sys
from runtime.budget import peak_resident_bytes
from runtime.cores import hold_to
from runtime.volume import read_volume
from runtime.lung_mask import find_lungs
from runtime.working_volume import make_working_volume
import SimpleITK
before = peak_resident_bytes()
volume = read_volume(sys.argv[1], threads=2)
read = peak_resident_bytes() - before
lungs = find_lungs(volume, threads=2)
working = make_working_volume(volume, lungs, threads=2)
for axis in range(3):
    lungs.cut("mask", axis, 40)
print(json.dumps([before, read, peak_resident_bytes() - before, volume.hu.nbytes, working.voxels.nbytes]))
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body with two lungs, 0.35 x 0.35 x 1.4 mm, uncompressed; z runs to the head."""
    folder = tmp_path_factory.mktemp("large")
    _, y, x = np.ogrid[tuple(slice(n) for n in SHAPE)]
    y_mm, x_mm = (y - 512) * 0.35, (x - 512) * 0.35
    with (folder / "large.raw").open("wb") as file:
        for k in range(SHAPE[0]):
            hu = np.full(SHAPE[1:], -1000, np.int16)
            hu[((y_mm / 120) ** 2 + (x_mm / 165) ** 2 <= 1)[0]] = 40
            high = ((k - SHAPE[0] / 2) / (SHAPE[0] / 2 - 8)) ** 2
            for side in (-75, 75):
                hu[((y_mm / 75) ** 2 + ((x_mm - side) / 55) ** 2 + high <= 1)[0]] = -850
            file.write(hu.tobytes())
    (folder / "large.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.35 0.35 1.4\n"
        f"DimSize = {SHAPE[2]} {SHAPE[1]} {SHAPE[0]}\nElementType = MET_SHORT\nElementDataFile = large.raw\n"
    )
    return folder / "large.mhd"


def test_eight_hundred_slices_of_1024_fit(scan: Path) -> None:
    """Beside the voxels themselves pre-processing takes little, so 800 slices leave 4 of 6 GB to the network."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(scan)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    libraries, read, peak, voxels, working = json.loads(done.stdout)
    assert voxels == 2 * np.prod(SHAPE)
    assert read < 1.1 * voxels + (64 << 20)
    beside = peak - voxels - 2 * working
    assert beside < 0.6 * voxels
    # four times the slices: everything that is not a library grows fourfold at most
    assert libraries + 4 * peak < 3.2 * 2**30
