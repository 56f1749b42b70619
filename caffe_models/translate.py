"""A net, its text and its weights, in another dialect of Caffe, with the same outputs.

What differs between the dialects is written anew: pooling, `engine` strings, BatchNorm with gamma and beta of its own,
the learning rates of its statistics, older layer forms. What the other dialect cannot express is refused by layer and
field; what changes nothing is dropped. Comments are lost, and the text comes out in one fixed form.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.errors import CaffeWarning, NetError, PrototxtError, Rpn3dError
from caffe_models.folding import identity_blobs
from caffe_models.legacy import is_legacy, modern_net
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text, write_text
from caffe_models.translate_batch_norm import STATISTICS, give_bias, merge, split
from caffe_models.translate_fields import Carrier
from caffe_models.weights_hdf5 import ABSENT

if TYPE_CHECKING:
    from caffe_models.weights import Weights

BATCH_NORM = ("keep", "split", "merge")
"""What becomes of BatchNorm: as it is; gamma and beta as a Scale layer; Scale layers into BatchNorm (MKL engines)."""

_INPUTS = ("Data", "ImageData", "WindowData")
"""Layers that bring images from files: 4 axes, always."""


@dataclass(frozen=True)
class Translation:
    """A net in another dialect.

    Attributes:
        net: the NetParameter (of a solver, the SolverParameter), as it reads back from `text`.
        weights: by the names of its layers; None where none were given.
        changes: what is written differently, one line each.
        origin, reason: the dialect it was read in, and why that.
    """

    net: Message
    text: str
    weights: "Weights | None"
    changes: tuple[str, ...]
    origin: str
    reason: str

    @property
    def target(self) -> str:
        return self.net.spec.dialect

    @property
    def layer_types(self) -> dict[str, str]:
        """Type of every layer by name, for a caffemodel."""
        return {layer.get_str("name"): layer.get_str("type") for layer in self.net.get_messages("layer")}


def translate(
    net: Message, target: str, weights: "Weights | None" = None, source: str = "<weights>", batch_norm: str = "keep"
) -> Translation:
    """A NetParameter of any form in the dialect `target`.

    Args:
        weights: of the net; those of layers that Intel Caffe folded into a convolution are made up to do nothing.
        source: names the weights in errors.
        batch_norm: one of `BATCH_NORM`; for bvlc, "keep" is "split".

    Raises:
        PrototxtError: `target` cannot express a layer or field.
        WeightsError: the weights do not fit the net.
        NetError: an unknown dialect or `batch_norm`.
    """
    check_wishes(target, batch_norm)
    origin, changes = net.spec.dialect, list[str]()
    if is_legacy(net):
        changes.append("older forms of layers and inputs are written in today's")
    modern = modern_net(net).copy()
    phases, problem = _nets(modern, origin)
    carried = None if weights is None else _weights_of(phases, weights, source, changes)
    carrier = Carrier(origin, target, _engine(modern), _ranks(modern, phases, problem), changes)
    parted = split(modern, changes.append) if batch_norm == "split" or target == "bvlc" else {}
    made = carrier.net(modern)
    joined = merge(made, changes.append) if batch_norm == "merge" else {}
    biased = give_bias(made, changes.append) if target == "intel" else set()
    text = write_text(made)
    again = parse_text(text, dialect=target, source=f"{net.source} in {target}")
    _check_shapes(phases, again)
    if carried is not None:
        carried = _renamed(carried, parted, joined, biased)
    return Translation(again, text, carried, tuple(changes), origin, net.dialect_reason)


def check_wishes(target: str, batch_norm: str) -> None:
    """Raises NetError for a dialect or a way with BatchNorm that there is not."""
    if target not in DIALECTS:
        raise NetError(f'no dialect "{target}" (known: {", ".join(DIALECTS)})')
    if batch_norm not in BATCH_NORM:
        raise NetError(f'batch norm "{batch_norm}" is not one of {", ".join(BATCH_NORM)}')
    if batch_norm == "merge" and target == "bvlc":
        raise NetError("bvlc Caffe has no BatchNorm with gamma and beta; merge works for intel and extended")


def _engine(net: Message) -> str:
    return net.get_str("engine") if "engine" in net.spec.by_name else ""


def _nets(modern: Message, dialect: str) -> tuple[dict[str, Net], Rpn3dError | None]:
    """The net in each phase in which it can be built here, and why not in the other; nobody is warned twice."""
    found, problem = dict[str, Net](), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaffeWarning)
        for phase in ("TEST", "TRAIN"):
            try:
                found[phase] = Net.from_message(modern, phase, dialect)
            except Rpn3dError as error:
                problem = problem or error
    return found, problem


def _ranks(modern: Message, phases: Mapping[str, Net], problem: Rpn3dError | None) -> dict[int, int]:
    """Axes of each layer's first bottom, by `id` of its message."""
    if not phases:
        layers = modern.get_messages("layer")
        makers = [layer.get_str("type") for layer in layers if not layer.has("bottom")]
        if problem is not None and not (makers and all(kind in _INPUTS for kind in makers)):
            raise problem
        return {id(layer): 4 for layer in layers if layer.get_str("type") == "Pooling"}
    return {
        id(layer.spec.message): len(bottoms[0])
        for net in phases.values()
        for layer, bottoms in zip(net.layers, net.shapes_before, strict=True)
        if bottoms
    }


