"""Caffe's Solver: trains a net as its solver prototxt says, and goes on from a snapshot as if it had never stopped.

Net and history are where the net's weights are, on a CPU or a GPU.

An iteration is: forward and backward `iter_size` times with gradients added up; clip them by their joint norm; divide
by `iter_size`; add weight decay; turn them into an update by the rule; subtract it.

Randomness: every iteration seeds PyTorch's CPU generator from (seed, iteration) and gives back the caller's state after
it. Dropout and random choices of layers so depend on the iteration alone, and a resumed run repeats an uninterrupted
one bit for bit (on one machine with one number of threads) without a field that Caffe's snapshots do not have. The data
is the caller's: feed, or let a source give, the batch of `solver.iteration`.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffe_models import lr_policy
from caffe_models.atomic import replacing
from caffe_models.errors import NetError, WeightsError
from caffe_models.lr_policy import LrState
from caffe_models.net import Net, NetParameter
from caffe_models.solver_nets import beside, read_net, read_test_nets, share_weights
from caffe_models.solver_settings import SolverSettings, read_settings
from caffe_models.text_format import read_text
from caffe_models.update_rules import RULES
from caffe_models.weights import (
    SolverState,
    Weights,
    read_caffemodel,
    read_solverstate,
    write_caffemodel,
    write_solverstate,
)

if TYPE_CHECKING:
    import torch

    Feed = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StepResult:
    """One iteration.

    Attributes:
        iteration: its number, from 0, as Caffe's log counts.
        lr: its learning rate.
        losses: value of every loss and of every other output of one number, unweighted, mean over `iter_size`.
        total_loss: their sum by loss weight.
        snapshot: the .solverstate, where one was due.
    """

    iteration: int
    lr: float
    losses: dict[str, float]
    total_loss: float
    snapshot: Path | None = None


@dataclass(frozen=True)
class NetScores:
    """One test net, run `test_iter` times.

    Attributes:
        scores: value of every output, mean over the passes; a list where the output has more than one number.
        loss: the passes' mean sum of losses by loss weight; None unless the solver has `test_compute_loss`.
    """

    scores: dict[str, float | list[float]]
    loss: float | None


class Solver:
    """Trains `net`. `iteration` counts the iterations done."""

    def __init__(self, settings: SolverSettings, net: Net, seed: int | None = None, autocast: bool = False) -> None:
        """Take over a net of the TRAIN phase, with the weights it has.

        Args:
            seed: of everything random; None: the solver's random_seed, or 0 where that is -1 (Caffe takes the clock).
            autocast: compute the forward and backward pass in bfloat16; weights, losses and updates stay float32.
        """
        self.settings = settings
        self.net = net if net.on_torch else net.to_torch(channels_last=True)
        self.seed = seed if seed is not None else max(settings.random_seed, 0)
        self.autocast = autocast
        self.iteration = 0
        self.snapshot_prefix = settings.snapshot_prefix
        """Start of the snapshots' names, relative to the working folder unless absolute; may be set."""
        self.keep: tuple[str, ...] = ()
        """Blobs of which `kept` is to hold the values of the last pass, for whoever wants to look at them."""
        self.kept: dict[str, torch.Tensor] = {}
        self.exchange: Callable[[Sequence[torch.Tensor]], None] | None = None
        """Called with all gradients of an iteration before they are used; several processes add theirs up in it."""
        self._lr_state = LrState()
        self._recent: deque[float] = deque(maxlen=settings.average_loss)
        self.test_nets: list[Net] = []
        """Nets that share the trained one's weights by layer name; see `add_test_nets`."""
        self._parameters = net.parameters()
        self._choose_what_learns()
        self._history = self._new_history()

    @staticmethod
    def from_prototxt(
        path: str | os.PathLike[str],
        weights: str | os.PathLike[str] | Weights | None = None,
        net: Net | None = None,
        *,
        seed: int | None = None,
        autocast: bool = False,
        dialect: str | None = None,
    ) -> "Solver":
        """The solver of a text file, with its net filled by its fillers, then by `weights`. The nets that it tests are
        not read: `add_test_nets` does it.

        Args:
            path: solver prototxt; its net is looked for beside it, then in the working folder, as Caffe does.
            weights: a .caffemodel (or what it holds) to start from, by layer name; layers it lacks keep their fillers'
                values. None: those that the solver names in `weights` (BVLC), if any.
            net: a net of the TRAIN phase to take instead of the one named in the file; it keeps the weights it has.
            seed, autocast: as for the constructor; the fillers draw from `seed` too.
            dialect: of solver and net; None: found out from the texts.

        Raises:
            PrototxtError: a text cannot be read or asks for what Caffe does not allow.
            WeightsError: the weights do not fit, or have no layer in common with the net.
        """
        message = read_text(path, "SolverParameter", dialect)
        settings = read_settings(message)
        if net is None:
            net = read_net(message, dialect)
            net.fill(seed if seed is not None else max(settings.random_seed, 0))
        solver = Solver(settings, net, seed, autocast)
        sources: Sequence[str | os.PathLike[str] | Weights] = () if weights is None else (weights,)
        if weights is None and message.spec.dialect == "bvlc":
            names = [name.strip() for text in message.get_strs("weights") for name in text.split(",")]
            sources = [beside(message, name) for name in names]
        for source in sources:
            solver.load(source)
        return solver

    def load(self, weights: str | os.PathLike[str] | Weights) -> None:
        """Copy weights by layer name; history and iteration stay. Raises WeightsError if none or the wrong ones fit."""
        name, found = ("<weights>", weights) if isinstance(weights, dict) else (os.fspath(weights), None)
        found = read_caffemodel(name) if found is None else found
        report = self.net.load(found, name)
        if len(report.unused) == len(found):
            raise WeightsError(
                f"{name}: has no layer of the net {self.net.name} (it has {', '.join(list(found)[:5]) or 'no weights'})"
            )

    def add_test_nets(self, path: str | os.PathLike[str], dialect: str | None = None) -> list[Net]:
        """Read the nets that the solver text tests into `test_nets`, which are returned; layers the trained net has are
        shared with it, others start from their fillers.

        Raises:
            PrototxtError: a net cannot be read, or a layer's blobs differ from those of its namesake that is trained.
        """
        message = read_text(path, "SolverParameter", dialect)
        nets = read_test_nets(message, dialect)
        for net in nets:
            net.fill(self.seed)
            net.to_torch(channels_last=True)
            share_weights(net, self.net)
        self.test_nets = nets
        return nets

    @property
    def test_is_due(self) -> bool:
        """Whether Caffe would test now, before the next iteration (or after the last)."""
        interval = self.settings.test_interval
        if not self.settings.test_iter or not interval or self.iteration % interval:
            return False
        return self.iteration > 0 or self.settings.test_initialization

    def test(self, index: int, feeds: "Iterable[Feed]") -> NetScores:
        """Run test net `index` on `test_iter` feeds; weights and random state stay as they are.

        As in Caffe, a BatchNorm with `use_global_stats: false` in the test net adds to the statistics it shares.

        Raises:
            NetError: another number of feeds, or one that does not fit the net.
        """
        import torch

        net, passes = self.test_nets[index], self.settings.test_iter[index]
        sums: dict[str, torch.Tensor] = {}
        total, count = 0.0, 0
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.default_generator.manual_seed(self.seed)
            for feed in feeds:
                values = net.forward(feed)
                count += 1
                for top in net.outputs:
                    score = values[top].double()
                    sums[top] = sums[top] + score if top in sums else score
                if net.loss_tops:
                    total += float(net.total_loss(values))
        if count != passes:
            raise NetError(f"net {net.name}: {count} feeds for test_iter {passes}; give one for each pass")
        means = {top: (value / passes).reshape(-1).tolist() for top, value in sums.items()}
        scores = {top: value if len(value) != 1 else value[0] for top, value in means.items()}
        return NetScores(scores, total / passes if self.settings.test_compute_loss else None)

    @property
    def lr(self) -> float:
        """The learning rate of the last iteration done (of the first one before it)."""
        return lr_policy.rate(self.settings.policy, self._lr_state, max(self.iteration - 1, 0))

    def step(self, feed: "Feed | Sequence[Feed] | None" = None) -> StepResult:
        """Do one iteration; write a snapshot if one is due after it (`snapshot`).

        Args:
            feed: the net's inputs by blob; with `iter_size` above 1 a sequence of as many, or one for all passes. None
                for a net whose layers bring their own data.

        Raises:
            NetError: the feed does not fit the net or `iter_size`, or the net has no loss.
        """
        import torch

        feeds = self._feeds(feed)
        tops = self._reported()
        sums = dict.fromkeys(tops, 0.0)
        total = 0.0
        device = self._parameters[0].tensor.device if self._parameters else torch.device("cpu")
        gpus = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            state = np.random.SeedSequence((self.seed, self.iteration)).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(state[0]) >> 1)
            if gpus:
                torch.cuda.manual_seed(int(state[0]) >> 1)
            for one in feeds:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
                    values = self.net.forward(one, keep=self.keep)
                    loss = self.net.total_loss(values)
                if loss.requires_grad:  # with every blob frozen only statistics are measured anew
                    loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item() / len(feeds)
                for top in tops:
                    sums[top] += float(values[top].detach().sum()) / len(feeds)
                self.kept = {blob: values[blob].detach() for blob in self.keep}
                del values, loss
        if self.exchange is not None:
            self.exchange([one.tensor.grad for one in self._parameters if one.tensor.grad is not None])
        self._recent.append(total)
        policy = self.settings.policy
        smoothed = float(np.float32(math.fsum(self._recent) / len(self._recent)))  # what a snapshot can hold
        self._lr_state = lr_policy.advance(policy, self._lr_state, self.iteration, smoothed)
        rate = lr_policy.rate(policy, self._lr_state, self.iteration)
        with torch.no_grad():
            self._update(rate)
        done, self.iteration = self.iteration, self.iteration + 1
        due = self.settings.snapshot > 0 and self.iteration % self.settings.snapshot == 0
        return StepResult(done, rate, sums, total, self.snapshot() if due else None)

    def snapshot(self) -> Path:
        """Write `<prefix>_iter_<iteration>.caffemodel` and, after it, `.solverstate`; the path of the latter. With
        snapshot_format HDF5 both end in `.h5`.

        Raises:
            OSError: the folder cannot be written.
        """
        base = f"{self.snapshot_prefix}_iter_{self.iteration}"
        end = ".h5" if self.settings.snapshot_format == "HDF5" else ""
        model, state = f"{base}.caffemodel{end}", f"{base}.solverstate{end}"
        arrays = [tensor.detach().cpu().contiguous().numpy() for kind in self._history for tensor in kind]
        lr_state = self._lr_state
        plateau = self.settings.policy.name == "plateau"
        kept = SolverState(
            iteration=self.iteration,
            learned_net=model,
            current_step=lr_state.current_step,
            history=arrays,
            minimum_loss=lr_state.minimum_loss if plateau else None,
            iter_last_event=lr_state.iter_last_event if plateau else None,
        )
        # Both are on the disk before either gets its name: a full disk or a kill leaves whatever snapshot was there.
        with replacing(state) as new_state, replacing(model) as new_model:
            write_caffemodel(new_model, self.net.weights(), self.net.name, self.net.layer_types)
            write_solverstate(new_state, kept)
        return Path(state)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a .solverstate: weights, history, iteration, and the place in the learning rate policy.

        Its `learned_net` is looked for beside it, then where it says. With `average_loss` above 1, "plateau" starts a
        new average, as in Caffe, whose snapshots do not hold it.

        Raises:
            WeightsError: a file is missing or damaged, or is of another net or solver type; nothing has changed then.
        """
        state = read_solverstate(path)
        source = os.fspath(path)
        flat = [tensor for kind in self._history for tensor in kind]
        if len(state.history) != len(flat):
            raise WeightsError(
                f"{source}: has {len(state.history)} history blobs, a {self.settings.type} solver of net "
                f"{self.net.name} needs {len(flat)}: snapshot of another net or solver type?"
            )
        for index, (array, tensor) in enumerate(zip(state.history, flat, strict=True)):
            if array.size != tensor.numel():
                owner = self._parameters[index % len(self._parameters)]
                raise WeightsError(
                    f'{source}: history {index} has shape {array.shape}, blob {owner.index} of layer "{owner.layer}" '
                    f"has {tuple(tensor.shape)}: snapshot of another net?"
                )
        near = Path(path).parent / Path(state.learned_net).name
        self.load(near if near.is_file() else state.learned_net)
        self._fill_history(flat, state)
        self.iteration = state.iteration
        least = lr_policy.NO_LOSS if state.minimum_loss is None else state.minimum_loss
        self._lr_state = LrState(state.current_step, least, state.iter_last_event or 0)
        self._recent.clear()

    @staticmethod
    def _fill_history(flat: "list[torch.Tensor]", state: SolverState) -> None:
        import torch

        with torch.no_grad():
            for array, tensor in zip(state.history, flat, strict=True):
                tensor.copy_(torch.from_numpy(array.reshape(tuple(tensor.shape))))

    def _choose_what_learns(self) -> None:
        """Gradients for whatever has a learning rate, in whichever phase `train_state` may have put the net."""
        layers = self.net.layers
        measured = {id(layer.blobs[i]) for layer in layers for i in layer.statistics if i < len(layer.blobs)}
        for one in self._parameters:
            one.tensor.requires_grad_(one.lr_mult != 0 and id(one.tensor) not in measured)

    def _new_history(self) -> "list[list[torch.Tensor]]":
        """For each kind of history one tensor for each learnable blob, BatchNorm's statistics among them."""
        import torch

        kinds = RULES[self.settings.type].histories
        return [[torch.zeros_like(one.tensor, requires_grad=False) for one in self._parameters] for _ in range(kinds)]

    def _reported(self) -> list[str]:
        losses = [top for top, _ in self.net.loss_tops]
        others = [top for top in self.net.outputs if math.prod(self.net.shapes[top]) == 1]
        return list(dict.fromkeys([*losses, *others]))

    def _feeds(self, feed: "Feed | Sequence[Feed] | None") -> "Sequence[Feed]":
        size = self.settings.iter_size
        if feed is None or isinstance(feed, Mapping):
            return [feed or {}] * size
        if len(feed) != size:
            raise NetError(f"net {self.net.name}: {len(feed)} feeds for iter_size {size}; give one for each pass")
        return feed

    def _update(self, rate: float) -> None:
        """Clip, divide by iter_size, regularise, apply the rule; gradients are gone afterwards."""
        import torch

        settings = self.settings
        scale = 1.0
        if settings.clip_gradients >= 0:
            gradients = [p.tensor.grad for p in self._parameters if p.tensor.grad is not None]
            norms = torch.stack(torch._foreach_norm(gradients)).double() if gradients else torch.zeros(1)
            norm = float(norms.square().sum().sqrt())
            if norm > settings.clip_gradients:
                scale = settings.clip_gradients / norm
        scale /= settings.iter_size
        groups: dict[tuple[float, float], list[int]] = {}
        for index, parameter in enumerate(self._parameters):
            # a frozen blob stays, but Caffe's averages of its gradient go on with the weight decay
            if parameter.lr_mult or settings.weight_decay * parameter.decay_mult:
                groups.setdefault((parameter.lr_mult, parameter.decay_mult), []).append(index)
        for (lr_mult, decay_mult), members in groups.items():
            owned = [self._parameters[index] for index in members]
            weights = [one.tensor for one in owned]
            gradients = [_gradient(one) for one in owned]
            if scale != 1.0:
                torch._foreach_mul_(gradients, scale)
            decay = settings.weight_decay * decay_mult
            if decay:
                towards_zero = weights if settings.regularization_type == "L2" else torch._foreach_sign(weights)
                torch._foreach_add_(gradients, towards_zero, alpha=decay)
            history = [[kind[index] for index in members] for kind in self._history]
            rule = RULES[settings.type]
            torch._foreach_sub_(
                weights, rule.compute(gradients, history, rate * lr_mult, settings.rule, self.iteration)
            )
        for parameter in self._parameters:
            parameter.tensor.grad = None


def _gradient(parameter: NetParameter) -> "torch.Tensor":
    """The blob's gradient; zero for statistics, which other dialects than BVLC yet decay if the prototxt lets them."""
    import torch

    found: torch.Tensor | None = parameter.tensor.grad
    return torch.zeros_like(parameter.tensor, requires_grad=False) if found is None else found
