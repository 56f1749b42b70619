"""Training in several processes: each takes some crops of the batch, and all end as one process would with all of it.

What makes it the same, up to the order in which float32 numbers are added: batches depend on seed, iteration and the
crop's number alone; BatchNorm takes its statistics over all rows; dropout's mask is drawn for the whole batch; the
targets are drawn, and the hard negatives chosen, among all crops, by every process alike; so every process has the loss
of the whole batch, and gradients are added up. `torch.distributed` with gloo carries it, on CPUs.

Processes on one machine are started by `in_processes`. On many, torchrun starts them on each (`torchrun ... --no-python
rpn3d train ...`); the run's folder must then be one that all share. Process 0 alone writes.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from caffe_models.errors import NetError, Rpn3dError
from caffe_models.net import Net
from caffe_models.solver import Solver
from train.python_layers import CropBatch, Crops

PATIENCE = timedelta(hours=12)
"""How long a process waits for another, which may be validating; one that has died is noticed at once."""


class Job(Protocol):
    """What every process does; it can be pickled."""

    def __call__(self, share: "ProcessShare | None", say: Callable[[str], None]) -> Path:
        """`say` takes lines of progress."""


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: "ProcessShare", rows: Tensor) -> Tensor:
        ctx.share = share
        return share.gather_plain(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.share.own(gradient)


class _BatchNorm(torch.autograd.Function):
    """Ioffe and Szegedy 2015 over the rows of all processes, of which each has equally many."""

    @staticmethod
    def forward(
        ctx: Any, share: "ProcessShare", x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x.double() if x.numel() == x.shape[1] else x.float(), axes, correction=0)
        found = share.gather_plain(torch.stack([mean, var]).double()[None])  # (processes, 2, C)
        whole = found[:, 0].mean(0)
        spread = (found[:, 1] + (found[:, 0] - whole).square()).mean(0)
        count = share.processes * x.numel() // x.shape[1]
        mean, var = whole.float(), spread.float()
        ctx.save_for_backward(x, gamma, mean, var)
        ctx.share, ctx.eps, ctx.axes, ctx.count = share, eps, axes, count
        unbiased = var * (count / (count - 1)) if count > 1 else torch.zeros_like(var)
        ctx.mark_non_differentiable(mean, unbiased)
        y = torch.batch_norm(x, gamma, beta, mean, var, False, 0.0, eps, False)
        return y, mean, unbiased

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, of_mean: Tensor, of_var: Tensor
    ) -> tuple[None, Tensor, Tensor | None, Tensor | None, None]:
        x, gamma, mean, var = ctx.saved_tensors
        unit = torch.batch_norm(x, None, None, mean, var, False, 0.0, ctx.eps, False).float()
        gradient = gradient.float()
        of_beta = gradient.sum(ctx.axes)
        of_gamma = (gradient * unit).sum(ctx.axes)
        means = torch.stack([of_beta, of_gamma]).double()
        dist.all_reduce(means)
        means = (means / ctx.count).float()
        column = (1, -1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(var + ctx.eps) * (gamma if gamma is not None else 1.0)
        of_x = (gradient - means[0].view(column) - unit * means[1].view(column)) * scale.view(column)
        has = ctx.needs_input_grad
        return None, of_x.to(x.dtype), of_gamma if has[2] else None, of_beta if has[3] else None, None


@dataclass(frozen=True)
class ProcessShare:
    """This process's place among those of the default group of `torch.distributed`; a `BatchShare`."""

    rank: int
    processes: int

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """See `BatchShare`."""
        found: Tensor = _Gather.apply(self, rows)  # type: ignore[no-untyped-call]
        return found

    def own(self, batch: Tensor) -> Tensor:
        """See `BatchShare`."""
        return batch[self.rows(len(batch))]

    def rows(self, count: int) -> slice:
        """Which of `count` rows of a batch are this process's."""
        each = count // self.processes
        return slice(self.rank * each, (self.rank + 1) * each)

    def batch_norm(
        self, x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `BatchShare`."""
        y, mean, var = _BatchNorm.apply(self, x, gamma, beta, eps)  # type: ignore[no-untyped-call]
        return y, mean, var

    def gather_plain(self, rows: Tensor) -> Tensor:
        """`gather` without a gradient. gloo does not know every type: what is short goes as float32, and comes back."""
        kind = rows.dtype if rows.dtype in (torch.bfloat16, torch.float16) else None
        sent = (rows.detach().float() if kind else rows.detach()).contiguous()
        found = [torch.empty_like(sent) for _ in range(self.processes)]
        dist.all_gather(found, sent)
        return torch.cat(found).to(rows.dtype)

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """The sums over all processes, in place; in one message, since each costs a round trip."""
        flat = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(flat)
        for one, part in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            one.copy_(part.view(one.shape))

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The highest of each over all processes."""
        found = torch.tensor(numbers)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(one) for one in found]

    def wait(self) -> None:
        """For all processes to come here."""
        dist.barrier()


