"""How a training run is to go, and what each of its levels finds around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from train.mine import Hard
from train.stop_signals import StopSignals
from train.validation import Validation

if TYPE_CHECKING:
    from train.distributed import ProcessShare

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunSettings:
    """How to run.

    Attributes:
        seed: of crops, fillers and dropout.
        autocast: forward and backward in bfloat16; weights and updates stay float32.
        threads: for PyTorch.
        iterations: stop each level after this many; None: at its solver's max_iter.
        say_every: iterations between lines of progress.
        keep: snapshots of each level that are kept, the last ones; 0: all.
        tensorboard: write curves and pictures for it; pictures_every: iterations between two pictures.
        quiet: no progress.
        device: cpu or cuda; see `train.device`.
    """

    seed: int = 1
    autocast: bool = True
    threads: int = 2
    iterations: int | None = None
    say_every: int = 20
    keep: int = 3
    tensorboard: bool = True
    pictures_every: int = 500
    quiet: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Surroundings:
    """What a level finds around it.

    Attributes:
        signals: who asks to stop; entered by the caller.
        hard: what a model got wrong on the scans, to draw crops from (`train.mine`).
        validation: on what the weights are tried; None: they are not.
        later_voxels: what the levels after this one are to go through; it counts in the time left.
        share: this process's place among those that train together; None: it trains alone.
    """

    signals: StopSignals = field(default_factory=StopSignals)
    hard: Sequence[Hard] = ()
    validation: Validation | None = None
    later_voxels: float = 0.0
    share: "ProcessShare | None" = None

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.share is None or self.share.leads


class TrainingStopped(Exception):  # noqa: N818  it is no error
    """A signal ended the run after an iteration, with a snapshot; `number` is the signal's."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number
