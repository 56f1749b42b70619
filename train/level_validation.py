"""The validations of one level: when one is due, what is written of it, and whether it makes the best model."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from caffe_models.net import Net
from runtime.budget import give_back_free_memory
from train.best import WEIGHTS_NAME, keep_if_best
from train.board import VALIDATION, Board
from train.disk import naming
from train.step_log import StepLog
from train.validation import Validation, draw_froc, validate

LOG_NAME = "validation.jsonl"


class LevelValidation:
    """Of a level that stands at some iteration; what was noted of later ones is cut, it will be done again."""

    def __init__(
        self,
        validation: Validation | None,
        folder: Path,
        iteration: int,
        last: int,
        voxels: int,
        *,
        writes: bool = True,
    ) -> None:
        """Open it.

        Args:
            validation: None: none is ever due.
            folder: the level's, which lies in the run's.
            iteration: iterations that are done; last: when the level ends.
            voxels: that an iteration goes through.
            writes: whether this process is the one that writes.
        """
        self._validation, self._folder, self._last = validation, folder, last
        self._every = validation.interval(voxels) if validation is not None else 0
        self._path = folder / LOG_NAME
        self._began, self._seconds = time.perf_counter(), 0.0
        self._done: set[int] = set()
        if writes and (validation is not None or self._path.is_file()):
            StepLog(self._path, iteration + 1).__exit__(None, None, None)
            lines = self._path.read_text(encoding="utf-8").splitlines()
            self._done = {int(json.loads(line)["iteration"]) for line in lines}

    def has(self, iteration: int) -> bool:
        """Whether it was done and noted."""
        return iteration in self._done

    def run_if_due(
        self, net: Net, iteration: int, board: Board | None, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        """Validate the net as it stands after so many iterations, if it is time to and it was not done yet.

        One that is `stopped` leaves nothing behind: the run that goes on does it.

        Raises:
            Rpn3dError: see `validate`; or the results cannot be written.
        """
        validation = self._validation
        due = iteration == self._last or (self._every and iteration % self._every == 0)
        if validation is None or not due or not iteration or self.has(iteration) or stopped():
            return
        give_back_free_memory()  # training keeps it, and the engine's plan would count it as held
        found = validate(net.weights(), validation, stopped)
        if found is None:
            return
        self._seconds += found.seconds
        froc, level = found.froc, self._folder.name
        if board is not None:  # before it is noted, so that what is noted is there
            board.write(VALIDATION, iteration, found.figures(), {"froc": draw_froc(froc)})
            board.flush()
        figures = {"level": level, "iteration": iteration, **found.figures()}
        with naming(self._folder.parent / WEIGHTS_NAME):
            best = keep_if_best(net, self._folder.parent, figures, validation.names, say)
        noted = {"iteration": iteration, **found.figures(), "counts": froc.counts, "seconds": round(found.seconds, 2)}
        with naming(self._path), StepLog(self._path, iteration) as log:
            log.write(noted)
        self._done.add(iteration)
        counts = froc.counts
        scans = f"{counts['scans']} scan{'s' * (counts['scans'] != 1)}"
        say(
            f"{level} iteration {iteration}: CPM {found.cpm:.3f} on {scans}, "
            f"{counts['true_positives']} of {counts['nodules']} nodules found at all, {found.seconds:.0f} s"
            f"{'; the best so far' if best else ''}"
        )

    def share(self) -> float:
        """Part of the time since the level was begun that validating took."""
        return self._seconds / max(time.perf_counter() - self._began, 1e-9)
