"""MONAI's sliding-window inferer around our network: what one would pick today.

Settings are its own defaults: windows that overlap by a quarter, one at a time, all outputs of equal weight. MONAI
hands the predictor each window's place (`with_coord`), so the net's second input is computed per window, exactly as our
own runtime does it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.classic import Network, Tiles, Triple, pad, plan_tiles
from runtime.network_input import coord_channels

if TYPE_CHECKING:
    import torch

PACKAGE = "monai"
OVERLAP = 0.25


def plan_windows(extent: Sequence[int], size: int) -> Tiles:
    """The windows that MONAI will run: it lays them as `plan_tiles` does, three quarters of a window apart."""
    return plan_tiles(extent, size, size * 3 // 4)


class Predictor:
    """The network as MONAI calls it: a patch of grey levels and where it lies -> head.

    Args:
        network: ours. extent: of the unpadded volume. offset: the first voxel of what MONAI was given in it.
    """

    def __init__(self, network: Network, extent: Triple, offset: Triple = (0, 0, 0)) -> None:
        self._network, self._extent, self._offset = network, extent, offset

    def __call__(self, patch: "torch.Tensor", where: Sequence[Sequence[Any]]) -> "torch.Tensor":
        import torch

        size = patch.shape[2:]
        start = [part.start + first for part, first in zip(where[0][2:], self._offset, strict=True)]
        coord = coord_channels(self._extent, start, size)[None]
        data = np.ascontiguousarray(patch.numpy().astype(np.uint8))
        return torch.from_numpy(self._network(data, coord))


class MonaiVolume:
    """A working volume, to be run through MONAI whole or window by window.

    Raises:
        ModuleNotFoundError: monai is not installed.
    """

    def __init__(self, voxels: NDArray[np.uint8], network: Network, size: int) -> None:
        from monai.inferers import SlidingWindowInferer

        self.windows = plan_windows(voxels.shape, size)
        self._network = network
        self._inferer = SlidingWindowInferer(roi_size=(size,) * 3, sw_batch_size=1, overlap=OVERLAP, with_coord=True)
        # float32: its sums are of the input's type
        self._voxels = pad(voxels, self.windows.padded).astype(np.float32)

    def whole(self) -> NDArray[np.float32]:
        """The head over all, (channels, z/4, y/4, x/4)."""
        return self._run((0, 0, 0), self.windows.padded)

    def window(self, number: int) -> NDArray[np.float32]:
        """The head over one window, by the same inferer on that box alone."""
        return self._run(self.windows.starts[number], (self.windows.size,) * 3)

    def _run(self, start: Triple, size: Triple) -> NDArray[np.float32]:
        import torch

        box = tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
        inputs = torch.from_numpy(np.ascontiguousarray(self._voxels[box]))[None, None]
        found = self._inferer(inputs, Predictor(self._network, self.windows.extent, start))
        head: NDArray[np.float32] = found[0].numpy()
        return head
