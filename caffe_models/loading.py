"""Blobs of a net's layers: making, sharing, filling, loading by name, moving to torch and back."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import WeightsError, warn
from caffe_models.fillers import UnfilledBlob
from caffe_models.folding import folded_layers, identity_blobs
from caffe_models.layer import BlobSpec, Layer
from caffe_models.weights_hdf5 import ABSENT

if TYPE_CHECKING:
    from caffe_models.weights import Weights


@dataclass(frozen=True)
class LoadReport:
    """What a weights file and a net did not have in common."""

    unused: tuple[str, ...]
    """Layers with blobs in the file that the net does not have."""
    missing: tuple[str, ...]
    """Layers of the net with weights that the file does not have; they keep the values they had."""
    folded: tuple[str, ...] = ()
    """Layers that Intel Caffe had folded into a convolution of the file; they do nothing now."""


def make_blobs(layer: Layer, specs: list[BlobSpec], owners: dict[str, list[Any]]) -> int:
    """Give `layer` its blobs, without values yet, shared where `param` names say so; the number of new weights.

    `owners` maps each share name to [blob, layer name, multipliers that were stated] and is added to.

    Raises:
        PrototxtError: more `param` entries than blobs, blobs shared that differ in shape, lr_mult or decay_mult, a
            filler that does not fit.
    """
    entries = layer.spec.message.get("param")
    if len(entries) > len(specs):
        raise layer.spec.error(f"{len(entries)} param entries for {len(specs)} blobs; remove the surplus")
    blobs, count = [], 0
    for index, spec in enumerate(specs):
        entry = entries[index] if index < len(entries) else None
        name = "" if entry is None else str(entry.get("name"))
        if entry is not None and name in owners:
            blob, owner, stated = owners[name]
            if blob.shape != spec.shape:
                raise layer.spec.error(
                    f'blob {index} of shape {spec.shape} shares "{name}" with layer "{owner}", '
                    f"whose shape is {blob.shape}; shared blobs must have equal shapes"
                )
            for field in ("lr_mult", "decay_mult"):
                if entry.has(field) and stated.setdefault(field, entry.get(field)) != entry.get(field):
                    raise layer.spec.error(
                        f'blob {index} shares "{name}" with layer "{owner}" but has {field} {entry.get(field):g}, it '
                        f"was {stated[field]:g} before; shared blobs have one",
                        entry.line,
                    )
        else:
            blob = UnfilledBlob(spec.filler, spec.shape)
            count += math.prod(spec.shape)
            if entry is not None and name:
                stated = {field: entry.get(field) for field in ("lr_mult", "decay_mult") if entry.has(field)}
                owners[name] = [blob, layer.spec.name, stated]
        blobs.append(blob)
    layer.hold(blobs)
    return count


def load(layers: list[Layer], weights: "Weights", source: str, strict: bool = False) -> LoadReport:
    """Copy blobs by layer name, as Caffe's `Net::CopyTrainedLayersFrom`: layers the net lacks are ignored, layers the
    file lacks keep their values, shapes must be equal; a legacy 4-D shape may have leading ones. Blobs shared with an
    earlier layer may be absent (HDF5 files hold each once).

    Both are warned about; `strict` refuses layers that the file lacks.

    Raises:
        WeightsError: another number of blobs or another shape, or `strict` and a layer without weights; nothing has
            been copied then.
    """
    plan: list[tuple[Any, npt.NDArray[np.float32]]] = []
    with_blobs = {layer.spec.name for layer in layers if layer.blob_shapes}
    owned: set[int] = set()  # blobs of the layers before
    borrowers: set[str] = set()  # layers that have no blob of their own
    for layer in layers:
        found, held = weights.get(layer.spec.name), layer.held_blobs
        shared = [id(blob) in owned for blob in held]
        owned.update(id(blob) for blob in held)
        if held and all(shared):
            borrowers.add(layer.spec.name)
        if not found or (not held and layer.spec.name in with_blobs):
            continue
        found = [*found, *[ABSENT for gone in shared[len(found) :] if gone]]
        where = f'{source}: layer "{layer.spec.name}"'
        if len(found) != len(held):
            raise WeightsError(
                f"{where} has {len(found)} blobs, the net ({layer.spec.source}:{layer.spec.line}, {layer.spec.type}) "
                f"needs {len(held)}: {layer.hint_for_blobs(len(found))}"
            )
        for index, (blob, array) in enumerate(zip(held, found, strict=True)):
            if array is ABSENT and shared[index]:
                continue
            shape = tuple(blob.shape)
            legacy = (1,) * (4 - len(shape)) + shape
            if array.shape not in (shape, legacy):
                raise WeightsError(
                    f"{where}: blob {index} has shape {array.shape}, the net ({layer.spec.source}:{layer.spec.line}) "
                    f"needs {shape}: weights of another net?"
                )
            plan.append((blob, array.reshape(shape)))
    folded = folded_layers(layers, weights)
    for layer in folded:
        plan.extend(zip(layer.held_blobs, identity_blobs(layer), strict=True))
    gone, names = {layer.spec.name for layer in folded}, {layer.spec.name for layer in layers}
    lacking = [layer for layer in layers if layer.blob_shapes and not weights.get(layer.spec.name)]
    lacking = [layer for layer in lacking if layer.spec.name not in borrowers]
    report = LoadReport(
        unused=tuple(name for name, blobs in weights.items() if blobs and name not in names),
        missing=tuple(layer.spec.name for layer in lacking if layer.spec.name not in gone),
        folded=tuple(layer.spec.name for layer in folded),
    )
    of_net = layers[0].spec.source if layers else "the net"
    if report.missing:
        what = f"{source}: holds no weights for layer {_listed(report.missing)} of {of_net}"
        if strict:
            raise WeightsError(f"{what}: weights of another net?")
        warn(f"{what}; they keep their initial values")
    if report.unused:
        warn(f"{source}: layer {_listed(report.unused)} is not in {of_net} and is ignored")
    for blob, array in plan:
        assign(blob, array)
    return report


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f'"{name}"' for name in names[:5]) + more


def assign(blob: Any, values: npt.NDArray[np.float32]) -> None:
    """Put `values` into a blob, NumPy array or torch tensor, in place; an `UnfilledBlob` takes them."""
    if isinstance(blob, UnfilledBlob):
        blob.take(values)
        return
    if isinstance(blob, np.ndarray):
        blob[...] = values
        return
    import torch

    with torch.no_grad():
        blob.copy_(torch.from_numpy(np.array(values, np.float32)))


def to_torch(layers: list[Layer], device: str, channels_last: bool) -> None:
    """Replace all blobs by torch tensors; blobs shared before are shared after."""
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    made: dict[int, torch.Tensor] = {}
    originals = [blob for layer in layers for blob in layer.blobs]  # kept alive: ids stay unique
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            if id(blob) not in made:
                tensor = torch.from_numpy(layer.array(index)).to(device)
                if tensor.ndim in formats:
                    # not contiguous(), which leaves the strides of one channel as they are
                    tensor = tensor.to(memory_format=formats[tensor.ndim])
                rate, _ = layer.multipliers(index)
                learnable = layer.spec.phase == "TRAIN" and rate != 0 and index not in layer.statistics
                made[id(blob)] = tensor.requires_grad_(learnable)
            layer.blobs[index] = made[id(blob)]
    del originals
