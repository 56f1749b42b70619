"""Processes that take turns: each runs one loop and is stopped except while it is its turn.

Stopped means the whole process group (SIGSTOP), with threads and helpers that draw data ahead: none works in another's
turn, and none draws data in time that is not counted.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from caffe_models.errors import Rpn3dError

ROOT = Path(__file__).resolve().parent.parent


class Loop:
    """A process that runs the loop `job["loop"]` of `module`, which serves as `bench.training_loop` does. To be used in
    a `with`.

    It is the head of a process group, so that its helpers stop with it; the group stays in our session, so that the
    kernel ends it should we be killed while it is stopped (POSIX: orphaned process groups).

    Attributes:
        name: of the loop. batch: crops in one of its steps.
    """

    def __init__(self, job: Mapping[str, Any], folder: Path, module: str = "bench.training_loop") -> None:
        """Start it, with a new `folder` for what it writes, and wait until it is ready.

        Raises:
            Rpn3dError: it ended, with the last line it wrote.
        """
        folder.mkdir()
        self.name = str(job["loop"])
        self._errors = (folder / "errors").open("w+", encoding="utf-8", errors="replace")
        path = folder / "job.json"
        path.write_text(json.dumps({**job, "folder": str(folder)}), encoding="utf-8")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,
        )
        try:
            self.batch = int(self._answer()["batch"])
            self._stop()
        except BaseException:
            self.close()
            raise

    def turn(self, steps: int) -> list[dict[str, float]]:
        """Let it do so many steps; what each took, as `bench.training_loop.Step` has it."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            print(steps, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._answer()  # raises, with what the process said
        found: list[dict[str, float]] = self._answer()
        self._stop()
        return found

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._signal(signal.SIGKILL)
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it wrote nothing"])[-1]
            raise Rpn3dError(f"bench: the loop {self.name} ended with exit code {code}: {last}")
        return json.loads(line)

    def _stop(self) -> None:
        """Return when it stands: the signal alone may take effect long after, on a busy machine."""
        self._signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended; whoever reads its answer next will say so
            os.killpg(self._process.pid, number)

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