def _weights_of(phases: Mapping[str, Net], weights: "Weights", source: str, changes: list[str]) -> "Weights":
    """All blobs as the net has them: in modern shapes, shared ones too, and those that Intel Caffe folded away."""
    known: Weights = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaffeWarning)
        for phase, net in phases.items():
            report = net.load(weights, source)
            known.update({name: blobs for name, blobs in net.weights().items() if name not in report.missing})
            if report.folded and phase == "TEST":
                known.update(
                    {one.spec.name: identity_blobs(one) for one in net.layers if one.spec.name in report.folded}
                )
                changes.append(f"weights: {', '.join(report.folded)}, which Intel Caffe had folded away, do nothing")
    others = {name: blobs for name, blobs in weights.items() if name not in known}
    if phases and others:
        changes.append(f"weights: {', '.join(others)} not in the net, copied as they are")
    for name, blobs in others.items():
        if any(blob is ABSENT for blob in blobs):
            raise NetError(f'{source}: layer "{name}": a shared blob is not there, and no layer of the net has it')
    return {**{name: known.get(name, blobs) for name, blobs in weights.items()}, **known}


def _renamed(
    weights: "Weights", parted: Mapping[str, str], joined: Mapping[str, str], biased: Sequence[str] | set[str]
) -> "Weights":
    """The blobs under the layers that hold them now."""
    made: Weights = {}
    for name, blobs in weights.items():
        made[name] = list(blobs)
        if name in parted and len(blobs) > STATISTICS:
            made[name], made[parted[name]] = list(blobs[:STATISTICS]), list(blobs[STATISTICS:])
    for name, scale in joined.items():
        if name in made and scale in made:
            made[name] = [*made[name], *made.pop(scale)]
    for name in biased:
        if len(made.get(name, ())) == 1:
            made[name].append(np.zeros_like(made[name][0]))
    return made


def _check_shapes(phases: Mapping[str, Net], made: Message) -> None:
    """Raises PrototxtError where the translated net cannot be built, or any of its blobs has another shape."""
    for phase, net in phases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CaffeWarning)
            other = Net.from_message(made, phase)
        for blob, shape in other.shapes.items():
            if net.shapes.get(blob) != shape:
                raise PrototxtError(
                    f'{made.source}: blob "{blob}" would have shape {shape}, not {net.shapes.get(blob)}: this net '
                    "cannot be translated; please report it"
                )
