"""One training loop, in a process of its own that does as many steps as it is told: what `bench.training` compares.

`rpn3d train` is the step that the training run does: Solver, crops drawn by their loader, targets and hard negatives in
Python layers, the log. `plain` is the loop that a PyTorch user writes by hand for the same net and the same loss, and
the easiest one there can be: no data at all, but a few random batches in memory with their targets ready.

`python -m bench.training_loop JOB.json` says {"batch": crops a step} on a line of standard output when it is ready,
then reads numbers of steps from standard input, one a line, and answers each with a line of JSON, a `Step` for each.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from bench.plain_torch import PlainRpn3d, load_caffe
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE, VALUES_PER_ANCHOR
from caffe_models.solver import Solver
from caffe_models.weights import read_caffemodel
from runtime.budget import freed_memory_kept, peak_resident_bytes
from train.crops import CropSource
from train.dataset import load_folder
from train.level import LOG_NAME, sampling_of
from train.pace import Pace
from train.python_layers import set_source
from train.step_log import StepLog

Job = Mapping[str, Any]
"""loop (of `LOOPS`), solver, weights and data (paths), folder (for what it writes), batch and crop (which `rpn3d train`
takes from its net), bf16, threads, seed."""

BATCHES = 4
"""Random batches that the plain loop goes through in turn."""
POSITIVES, POOL, NUM_HARD = 1, 800, 5
"""Anchors of each crop that the plain loop asks for: positives, negatives drawn, of those the hardest that count."""


@dataclass(frozen=True)
class Step:
    """One step: seconds on the clock, of them waiting for crops, seconds of all cores; its loss; memory at its height
    so far."""

    seconds: float
    wait_s: float
    cpu_s: float
    loss: float
    peak_rss_bytes: int


class Run(Protocol):
    """A loop: each call is a step, and gives its loss and the seconds between asking for a batch and having it."""

    batch: int

    def __call__(self) -> tuple[float, float]: ...


class TrainStep:
    """What `train.level` does in every iteration: no snapshot, validation or TensorBoard, which come now and then."""

    def __init__(self, job: Job) -> None:
        folder = Path(job["folder"])
        self.solver = Solver.from_prototxt(
            job["solver"], weights=job["weights"], seed=job["seed"], autocast=job["bf16"]
        )
        self.solver.settings = replace(self.solver.settings, snapshot=0)
        sampling = sampling_of(self.solver.net)
        self.batch = sampling.batch
        self._pace = Pace(CropSource(load_folder(job["data"]), sampling, job["seed"]), sampling)
        self._log = StepLog(folder / LOG_NAME, 0)
        set_source(self.solver.net, lambda: self._pace(self.solver.iteration))

    def __call__(self) -> tuple[float, float]:
        start = time.perf_counter()
        step = self.solver.step()
        seconds = time.perf_counter() - start
        waited = self._pace.step(seconds)
        times = {"seconds": round(seconds, 4), "waited_seconds": round(waited, 4)}
        self._log.write({"iteration": step.iteration, "lr": step.lr, "losses": step.losses, **times})
        return step.total_loss, waited


@dataclass(frozen=True)
class PlainBatch:
    """Input of the net, and which of its answers count.

    Attributes:
        data: (n, 1, z, y, x). coord: (n, 3, z/4, y/4, x/4).
        positives: crop, anchor and cell numbers of the anchors that should say yes, (3, p).
        deltas: (p, 4), what they should give as position and size.
        negatives: flat numbers, of (n, anchors, cells), of anchors that should say no; the hardest of them count.
    """

    data: torch.Tensor
    coord: torch.Tensor
    positives: torch.Tensor
    deltas: torch.Tensor
    negatives: torch.Tensor


def random_batch(crop: int, size: int, made: torch.Generator, layout: torch.memory_format) -> PlainBatch:
    """A batch of `size` crops of noise with targets anywhere."""
    cells = (crop // STRIDE) ** 3
    anchors = len(ANCHORS_VOXEL)
    data = torch.rand((size, 1, *[crop] * 3), generator=made) * 2 - 1
    coord = torch.rand((size, 3, *[crop // STRIDE] * 3), generator=made) - 0.5
    count = size * POSITIVES
    positives = torch.stack(
        [
            torch.arange(size).repeat_interleave(POSITIVES),
            torch.randint(anchors, (count,), generator=made),
            torch.randint(cells, (count,), generator=made),
        ]
    )
    deltas = torch.randn((count, VALUES_PER_ANCHOR - 1), generator=made)
    drawn = [torch.randperm(anchors * cells, generator=made)[:POOL] + k * anchors * cells for k in range(size)]
    return PlainBatch(
        data.to(memory_format=layout), coord.to(memory_format=layout), positives, deltas, torch.cat(drawn)
    )


def three_part_loss(head: torch.Tensor, batch: PlainBatch) -> torch.Tensor:
    """Half the mean over the positives' logits, half that over the hardest negatives', and the positives' deltas."""
    values = head.float().reshape(head.shape[0], len(ANCHORS_VOXEL), VALUES_PER_ANCHOR, -1)
    crop, anchor, cell = batch.positives
    chosen = values[crop, anchor, :, cell]
    negatives = values[:, :, 0].reshape(-1)[batch.negatives]
    hardest = negatives.topk(min(NUM_HARD * head.shape[0], len(negatives))).values
    found = F.binary_cross_entropy_with_logits(chosen[:, 0], torch.ones_like(chosen[:, 0]))
    rejected = F.binary_cross_entropy_with_logits(hardest, torch.zeros_like(hardest))
    placed = F.smooth_l1_loss(chosen[:, 1:], batch.deltas, reduction="sum") / len(chosen)
    return 0.5 * found + 0.5 * rejected + placed


