"""The fast lung mask and working volume against the same rules on plain numpy and scipy primitives."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import plain_morphology as plain
import pytest
from conftest import data_folder, need

from runtime.lung_mask import find_lungs
from runtime.resample import Taps, linear_taps
from runtime.volume import read_volume
from runtime.working_volume import BONE, OUTSIDE, WINDOW_HU, make_working_volume, working_grid
from train.phantom import make_phantom

RULES = ("lung_mask", "lung_search", "lung_sides", "lung_rules", "airway", "coarse")
SCANS = (
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.619372068417051974713149104919.mhd",  # thin slices
    "LCTSC-Test-S1-201.mhd",  # thick ones, padding beyond a circular field of view
)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def plain_lungs(volume: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        for module in (sys.modules[f"runtime.{name}"] for name in RULES):
            for name, primitive in plain.PRIMITIVES.items():
                if hasattr(module, name):
                    patch.setattr(module, name, primitive)
        return find_lungs(volume)


EVERY = 12
"""Slices of the working volume that are compared; all of them in float64 take a minute a scan."""


def some_slices(n: int, start: float, step: float, count: int) -> Taps:
    taps = linear_taps(n, start, step, count)
    return Taps(taps.index[:, ::EVERY], taps.weight[:, ::EVERY])


def plain_working(volume: Any, lungs: Any) -> tuple[Any, Any]:
    """(voxels, dilated lungs) of every twelfth slice, by whole float64 volumes."""
    work, start = working_grid(volume.grid, lungs.box_voxel(), 2.0)
    step = [1.0 / s for s in reversed(volume.grid.spacing_mm)]
    scan = [
        (linear_taps if axis else some_slices)(n, start[axis], step[axis], work.shape[axis])
        for axis, n in enumerate(volume.grid.shape)
    ]
    low, high = WINDOW_HU
    hu = plain.linear(volume.hu, scan)
    voxels = np.floor(np.clip((hu - low) * 255 / (high - low) + 0.5, 0, 255)).astype(np.uint8)
    z, y, x = lungs.taps(start, step, work.shape)
    coarse = (Taps(z.index[:, ::EVERY], z.weight[:, ::EVERY]), y, x)
    lung, dilated = (plain.linear(d, coarse) > 0 for d in (lungs.surface_mm, lungs.reach_mm))
    voxels[~dilated | (~lung & (voxels > BONE))] = OUTSIDE
    return voxels, dilated


def check(volume: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = find_lungs(volume, threads=2), plain_lungs(volume, monkeypatch)
    assert fast.fallbacks == slow.fallbacks
    assert fast.volume_ml == pytest.approx(slow.volume_ml, rel=1e-3)
    assert dice(fast.mask, slow.mask) > 0.999
    assert dice(fast.dilated, slow.dilated) > 0.999
    assert fast.box_voxel() == slow.box_voxel()
    working = make_working_volume(volume, fast, threads=2)
    voxels, dilated = plain_working(volume, slow)
    assert dice(working.lung[::EVERY], dilated) > 0.999
    assert (np.abs(working.voxels[::EVERY].astype(int) - voxels) <= 1).mean() > 0.9999


@pytest.mark.parametrize("seed", [3, 4])
def test_phantoms(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other sizes, spacings and orientations."""
    spacing = [(2.8, 2.8, 2.5), (3.0, 2.6, 5.0)][seed - 3]
    phantom = make_phantom(
        seed, size=130, spacing_mm=spacing, step_mm=2.5, nodules=2, diameters_mm=(8.0, 24.0), reoriented=False
    )
    check(phantom.volume, monkeypatch)


@pytest.mark.parametrize("name", SCANS)
def test_real_scans(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = need(data_folder() / "ct" / name)
    volume = read_volume(path, threads=2)
    check(volume, monkeypatch)


@pytest.mark.parametrize("name", SCANS[:1])
def test_reading_against_zlib(name: str) -> None:
    path = Path(need(data_folder() / "ct" / name))
    volume = read_volume(path, threads=2)
    assert (volume.hu == plain.read_zraw(path.with_suffix(".zraw"), volume.file_grid.shape)).all()
