"""Does bfloat16 train as well as float32? The first iterations of a level in both, and their losses side by side.

Both runs start from the same fillers and see the same crops, dropout and pools of negatives (all depend on seed and
iteration alone), so that what differs is the arithmetic, and what it grows to.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.loss_curve import read_log
from bench.machine import Machine, describe
from bench.save_picture import save_picture
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from caffe_models.solver_nets import read_net
from caffe_models.text_format import read_text

SCHEMA_VERSION = 1
LEAST = 8
"""Iterations: fewer leave a single one in the last quarter."""
ACROSS = 20
"""The moving mean goes over this part of the iterations, one in twenty."""

Say = Callable[[str], None]


def train_both(
    solver: Path, data: Path, data_is: str, out: Path, iterations: int, threads: int, say: Say = lambda text: None
) -> dict[str, Any]:
    """Train the first `iterations` of a level in f32 and in bf16; what bench_train_curves.json holds.

    The runs are those of `rpn3d train`, in `out/f32` and `out/bf16`; stopped, they go on from their last snapshots.

    Args:
        data: folder of prepared scans; data_is: what they are, in words.

    Raises:
        Rpn3dError: too few iterations, or what training raises.
    """
    from train.dataset import load_folder
    from train.level import LOG_NAME, train_level
    from train.run_settings import RunSettings

    if iterations < LEAST:
        raise Rpn3dError(f"bench: {iterations} iterations are too few to compare; give {LEAST} or more")
    scans = load_folder(data)
    losses = {}
    for name in ("f32", "bf16"):
        settings = RunSettings(autocast=name == "bf16", threads=threads, iterations=iterations, tensorboard=False)
        train_level(solver, scans, out / name, None, settings, lambda text, name=name: say(f"{name} {text}"))  # type: ignore[misc]
        log = read_log(out / name / LOG_NAME)
        losses[name] = {loss: values[:iterations] for loss, values in log.items()}
    weights = _loss_weights(solver)
    totals = {name: [*map(float, _total(found, weights))] for name, found in losses.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": describe().as_json(),
        "threads": threads,
        "solver": solver.name,
        "data": data_is,
        "iterations": iterations,
        "last_quarter": last_quarter(totals["f32"], totals["bf16"]),
        "total_loss": totals,
        "losses": losses,
    }


def last_quarter(f32: list[float], bf16: list[float]) -> dict[str, float]:
    """Mean loss of both over the last quarter, their mean difference (bf16 - f32), and its standard error, taken from
    the differences of single iterations, which see the same crops."""
    count = math.ceil(len(f32) / 4)
    one, two = np.array(f32[-count:]), np.array(bf16[-count:])
    return {
        "iterations": count,
        "f32": float(one.mean()),
        "bf16": float(two.mean()),
        "difference": float((two - one).mean()),
        "standard_error": float((two - one).std(ddof=1)) / math.sqrt(count),
    }


def moving_mean(values: list[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Iterations and the means over a twentieth of them that end there."""
    width = max(1, len(values) // ACROSS)
    mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
    return np.arange(len(mean)) + width, mean


def draw_curves(figures: Mapping[str, Any], out: Path) -> Path:
    """Both curves of the total loss, and below them their difference, as a PNG."""
    from matplotlib.figure import Figure

    totals, quarter = figures["total_loss"], figures["last_quarter"]
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, colour in (("f32", "tab:blue"), ("bf16", "tab:orange")):
        above.plot(np.arange(len(totals[name])) + 1, totals[name], color=colour, alpha=0.25, linewidth=0.6)
        above.plot(*moving_mean(totals[name]), color=colour, linewidth=1.4, label=name)
    above.set_ylabel("total loss")
    # single losses of the fillers are many times those of the rest, and would press it flat
    above.set_ylim(0, 1.1 * max(moving_mean(values)[1].max() for values in totals.values()))
    above.set_title(quarter_line(quarter), fontsize=10)
    above.legend()
    difference = [two - one for one, two in zip(totals["f32"], totals["bf16"], strict=True)]
    below.plot(*moving_mean(difference), color="tab:green", linewidth=1.2)
    below.axhline(0, color="black", linewidth=0.6)
    below.axvspan(len(difference) - quarter["iterations"] + 0.5, len(difference) + 0.5, color="black", alpha=0.06)
    below.set_ylabel("bf16 - f32")
    below.set_xlabel(f"iteration (thick: mean over {max(1, len(difference) // ACROSS)})")
    for panel in (above, below):
        panel.grid(alpha=0.3)
    return save_picture(figure, out)


def quarter_line(quarter: Mapping[str, float]) -> str:
    """The comparison in a line."""
    return (
        f"last {quarter['iterations']} iterations: f32 {quarter['f32']:.4f}, bf16 {quarter['bf16']:.4f}, "
        f"difference {quarter['difference']:+.4f} ± {quarter['standard_error']:.4f}"
    )


def table(figures: Mapping[str, Any]) -> str:
    """The JSON's figures as text."""
    return "\n".join(
        [
            f"machine   {Machine(**figures['machine']).line()}",
            f"torch     {figures['machine']['packages'].get('torch', '?')}, {figures['threads']} threads",
            f"data      {figures['data']}",
            f"training  {figures['solver']}, {figures['iterations']} iterations in each, same start and crops",
            quarter_line(figures["last_quarter"]),
        ]
    )


def write_json(figures: Mapping[str, Any], path: Path) -> Path:
    """Write the figures, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return path


def _loss_weights(solver: Path) -> dict[str, float]:
    """Weights of the losses by their names, as the solver's net has them."""
    return dict(read_net(read_text(solver, "SolverParameter", None), None).loss_tops)


def _total(losses: Mapping[str, list[float]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    return np.asarray(np.sum([weight * np.array(losses[name]) for name, weight in weights.items()], axis=0))
