"""Weights and snapshots: `.caffemodel` and `.solverstate` files, in Caffe's binary form or in HDF5.

A file to be read is known by its content, one to be written by its name (`.h5` at the end: HDF5). Of a `.caffemodel`
only names, types and blobs are read. Its topology is left alone on purpose: the dialects write it with different field
numbers, and the prototxt is the truth about it.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from caffe_models import weights_hdf5
from caffe_models.atomic import replacing
from caffe_models.binary_files import MAX_BYTES, read_binary
from caffe_models.errors import WeightsError
from caffe_models.message import Message
from caffe_models.schema import message_spec
from caffe_models.wire import decode, encode

Blob = npt.NDArray[np.float32]
Weights = dict[str, list[Blob]]
"""Layer name -> its blobs (float32, C order, writable), in the order of the file; layers without blobs are absent. In
HDF5 files `weights_hdf5.ABSENT` stands for a blob that is stored with another layer, which shares it."""

_BLOB_FIELDS = ("shape", "num", "channels", "height", "width", "data", "double_data")
_LEGACY = ("num", "channels", "height", "width")
_KEEP_WEIGHTS = {
    "NetParameter": ("name", "layer", "layers"),
    "LayerParameter": ("name", "blobs"),
    "V1LayerParameter": ("name", "blobs", "layer"),
    "V0LayerParameter": ("name", "blobs"),
    "BlobProto": _BLOB_FIELDS,
}
_KEEP_STATE = {"BlobProto": _BLOB_FIELDS}


@dataclass(frozen=True)
class SolverState:
    """What a solver needs, beside the weights, to go on where it stopped."""

    iteration: int
    """Iterations done."""
    learned_net: str
    """Path of the `.caffemodel` of the same moment, as Caffe was told to write it."""
    current_step: int
    """Steps taken by lr_policy "multistep" (and "plateau")."""
    history: list[Blob] = field(default_factory=list)
    """One array for each learnable blob (Adam, AdaDelta: all of the first kind, then all of the second)."""
    minimum_loss: float | None = None
    iter_last_event: int | None = None
    """Of lr_policy "plateau" (Intel and Extended Caffe)."""


def read_caffemodel(path: str | os.PathLike[str]) -> Weights:
    """The blobs of a `.caffemodel` of any dialect, in `layer` or in the older `layers` form (V1, V0), or in HDF5.

    A net without weights gives an empty dictionary. Two layers of one name are accepted if their blobs are equal.

    Raises:
        WeightsError: no such file, not a caffemodel, cut short or damaged, no layers in it, a blob whose numbers do not
            fill its shape, or two layers of one name with different blobs.
    """
    source = os.fspath(path)
    data = read_binary(path, ".caffemodel")
    if data.startswith(weights_hdf5.SIGNATURE):
        return weights_hdf5.read_blobs(path)
    if data[0] == 0x08:  # field 1 as a number: SolverState.iter; NetParameter's is a text
        raise WeightsError(f"{source}: not a .caffemodel: it starts like a .solverstate; give the file beside it")
    net = decode(data, "NetParameter", source=source, keep=_KEEP_WEIGHTS)
    old = [layer.get_message("layer") if layer.has("layer") else layer for layer in net.get_messages("layers")]
    layers = (*old, *net.get_messages("layer"))
    if not layers:
        raise WeightsError(f"{source}: not a .caffemodel: there is no layer in it")
    if not any(layer.has("name") for layer in layers):
        raise WeightsError(f"{source}: its layers have no names, by which blobs are found; this is no file of Caffe's")
    weights: Weights = {}
    for layer in layers:
        name = layer.get_str("name")
        blobs = [
            _array(blob, f'{source}: layer "{name}": blob {index}')
            for index, blob in enumerate(layer.get_messages("blobs"))
        ]
        if not blobs:
            continue
        if name in weights and not _same(weights[name], blobs):
            raise WeightsError(
                f'{source}: two layers are named "{name}" and have different blobs; blobs are found by the layer\'s '
                "name, so name the layers apart and save again"
            )
        weights[name] = blobs
    return weights


def write_caffemodel(
    path: str | os.PathLike[str],
    weights: Mapping[str, Sequence[npt.NDArray[np.floating]]],
    net_name: str,
    layer_types: Mapping[str, str],
) -> None:
    """Write blobs as a `.caffemodel` (or `.h5`) that every Caffe loads by name; the file appears whole or not at all.

    Args:
        weights: layer name -> blobs; written as float32, in this order.
        net_name: the net's `name`.
        layer_types: layer name -> type; only the layers of `weights` are written (all, where none has weights: a file
            without layers is no caffemodel).

    Raises:
        WeightsError: more than protobuf's 2 GiB; in HDF5, a layer with "/" in its name.
        OSError: the file cannot be written.
    """
    if os.fspath(path).endswith(weights_hdf5.SUFFIX):
        weights_hdf5.write_blobs(path, weights)
        return
    net = _new("NetParameter")
    net.set("name", net_name)
    for name, blobs in (weights or dict.fromkeys(layer_types, ())).items():
        layer = net.new("layer")
        layer.set("name", name)
        if name in layer_types:
            layer.set("type", layer_types[name])
        _add_blobs(layer, "blobs", blobs)
    _write(path, net)


def read_solverstate(path: str | os.PathLike[str]) -> SolverState:
    """A `.solverstate` of any dialect, or `.solverstate.h5`.

    Raises:
        WeightsError: as `read_caffemodel`; and a file without the iteration, which is no solver state.
    """
    source = os.fspath(path)
    data = read_binary(path, ".solverstate")
    if data.startswith(weights_hdf5.SIGNATURE):
        parts = weights_hdf5.read_state(path)
        return SolverState(
            iteration=parts["iter"],
            learned_net=parts["learned_net"],
            current_step=parts.get("current_step", 0),
            history=parts["history"],
            minimum_loss=parts.get("minimum_loss"),
            iter_last_event=parts.get("iter_last_event"),
        )
    if data[0] == 0x0A:  # field 1 as a text: NetParameter.name
        raise WeightsError(f"{source}: not a .solverstate: it looks like a .caffemodel")
    state = decode(data, "SolverState", source=source, keep=_KEEP_STATE)
    if not state.has("iter"):
        raise WeightsError(f"{source}: not a .solverstate: it does not say how many iterations were done")
    blobs = state.get_messages("history")
    return SolverState(
        iteration=state.get_int("iter"),
        learned_net=state.get_str("learned_net"),
        current_step=state.get_int("current_step"),
        history=[_array(blob, f"{source}: history {index}") for index, blob in enumerate(blobs)],
        minimum_loss=state.get_float("minimum_loss") if state.has("minimum_loss") else None,
        iter_last_event=state.get_int("iter_last_event") if state.has("iter_last_event") else None,
    )


def write_solverstate(path: str | os.PathLike[str], state: SolverState) -> None:
    """Write a `.solverstate` (or `.h5`); the file appears whole or not at all. Raises as `write_caffemodel`."""
    if os.fspath(path).endswith(weights_hdf5.SUFFIX):
        parts = {"iter": state.iteration, "learned_net": state.learned_net, "current_step": state.current_step}
        events = {"minimum_loss": state.minimum_loss, "iter_last_event": state.iter_last_event}
        weights_hdf5.write_state(path, {**parts, **events, "history": state.history})
        return
    made = _new("SolverState")
    made.set("iter", state.iteration)
    made.set("learned_net", state.learned_net)
    made.set("current_step", state.current_step)
    _add_blobs(made, "history", state.history)
    if state.minimum_loss is not None:
        made.set("minimum_loss", state.minimum_loss)
    if state.iter_last_event is not None:
        made.set("iter_last_event", state.iter_last_event)
    _write(path, made)


def _array(blob: Message, where: str) -> Blob:
    """A BlobProto's numbers in its shape; `shape` or the older four extents, `data` or `double_data`.

    The product of the extents is compared with the count of numbers before anything is allocated.
    """
    values = blob.get_array("double_data" if blob.has("double_data") else "data")
    if any(blob.has(name) for name in _LEGACY):
        shape = tuple(blob.get_int(name) for name in _LEGACY)
    else:
        shape = blob.get_message("shape").get_ints("dim")
    if any(extent < 0 for extent in shape) or len(shape) > 32 or math.prod(shape) != values.size:
        shown = str(shape) if len(shape) <= 32 else f"of {len(shape)} axes"
        raise WeightsError(f"{where}: has shape {shown} but {values.size} numbers; the file is damaged")
    with np.errstate(over="ignore"):
        return np.array(values, np.float32).reshape(shape)


def _add_blobs(message: Message, name: str, blobs: Iterable[npt.NDArray[np.floating]]) -> None:
    for array in blobs:
        blob = message.new(name)
        blob.new("shape").set("dim", array.shape)
        blob.set("data", np.ascontiguousarray(array, np.float32).reshape(-1))


def _same(one: list[Blob], other: list[Blob]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(left, right, equal_nan=True) for left, right in zip(one, other, strict=True)
    )


def _new(name: str) -> Message:
    return Message(message_spec(name))


def _write(path: str | os.PathLike[str], message: Message) -> None:
    data = encode(message)
    if len(data) > MAX_BYTES:
        raise WeightsError(f"{os.fspath(path)}: would have {len(data)} bytes; Caffe reads at most {MAX_BYTES}")
    with replacing(path) as temporary:
        temporary.write_bytes(data)