def share_batch(solver: Solver, share: ProcessShare) -> None:
    """Let a solver's train net take this process's crops of the batch, and its gradients be added up.

    Raises:
        NetError: the batch cannot be shared evenly, or the processes do not start from the same weights.
    """
    for layer in solver.net.layers:
        held = getattr(layer, "implementation", layer)
        held.share = layer.share = share
        if isinstance(held, Crops):
            batch = held.settings["batch"]
            check_batch(layer.spec.source, batch, share.processes)
            held.settings["batch"] = batch // share.processes
    solver.exchange = share.add_up
    _check_same_start(solver.net, solver.iteration, share)


def check_batch(source: str | Path, batch: int, processes: int) -> None:
    """Raises NetError unless each process gets as many crops of the batch as any other."""
    if batch % processes:
        allowed = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise NetError(
            f"{source}: {processes} processes cannot share a batch of {batch} evenly; allowed: {allowed} processes, or "
            "another batch"
        )


def rows_of(source: Callable[[int], CropBatch], share: ProcessShare) -> Callable[[int], CropBatch]:
    """This process's crops of each batch."""

    def take(iteration: int) -> CropBatch:
        batch = source(iteration)
        rows = share.rows(len(batch.data))
        return CropBatch(batch.data[rows], batch.coord[rows], batch.nodules[rows], batch.mining[rows])

    return take


def _check_same_start(net: Net, iteration: int, share: ProcessShare) -> None:
    sums = [one.tensor.detach().double().sum() for one in net.parameters()]
    mine = torch.stack([torch.tensor(float(iteration), dtype=torch.float64), torch.stack(sums).sum()])
    found = share.gather_plain(mine[None])
    if not bool((found == found[0]).all()):
        stand = ", ".join(f"process {rank}: {int(one[0])}" for rank, one in enumerate(found))
        raise NetError(
            f"the processes do not start from the same weights (iterations done: {stand}); the run's folder must be "
            "one that all of them see"
        )


@contextmanager
def torchrun_share() -> Iterator[ProcessShare | None]:
    """This process's place among those that torchrun started (it sets RANK and WORLD_SIZE); None if it did not.

    Raises:
        Rpn3dError: another process has ended.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield None
        return
    with _group("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) as share:
        try:
            yield share
        except RuntimeError as error:
            if "onnection" not in str(error):
                raise
            raise Rpn3dError(f"process {share.rank}: another process has ended, which says why") from error


def in_processes(count: int, job: Job, say: Callable[[str], None]) -> Path:
    """Do `job` in `count` processes of this machine, this one among them.

    Raises:
        Rpn3dError: whatever the job raises here, or another process ended early.
    """
    if count == 1:
        return job(None, say)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a name of this machine need not resolve
    with tempfile.TemporaryDirectory(prefix="rpn3d-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = get_context("spawn")
        others = [
            context.Process(target=_other, args=(meeting, rank, count, job), daemon=True) for rank in range(1, count)
        ]
        for other in others:
            other.start()
        try:
            with _group(meeting, 0, count) as share:
                return job(share, say)
        except RuntimeError as error:
            for other in others:
                other.join(timeout=5)
            dead = [(rank, other.exitcode) for rank, other in enumerate(others, 1) if other.exitcode]
            if not dead:
                raise
            rank, code = dead[0]
            raise Rpn3dError(
                f"process {rank} of {count} ended early (exit code {code}); run the same command again: it goes on "
                "from the last snapshot"
            ) from error
        finally:
            for other in others:
                other.terminate()
            for other in others:
                other.join()


@contextmanager
def _group(meeting: str, rank: int, count: int) -> Iterator[ProcessShare]:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield ProcessShare(rank, count)
    finally:
        with suppress(RuntimeError):  # another process may be gone
            dist.destroy_process_group()


def _other(meeting: str, rank: int, count: int, job: Job) -> None:
    """A started process; process 0 has the terminal, so Ctrl-C is its affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _group(meeting, rank, count) as share:
            job(share, _silent)
    except Rpn3dError as error:
        print(f"rpn3d: process {rank}: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "onnection" not in str(error):
            raise
        sys.exit(1)  # process 0 has ended, and has said why


def _silent(text: str) -> None:
    """Process 0 speaks for all."""