class PlainStep:
    """Zero the gradients, forward (under autocast for bfloat16), loss, backward, torch.optim.SGD."""

    def __init__(self, job: Job, layout: torch.memory_format) -> None:
        self.batch = int(job["batch"])
        self.module = PlainRpn3d()
        load_caffe(self.module, read_caffemodel(job["weights"]))
        self.module.train()
        for parameter in self.module.parameters():  # nn.Module.to(memory_format=...) does it; its type hints lack it
            if parameter.ndim == 5:
                parameter.data = parameter.data.to(memory_format=layout)
        # fused: one pass over the weights, the fastest of torch's three ways on a CPU
        self._rule = torch.optim.SGD(self.module.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
        made = torch.Generator().manual_seed(job["seed"])
        self._batches = [random_batch(job["crop"], self.batch, made, layout) for _ in range(BATCHES)]
        self._bf16 = job["bf16"]
        self._done = 0

    def __call__(self) -> tuple[float, float]:
        batch = self._batches[self._done % BATCHES]
        self._done += 1
        self._rule.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            head = self.module(batch.data, batch.coord)
        loss = three_part_loss(head, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self._rule.step()
        return loss.item(), 0.0


LOOPS: dict[str, Callable[[Job], Run]] = {
    "rpn3d train": TrainStep,
    "plain": lambda job: PlainStep(job, torch.channels_last_3d),
    "plain contiguous": lambda job: PlainStep(job, torch.contiguous_format),
}
"""By the name in tables. PyTorch's channels-last is what `plain` uses; the other is what one gets without asking."""


def timed(run: Run) -> Step:
    """One step and what it took."""
    cpu, start = time.process_time(), time.perf_counter()
    loss, wait_s = run()
    seconds = time.perf_counter() - start
    return Step(seconds, wait_s, time.process_time() - cpu, loss, peak_resident_bytes())


def main(path: str) -> None:
    """Serve the job in the JSON file `path` until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    run = LOOPS[job["loop"]](job)
    print(json.dumps({"batch": run.batch}), file=answers, flush=True)
    with freed_memory_kept() if isinstance(run, TrainStep) else nullcontext():  # as `train.level` trains
        for line in sys.stdin:
            print(json.dumps([asdict(timed(run)) for _ in range(int(line))]), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
