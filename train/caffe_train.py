"""Plain Caffe training on arrays: what `rpn3d caffe train` does."""

import json
import zipfile
from pathlib import Path

import numpy as np

from caffe_models.errors import NetError
from caffe_models.solver import Solver


def train_on_arrays(
    solver_path: Path,
    feed_path: Path,
    log_path: Path,
    weights: Path | None = None,
    snapshot: Path | None = None,
    dialect: str | None = None,
) -> Solver:
    """Run a solver over fed inputs, one iteration for each entry of their first axis that is left to do.

    Args:
        feed_path: .npz; each Input layer's blob as (iterations, iter_size, *shape).
        log_path: gets one JSON object a line: {"iteration", "lr", "losses": {top: mean over iter_size}}.
        weights: start from this caffemodel; snapshot: go on from this solverstate (iterations before it are passed
            over in the feed).
        dialect: of solver and net; None: found out from the texts.

    Raises:
        NetError: a feed that cannot be read or does not fit the net.
        PrototxtError, WeightsError: see `Solver.from_prototxt` and `Solver.restore`.
    """
    import torch

    try:
        with np.load(feed_path, allow_pickle=False) as stored:
            feed = {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise NetError(f"{feed_path}: cannot be read as .npz ({error})") from error
    solver = Solver.from_prototxt(solver_path, weights=weights, dialect=dialect)
    if snapshot is not None:
        solver.restore(snapshot)
    size = solver.settings.iter_size
    for blob in solver.net.inputs:
        if blob not in feed:
            raise NetError(f"{feed_path}: has no array for input {blob}; it holds {', '.join(feed) or 'nothing'}")
        if feed[blob].ndim < 2 or feed[blob].shape[1] != size:
            raise NetError(f"{feed_path}: {blob} has shape {feed[blob].shape}; allowed: (iterations, {size}, *shape)")
    count = min((feed[blob].shape[0] for blob in solver.net.inputs), default=0)
    with log_path.open("a" if snapshot is not None else "w", encoding="utf-8") as log:
        while solver.iteration < min(count, solver.settings.max_iter or count):
            now = solver.iteration
            step = solver.step(
                [{blob: torch.from_numpy(feed[blob][now, k]) for blob in solver.net.inputs} for k in range(size)]
            )
            log.write(json.dumps({"iteration": step.iteration, "lr": step.lr, "losses": step.losses}) + "\n")
            log.flush()
    if solver.settings.snapshot_after_train:
        solver.snapshot()
    return solver
