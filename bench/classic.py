"""The classic way from a scan to the network's output: everything at full resolution, tile by tile.

Reading by SimpleITK, `bench.classic_mask`, the whole scan windowed and resampled to 1 mm in float64, then tiles of 128
voxels at half overlap, one at a time, whose outputs are averaged where they overlap.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.classic_mask import Spacing, classic_mask
from caffe_models.errors import Rpn3dError
from runtime.find_scans import ScanSource
from runtime.network_input import OUTSIDE, STRIDE
from runtime.scan_stages import Stopwatch

TILE, STEP = 128, 64
WINDOW_HU = (-1200.0, 600.0)
BONE = 210
BOX_MARGIN_MM = 5.0

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class ClassicScan:
    """A scan ready for the classic network.

    Attributes:
        voxels: uint8 (z, y, x) of the whole scan, 1 mm.
        box: (start, stop) voxels of the lungs' box in it.
        seconds: by stage.
    """

    voxels: NDArray[np.uint8]
    box: tuple[Triple, Triple]
    seconds: dict[str, float]


def preprocess(source: ScanSource) -> ClassicScan:
    """Everything before the network, by stage: read, mask, window, resample.

    Raises:
        ScanError: no lungs were found. RuntimeError: SimpleITK cannot read the scan.
    """
    watch = Stopwatch()
    with watch.stage("read"):
        hu, spacing = read(source)
    with watch.stage("mask"):
        mask = classic_mask(hu, spacing)
    with watch.stage("window"):
        low, high = WINDOW_HU
        grey = np.clip((hu.astype(np.float64) - low) / (high - low), 0, 1) * 255
        grey[~mask.dilated | (~mask.lungs & (grey > BONE))] = OUTSIDE
    with watch.stage("resample"):
        shape = [max(1, round(n * mm)) for n, mm in zip(hu.shape, spacing, strict=True)]
        factors = [new / old for new, old in zip(shape, hu.shape, strict=True)]
        voxels = np.rint(ndimage.zoom(grey, factors, order=1, mode="nearest")).astype(np.uint8)
    return ClassicScan(voxels, _box(mask.dilated, spacing, voxels.shape), watch.seconds)


def read(source: ScanSource) -> tuple[NDArray[np.int16], Spacing]:
    """HU (z, y, x) with x to the patient's left, y to the back, z to the head, and mm along z, y, x."""
    import SimpleITK as sitk  # noqa: N813

    if source.kind == "dicom":
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source.path), source.seriesuid or ""))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(source.path))
    image = sitk.DICOMOrient(image, "LPS")
    x, y, z = image.GetSpacing()
    return np.maximum(sitk.GetArrayFromImage(image), -2000).astype(np.int16), (z, y, x)


def starts(extent: int, tile: int, step: int) -> tuple[int, ...]:
    """Where tiles begin along an axis: 0, step, ... and a last one that ends with it. 328, 128 and 64 give 0, 64, 128,
    192 and 200."""
    count = math.ceil((extent - tile) / step) + 1 if extent > tile else 1
    return tuple(min(k * step, max(0, extent - tile)) for k in range(count))


@dataclass(frozen=True)
class Tiles:
    """Cubes that cover a volume.

    Attributes:
        extent: of the volume (z, y, x); padded: the same in multiples of 4, at least one tile.
        size: edge of a tile. starts: the first voxel of each.
    """

    extent: Triple
    padded: Triple
    size: int
    starts: tuple[Triple, ...]

    def sample(self, count: int) -> tuple[int, ...]:
        """Numbers of `count` tiles spread over all (0: all of them)."""
        if not 0 < count < len(self.starts):
            return tuple(range(len(self.starts)))
        return tuple(int(i) for i in np.linspace(0, len(self.starts) - 1, count).round())


def plan_tiles(extent: Sequence[int], size: int = TILE, step: int = STEP) -> Tiles:
    """The tiles of a volume, at multiples of the network's stride of 4 voxels.

    Raises:
        Rpn3dError: a size or step that is no positive multiple of 4, or tiles that leave gaps.
    """
    if size <= 0 or size % STRIDE or step <= 0 or step % STRIDE or step > size:
        raise Rpn3dError(f"tiles of {size} voxels every {step}: give multiples of {STRIDE}, the step at most the size")
    z, y, x = (max(size, -(-n // STRIDE) * STRIDE) for n in extent)
    found = [(a, b, c) for a in starts(z, size, step) for b in starts(y, size, step) for c in starts(x, size, step)]
    return Tiles((extent[0], extent[1], extent[2]), (z, y, x), size, tuple(found))


def pad(voxels: NDArray[np.uint8], padded: Triple) -> NDArray[np.uint8]:
    """Continued at its end by the value that stands for all that is not lung."""
    more = [(0, n - old) for n, old in zip(padded, voxels.shape, strict=True)]
    return np.pad(voxels, more, constant_values=OUTSIDE)


class Average:
    """The mean of the tiles' outputs at each of the network's cells."""

    def __init__(self, tiles: Tiles, channels: int) -> None:
        cells = [n // STRIDE for n in tiles.padded]
        self._size = tiles.size // STRIDE
        self._sum = np.zeros((channels, *cells), np.float32)
        self._count = np.zeros(cells, np.float32)

    def add(self, start: Triple, head: NDArray[np.float32]) -> None:
        """Add one tile's output, (channels, size/4, size/4, size/4)."""
        where = tuple(slice(n // STRIDE, n // STRIDE + self._size) for n in start)
        self._sum[:, *where] += head
        self._count[where] += 1

    def result(self) -> NDArray[np.float32]:
        """(channels, z/4, y/4, x/4); nan where no tile came."""
        with np.errstate(invalid="ignore"):
            return self._sum / self._count


Network = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""(data (1, 1, D, H, W) grey levels, coord (1, 3, D/4, H/4, W/4)) -> head (1, channels, D/4, H/4, W/4)."""


def eager_network(net: str | Path, weights: str | Path, threads: int) -> Network:
    """The net in eager PyTorch, float32, in PyTorch's default memory format, as one gets it without asking.

    Raises:
        PrototxtError, WeightsError: the files cannot be read or do not belong together.
    """
    import torch

    from convert.build import load_net
    from runtime.network_input import to_input

    torch.set_num_threads(threads)
    loaded = load_net(net, weights).to_torch()

    def run(data: NDArray[np.uint8], coord: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = loaded.forward({"data": torch.from_numpy(to_input(data)), "coord": torch.from_numpy(coord)})
        head: NDArray[np.float32] = found["head"].numpy()
        return head

    return run


def _box(mask: NDArray[np.bool_], spacing: Spacing, shape: Sequence[int]) -> tuple[Triple, Triple]:
    """The mask's bounds in voxels of 1 mm, 5 mm wider."""
    bounds: list[Any] = []
    for axis, mm in enumerate(spacing):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = hits[0] * mm - BOX_MARGIN_MM, (hits[-1] + 1) * mm + BOX_MARGIN_MM
        bounds.append((max(0, math.floor(low)), min(shape[axis], math.ceil(high))))
    (z1, z2), (y1, y2), (x1, x2) = bounds
    return (z1, y1, x1), (z2, y2, x2)
