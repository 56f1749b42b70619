"""Which layer makes and reads which blob: wiring checks, outputs, when a blob can be freed or overwritten."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from caffe_models.errors import warn
from caffe_models.layer import Layer, LayerSpec, Shape


@dataclass(frozen=True)
class BlobGraph:
    """What `Net` needs to know about the wiring of its layers."""

    outputs: tuple[str, ...]
    """Blobs that no layer reads, in the order they are made."""
    last_used_by: tuple[tuple[str, ...], ...]
    """For each layer the blobs that nobody uses after it."""
    overwritten: frozenset[int]
    """Layers that may put their result into the memory of their first bottom: nobody else sees that value."""


def read(layers: list[Layer]) -> BlobGraph:
    """Check the wiring as Caffe's `Net::AppendBottom` and `AppendTop` do, and sum it up.

    Two layers of one name, which Caffe accepts, are warned about.

    Raises:
        PrototxtError: a bottom that no earlier layer makes, or a blob made by two layers; names file and line.
    """
    made_by: dict[str, int] = {}
    named: dict[str, LayerSpec] = {}
    unread: dict[str, None] = {}  # a dict, for its order
    last_use: dict[str, int] = {}
    for index, layer in enumerate(layers):
        other = named.setdefault(layer.spec.name, layer.spec)
        if layer.spec.name and other is not layer.spec:
            text = f"line {other.line} has a layer of this name too; weights are found by name: rename one"
            warn(str(layer.spec.error(text)))
        for blob in layer.spec.bottoms:
            if blob not in made_by:
                raise layer.spec.error(f'bottom "{blob}" is made by no layer before{_hint(blob, layers, made_by)}')
            unread.pop(blob, None)
            last_use[blob] = index
        for place, blob in enumerate(layer.spec.tops):
            in_place = place < len(layer.spec.bottoms) and layer.spec.bottoms[place] == blob
            if blob in made_by and not in_place:
                other = layers[made_by[blob]].spec
                raise layer.spec.error(
                    f'top "{blob}" is made already by layer "{other.name}" (line {other.line}); give it another name'
                )
            made_by[blob] = index
            last_use[blob] = index
            unread[blob] = None
    ends: list[list[str]] = [[] for _ in layers]
    for blob, index in last_use.items():
        ends[index].append(blob)
    return BlobGraph(tuple(unread), tuple(tuple(blobs) for blobs in ends), _overwritten(layers))


def least_memory(layers: list[Layer], graph: BlobGraph, shapes: Mapping[str, Shape]) -> tuple[int, Layer | None]:
    """Bytes of float32 that running the net takes at least, and the layer at which it takes them.

    In the TRAIN phase every new blob stays for the backward pass; else a blob goes after its last reader. Only layers
    that surely make new memory count (`fresh_tops`), and no scratch memory, so that nothing is refused that would fit.
    """
    held: dict[str, int] = {}
    outputs = set(graph.outputs)
    now = most = 0
    where: Layer | None = None
    for layer, ends in zip(layers, graph.last_used_by, strict=True):
        for blob in layer.spec.tops if layer.fresh_tops or layer.spec.type == "Input" else ():
            now -= held.get(blob, 0)
            held[blob] = 4 * math.prod(shapes[blob])
            now += held[blob]
        if now > most:
            most, where = now, layer
        if layer.spec.phase == "TEST":
            now -= sum(held.pop(blob, 0) for blob in ends if blob not in outputs)
    return most, where


def _hint(blob: str, layers: list[Layer], made_by: dict[str, int]) -> str:
    later = next((layer.spec for layer in layers if blob in layer.spec.tops), None)
    if later is not None:
        return f' (layer "{later.name}" at line {later.line} makes it later: move that layer up)'
    known = list(made_by)[-8:]
    return f" in this phase (the last ones made: {', '.join(known) or 'none'})"


def _overwritten(layers: list[Layer]) -> frozenset[int]:
    """Layers that can work in place although torch shares memory: their bottom is a fresh tensor (no view, no
    pass-through, not an input) and they are its only reader. Follows values, not names: in-place blobs have several."""
    maker: dict[str, int] = {}  # blob -> layer that made its present value
    readers: dict[tuple[int, str], list[int]] = {}
    for index, layer in enumerate(layers):
        for blob in layer.spec.bottoms:
            readers.setdefault((maker[blob], blob), []).append(index)
        for blob in layer.spec.tops:
            maker[blob] = index
    final = set(maker.items())
    losses = {
        (top, index)
        for index, layer in enumerate(layers)
        for top, weight in zip(layer.spec.tops, layer.loss_weights, strict=True)
        if weight
    }
    return frozenset(
        index[0]
        for (made, blob), index in readers.items()
        if len(index) == 1
        and layers[made].fresh_tops
        and layers[index[0]].spec.bottoms[0] == blob
        and not ((blob, made) in final and (blob, made) in losses)
    )
