"""What a weights file holds, and how it fits a net: every layer is reported, where loading stops at the first."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caffe_models.binary_files import read_binary
from caffe_models.errors import WeightsError
from caffe_models.folding import folded_layers
from caffe_models.layer import Layer, Shape
from caffe_models.weights import Weights, read_caffemodel
from caffe_models.weights_hdf5 import ABSENT, SIGNATURE
from caffe_models.wire import decode


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weights file; `type` as the file has it (V1 files: CONVOLUTION), empty where it says nothing."""

    name: str
    type: str
    shapes: tuple[Shape, ...]
    values: int


@dataclass(frozen=True)
class WeightsFit:
    """How the blobs of a file fit a net. Names of layers, in order."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """They have weights in the net and none in the file: they would keep their initial values."""
    unused: tuple[str, ...]
    """They have weights in the file and the net lacks them, or has no weights in them."""
    folded: tuple[str, ...]
    """Folded by Intel Caffe into the convolution before them."""
    misfits: tuple[str, ...]
    """One sentence for each layer whose blobs have another number or shape."""

    @property
    def fits(self) -> bool:
        """Whether every layer of the net gets its blobs."""
        return not self.missing and not self.misfits


def read_stored(path: str | os.PathLike[str]) -> tuple[Weights, str]:
    """The blobs of a weights file and its name, for `fit`. Raises WeightsError as `read_caffemodel`."""
    return read_caffemodel(path), os.fspath(path)


def fit(layers: Sequence[Layer], weights: Weights, source: str) -> WeightsFit:
    """Hold `weights` against the layers of a net by Caffe's rules (see `loading.load`), without copying anything."""
    loaded, missing, misfits = [], [], []
    folded = tuple(layer.spec.name for layer in folded_layers(list(layers), weights))
    owned: set[int] = set()  # blobs of the layers before, which this one may share
    for layer in layers:
        name, wanted = layer.spec.name, layer.blob_shapes
        shared = [id(blob) in owned for blob in layer.held_blobs]
        owned.update(id(blob) for blob in layer.held_blobs)
        if not wanted or name in folded:
            continue
        found: Sequence[Any] = weights.get(name, [])
        if not found and not all(shared):
            missing.append(name)
            continue
        found = [*found, *[ABSENT for gone in shared[len(found) :] if gone]]
        if len(found) != len(wanted):
            hint = layer.hint_for_blobs(len(found))
            misfits.append(f"{name}: has {len(found)} blobs, the net needs {len(wanted)}: {hint}")
            continue
        wrong = [
            f"{name}: blob {index} is {shown(array.shape)}, the net needs {shown(shape)}"
            for index, (array, shape) in enumerate(zip(found, wanted, strict=True))
            if not (array is ABSENT and shared[index]) and not _equal(array, shape)
        ]
        misfits += wrong[:1]
        loaded += [] if wrong else [name]
    using = {layer.spec.name for layer in layers if layer.blob_shapes}
    unused = tuple(name for name in weights if name not in using)
    return WeightsFit(source, tuple(loaded), tuple(missing), unused, folded, tuple(misfits))


def stored_layers(path: str | os.PathLike[str]) -> list[StoredLayer]:
    """The layers of a weights file; of a `.caffemodel` those without blobs too.

    Raises:
        WeightsError: as `read_caffemodel`.
    """
    weights = read_caffemodel(path)  # with every check of a file that will be loaded
    data = read_binary(path, ".caffemodel")
    if data.startswith(SIGNATURE):
        named = dict.fromkeys(weights, "")
    else:
        kept = {
            "NetParameter": ("layer", "layers"),
            "LayerParameter": ("name", "type"),
            "V1LayerParameter": ("name", "type", "layer"),
            "V0LayerParameter": ("name", "type"),
        }
        net = decode(data, "NetParameter", source=os.fspath(path), keep=kept)
        old = [layer.get_message("layer") if layer.has("layer") else layer for layer in net.get_messages("layers")]
        named = {str(one.get("name")): str(one.get("type")) for one in (*old, *net.get_messages("layer"))}
    found = []
    for name, kind in named.items():
        shapes = tuple(tuple(blob.shape) for blob in weights.get(name, []))
        found.append(StoredLayer(name, kind, shapes, sum(math.prod(shape) for shape in shapes)))
    return found


def looks_like_weights(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a weights file, not a prototxt: by its name's ending, else by its first bytes.

    Raises:
        WeightsError: it cannot be read.
    """
    name = os.fspath(path)
    if name.endswith((".caffemodel", ".h5", ".hdf5")):
        return True
    try:
        with open(path, "rb") as stream:
            return b"\0" in stream.read(4096)
    except OSError as error:
        raise WeightsError(f"{name}: cannot be read ({error.strerror})") from error


def shown(shape: Sequence[int]) -> str:
    """2x3x4; "()" for a single value."""
    return "x".join(map(str, shape)) or "()"


def _equal(array: Any, shape: Shape) -> bool:
    """Whether a stored blob has the net's shape, or its old 4-D form with leading ones."""
    return tuple(array.shape) in (shape, (1,) * (4 - len(shape)) + shape)
