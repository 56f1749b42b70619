"""The memory that `Net.forward` holds in blobs, step by step, for given shapes; without running anything."""

import math
from collections.abc import Mapping, Sequence

from caffe_models.blob_graph import BlobGraph
from caffe_models.layer import Layer, Shape

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}
"""Precision -> bytes of one value."""

_VIEWS = frozenset({"Split", "Reshape", "Flatten", "Slice", "Crop"})
"""Types whose tops are their bottom's memory."""
_OVERWRITING = frozenset({"ReLU"})
"""Types that write into their bottom's memory where the graph allows it."""


def live_bytes(
    layers: Sequence[Layer], graph: BlobGraph, tops: Sequence[Sequence[Shape]], kept: Sequence[str], width: int = 4
) -> list[int]:
    """Bytes of all blobs while each layer runs: what is still to be read, and the layer's own tops.

    A blob is freed after its last reader. Inputs stay, since the caller holds them; so do the blobs `kept` (outputs,
    losses). Weights, the gradients of training and a library's scratch memory are not counted.

    Args:
        tops: for each layer the shapes of its tops; width: bytes of a value.
    """
    place: dict[str, int] = {}  # blob -> the number of its memory, which views share
    size: dict[int, int] = {}
    inputs = {top for layer in layers if layer.is_input for top in layer.spec.tops}
    staying: set[int] = set()
    found = []
    for index, layer in enumerate(layers):
        before = _held(place, staying)
        for position, (top, shape) in enumerate(zip(layer.spec.tops, tops[index], strict=True)):
            if _shares(layer, index, position, graph):
                made = place[layer.spec.bottoms[0]]
            else:
                made = len(size)
                size[made] = width * math.prod(shape)
            place[top] = made
            if top in inputs and layer.is_input:
                staying.add(made)
        found.append(sum(size[number] for number in before | _held(place, staying)))
        for blob in graph.last_used_by[index]:
            if blob not in kept:
                place.pop(blob, None)
    return found


def _held(place: Mapping[str, int], staying: set[int]) -> set[int]:
    return {*place.values(), *staying}


def _shares(layer: Layer, index: int, position: int, graph: BlobGraph) -> bool:
    """Whether top number `position` is in the memory of the layer's first bottom."""
    kind = layer.spec.type
    if kind in ("Dropout", "SpatialDropout"):
        return layer.spec.phase == "TEST"
    return kind in _VIEWS or (kind in _OVERWRITING and index in graph.overwritten and position == 0)
