"""A batch whose rows several processes hold, each its own: what layers that look across the rows need to know.

A layer whose result for a row depends on that row alone needs nothing of it. `train.distributed` hands one to the
layers of a train net, as `share`; everywhere else `share` is None and a layer has the whole batch.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class BatchShare(Protocol):
    """This process's part; every process must call the same methods in the same order."""

    @property
    def processes(self) -> int:
        """How many there are; each has equally many rows."""

    def gather(self, rows: "torch.Tensor") -> "torch.Tensor":
        """The whole batch (axis 0), in the order of the processes, from the rows that each has.

        All processes compute the same from it, so the gradient of this process's rows is theirs, and is not added up.
        """

    def own(self, batch: "torch.Tensor") -> "torch.Tensor":
        """This process's rows of a whole batch."""

    def batch_norm(
        self, x: "torch.Tensor", gamma: "torch.Tensor | None", beta: "torch.Tensor | None", eps: float
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """This process's rows normalised by mean and variance of the whole batch; these two (C,), the latter unbiased.

        The gradient of `x` is that of the sum of all processes' losses; those of gamma and beta are this process's
        part of it.
        """
