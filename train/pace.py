"""How fast a level goes: crops a second, and the share of the time that it waits for them."""

import time
from collections import deque
from collections.abc import Callable

from train.crops import Sampling
from train.python_layers import CropBatch

OVER = 50
"""Iterations that the figures are taken over."""


class Pace:
    """Stands before a source of batches and measures how long each is waited for; called as the source is."""

    def __init__(self, source: Callable[[int], CropBatch], sampling: Sampling) -> None:
        """Args: `source` gives the batch of an iteration; `sampling`: what is in it, of all processes together."""
        self._source, self._batch = source, sampling.batch
        self.voxels = voxels(sampling)
        self._waited = 0.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=OVER)

    def __call__(self, iteration: int) -> CropBatch:
        start = time.perf_counter()
        try:
            return self._source(iteration)
        finally:
            self._waited += time.perf_counter() - start

    def step(self, seconds: float) -> float:
        """An iteration is done that took so long, waiting included; how much of it was waiting."""
        waited, self._waited = self._waited, 0.0
        self._recent.append((seconds, waited))
        return waited

    @property
    def crops_per_s(self) -> float:
        """Over the last iterations."""
        return self._batch * len(self._recent) / max(sum(seconds for seconds, _ in self._recent), 1e-9)

    @property
    def wait_share(self) -> float:
        """Part of the last iterations' time in which no batch was ready."""
        return sum(waited for _, waited in self._recent) / max(sum(seconds for seconds, _ in self._recent), 1e-9)


def voxels(sampling: Sampling) -> int:
    """That an iteration goes through; its time is about in proportion."""
    return int(sampling.batch * sampling.crop**3)
