"""TensorBoard: curves and pictures of a run; `tensorboard --logdir RUN` shows them.

Each level is a run of its own in `RUN/tensorboard`, and so is its validation. A level that goes on from a snapshot has
TensorBoard drop what a killed run wrote beyond it (`purge_step`), so that no step is there twice. Steps count the
iterations that are done.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "tensorboard"
TRAINING, VALIDATION = "training", "validation"

Picture = NDArray[np.uint8]
"""(height, width, 3)."""


class Board:
    """Writes for one level; a context manager. Nothing that happens to it ends the training: it says so, and writes no
    more from then on."""

    def __init__(self, run: Path, level: str, iteration: int, validated: bool, say: Callable[[str], None]) -> None:
        """Open it.

        Args:
            run: the run's folder; level: the level's name.
            iteration: iterations that are done.
            validated: whether the validation of that iteration has been done and written, too.
        """
        self._say = say
        self._writers: dict[str, Any] = {}
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            say("TensorBoard is not installed, the run goes on without it: pip install tensorboard")
            return
        firsts = {TRAINING: iteration + 1, VALIDATION: iteration + validated}
        with self._told():
            for kind, first in firsts.items():
                name = level if kind == TRAINING else f"{level}-{kind}"
                self._writers[kind] = SummaryWriter(str(run / FOLDER / name), purge_step=first)

    @property
    def is_open(self) -> bool:
        """Whether anything is written; where not, pictures need not be drawn."""
        return bool(self._writers)

    def write(self, kind: str, step: int, values: Mapping[str, float], pictures: Mapping[str, Picture]) -> None:
        """Figures and pictures of an iteration; `kind` is TRAINING or VALIDATION."""
        with self._told():
            writer = self._writers.get(kind)
            if writer is None:
                return
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            for name, picture in pictures.items():
                writer.add_image(name, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Have everything on disk. Called before a snapshot: a run that goes on from it writes nothing before it."""
        with self._told():
            for writer in self._writers.values():
                writer.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writers = {}
            self._say(f"TensorBoard: {error.filename or FOLDER}: {error.strerror or error}; the run goes on without it")

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told():
            for writer in self._writers.values():
                writer.close()
