"""The snapshots of one level: gone on from, written whole or not at all, and thinned out to the last few."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caffe_models.errors import Rpn3dError, WeightsError
from caffe_models.solver import Solver

SUFFIXES = (".caffemodel", ".solverstate")


@dataclass(frozen=True)
class Snapshots:
    """Of one level.

    Attributes:
        folder: where they are.
        prefix: their names' start, as in `<prefix>_iter_<iteration>.solverstate`; other files are left alone.
        keep: how many are kept; 0: all.
    """

    folder: Path
    prefix: str
    keep: int = 3

    def newest(self, suffix: str) -> list[Path]:
        """By iteration, the newest first; `suffix` is .solverstate or .caffemodel."""
        return [path for _, path in sorted(self._found(suffix), reverse=True)]

    def has(self, iteration: int) -> bool:
        """Whether both files of this iteration are there."""
        return all(self._path(iteration, suffix).is_file() for suffix in SUFFIXES)

    def resume(self, solver: Solver, say: Callable[[str], None]) -> None:
        """Go on from the newest snapshot that is whole; a broken one is passed over, and said."""
        for state in self.newest(".solverstate"):
            try:
                solver.restore(state)
            except WeightsError as error:
                say(f"passed over: {error}")
                continue
            say(f"{self.folder.name}: goes on from {state.name}")
            return

    def write(self, solver: Solver) -> Path:
        """Write one, then remove those of ours before the last `keep`; its .solverstate.

        Raises:
            Rpn3dError: it cannot be written; what was there before is as it was.
        """
        held = [iteration for iteration, _ in self._found(".solverstate") if iteration < solver.iteration]
        try:
            state = solver.snapshot()
        except OSError as error:
            before = f"that of iteration {max(held)} is whole" if held else "there is none before it"
            raise Rpn3dError(
                f"{self._path(solver.iteration, '.solverstate')}: the snapshot cannot be written "
                f"({error.strerror or error}); {before}: make room, then run the same command again to go on from there"
            ) from error
        # Those of later iterations are broken ones that were passed over: they do not count, and push nothing out.
        for iteration in sorted(held, reverse=True)[self.keep - 1 :] if self.keep else []:
            for suffix in reversed(SUFFIXES):  # the state first: alone it would be a broken snapshot
                self._path(iteration, suffix).unlink(missing_ok=True)
        return state

    def _path(self, iteration: int, suffix: str) -> Path:
        return self.folder / f"{self.prefix}_iter_{iteration}{suffix}"

    def _found(self, suffix: str) -> list[tuple[int, Path]]:
        pattern = re.compile(rf"{re.escape(self.prefix)}_iter_(\d+){re.escape(suffix)}")
        named = ((pattern.fullmatch(path.name), path) for path in self.folder.iterdir())
        return [(int(match[1]), path) for match, path in named if match is not None]
