"""The losses of a training run as a picture: `python -m bench.loss_curve RUN -o losses.png`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.save_picture import save_picture
from caffe_models.errors import Rpn3dError

WIDTH = 50
"""Iterations that the moving mean goes over."""


def read_log(path: Path) -> dict[str, list[float]]:
    """Losses by name, one value an iteration, of a level's log.jsonl."""
    found: dict[str, list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        for name, value in json.loads(line)["losses"].items():
            found.setdefault(name, []).append(value)
    return found


def draw_losses(run: Path, out: Path) -> Path:
    """Draw one panel for each stage (`crop*/log.jsonl`, then `level*`) of a run, moving means over 50 iterations.

    Raises:
        Rpn3dError: the run has no log.
    """
    from matplotlib.figure import Figure

    logs = [log for stage in ("crop", "level") for log in sorted(run.glob(f"{stage}*/log.jsonl"), key=_number)]
    if not logs:
        raise Rpn3dError(f"{run}: has no crop*/log.jsonl and no level*/log.jsonl; give the folder of a training run")
    figure = Figure(figsize=(4.5 * len(logs), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(logs), sharey=True))
    for panel, log in zip(panels, logs, strict=True):
        for name, values in read_log(log).items():
            width = min(WIDTH, len(values))
            mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
            panel.plot(np.arange(len(mean)) + width, mean, label=name, linewidth=1.2)
        panel.set_title(log.parent.name)
        panel.set_xlabel("iteration")
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel(f"loss, mean over {WIDTH} iterations")
    panels[0].legend()
    return save_picture(figure, out)


def _number(log: Path) -> int:
    return int("".join(filter(str.isdigit, log.parent.name)) or 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parsed = parser.parse_args(arguments)
    print(draw_losses(parsed.run, parsed.out))


if __name__ == "__main__":
    main()
