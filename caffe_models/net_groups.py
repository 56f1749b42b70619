"""The layers of a net gathered into what a reader thinks in: a convolution with what follows it, a residual block.

Everything is found from the wiring and the shapes, never from names:

1. A layer is light if it has one bottom and one top of as many values and no weight of two axes or more (BatchNorm,
   Scale, ReLU, Dropout, Reshape ...). A light layer joins the group before it if nobody else reads that value; lights
   with nothing to join go with the one convolution behind them (pre-activation).
2. An Eltwise, all that leads to it from one blob, and nothing that leaves on the way is a residual block, if its
   branches are short and stay at the resolution of its result.

`Split` layers are left out: they only give a blob several names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from caffe_models.layer import Shape
from caffe_models.net import Net

MAX_BLOCK = 12
"""Most groups in a residual block; what is larger is no block but a part of the net."""


@dataclass(frozen=True)
class Group:
    """Layers (by index, in order) that are drawn as one box; `residual`: they are a residual block."""

    layers: tuple[int, ...]
    residual: bool = False
    repeats: int = 1
    """How many equal residual blocks in a row this stands for."""


@dataclass(frozen=True)
class Link:
    """A value that group `source` makes and group `target` reads (indices into the list of groups)."""

    source: int
    target: int
    shape: Shape


@dataclass(frozen=True)
class Grouping:
    """The groups in the order of their last layers, and the values between them, each pair once."""

    groups: tuple[Group, ...]
    links: tuple[Link, ...]


class _Wiring:
    """Who reads what: of layers, by index, with Split layers looked through."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.before = net.shapes_before
        self.tops: list[list[Shape]] = []
        self.sources: list[list[int]] = []
        self.readers: list[set[int]] = [set() for _ in net.layers]
        self.shape_between: dict[tuple[int, int], Shape] = {}
        self.skipped: set[int] = set()
        maker: dict[str, int] = {}
        for index, (layer, shapes) in enumerate(zip(net.layers, self.before, strict=True)):
            spec = layer.spec
            made = [net.inputs[top] for top in spec.tops] if layer.is_input else layer.top_shapes(shapes)
            sources = [maker[blob] for blob in spec.bottoms]
            self.tops.append(made)
            self.sources.append([] if spec.type == "Split" else sources)
            if spec.type == "Split":
                self.skipped.add(index)
                maker.update(dict.fromkeys(spec.tops, sources[0]))
                continue
            for source, shape in zip(sources, shapes, strict=True):
                self.readers[source].add(index)
                self.shape_between[source, index] = shape
            maker.update(dict.fromkeys(spec.tops, index))

    def light(self, index: int) -> bool:
        """See the module's text, point 1."""
        layer = self.net.layers[index]
        if len(layer.spec.bottoms) != 1 or len(layer.spec.tops) != 1 or layer.spec.type == "Python":
            return False
        if hasattr(layer, "geometry") or layer.is_loss or any(len(shape) > 1 for shape in layer.blob_shapes):
            return False
        return _size(self.before[index][0]) == _size(self.tops[index][0])


def group_layers(net: Net, full: bool = False) -> Grouping:
    """The groups of a net. `full`: every layer is a group of its own."""
    wiring = _Wiring(net)
    members = [[index] for index in range(len(net.layers)) if index not in wiring.skipped]
    residual: set[int] = set()
    if not full:
        members = _pre_activations(wiring, _chains(wiring, members))
        members, residual = _residual_blocks(wiring, members)
    groups = [Group(tuple(layers), layers[-1] in residual) for layers in sorted(members, key=lambda m: m[-1])]
    return _linked(wiring, groups)


def collapse(net: Net, grouping: Grouping, least: int = 3) -> Grouping:
    """Runs of `least` or more equal residual blocks, one behind the other, as one group each."""
    after: dict[int, list[int]] = {}
    into: dict[int, list[int]] = {}
    for link in grouping.links:
        after.setdefault(link.source, []).append(link.target)
        into.setdefault(link.target, []).append(link.source)
    wiring = _Wiring(net)

    def kind(index: int) -> tuple[object, ...] | None:
        group = grouping.groups[index]
        shapes = [shape for layer in group.layers for shape in wiring.tops[layer]]
        return (tuple(net.layers[i].spec.type for i in group.layers), tuple(shapes)) if group.residual else None

    done: set[int] = set()
    groups = []
    for start, group in enumerate(grouping.groups):
        if start in done:
            continue
        run = [start]
        while after.get(run[-1], []) != [] and kind(run[-1]) is not None:
            (follower, *others) = sorted(set(after[run[-1]]))
            if others or set(into[follower]) != {run[-1]} or kind(follower) != kind(run[-1]):
                break
            run.append(follower)
        if len(run) < least:
            groups.append(group)
            continue
        done.update(run)
        layers = tuple(layer for index in run for layer in grouping.groups[index].layers)
        groups.append(Group(layers, True, len(run)))
    return _linked(wiring, sorted(groups, key=lambda g: g.layers[-1]))


def _chains(wiring: _Wiring, members: list[list[int]]) -> list[list[int]]:
    """Light layers joined to the group before them."""
    of: dict[int, list[int]] = {}
    kept = []
    for group in members:
        (index,) = group
        source = wiring.sources[index][0] if wiring.sources[index] else None
        joins = (
            source is not None
            and wiring.light(index)
            and wiring.readers[source] == {index}
            and bool(wiring.sources[source])  # not to an input
            and len(wiring.net.layers[source].spec.tops) == 1
            and not wiring.net.layers[source].is_loss
        )
        if joins and source is not None:
            of[source].append(index)
            of[index] = of[source]
        else:
            of[index] = group
            kept.append(group)
    return kept


def _pre_activations(wiring: _Wiring, members: list[list[int]]) -> list[list[int]]:
    """Groups of light layers alone joined to the one group with weights that reads them."""
    of = {index: group for group in members for index in group}
    gone: list[list[int]] = []
    for group in members:
        readers = wiring.readers[group[-1]]
        if len(readers) != 1 or not all(wiring.light(index) for index in group):
            continue
        reader = next(iter(readers))
        behind = of[reader]
        if behind[0] == reader and len(wiring.sources[reader]) == 1 and wiring.net.layers[reader].blob_shapes:
            behind[:0] = group
            of.update(dict.fromkeys(group, behind))
            gone.append(group)
    return [group for group in members if not any(group is one for one in gone)]


def _residual_blocks(wiring: _Wiring, members: list[list[int]]) -> tuple[list[list[int]], set[int]]:
    """Residual blocks joined; and the last layers of those groups that are one."""
    found: set[int] = set()
    for layer in range(len(wiring.net.layers)):
        if wiring.net.layers[layer].spec.type != "Eltwise" or layer in wiring.skipped:
            continue
        of = {index: place for place, group in enumerate(members) for index in group}
        end = of[layer]
        if members[end][0] != layer:
            continue
        block = _block(wiring, members, of, end, {of[index] for index in found})
        if block:
            joined = sorted(index for place in block for index in members[place])
            members = [group for place, group in enumerate(members) if place not in block] + [joined]
            found.add(joined[-1])
    return members, found


def _block(
    wiring: _Wiring, members: Sequence[list[int]], of: dict[int, int], end: int, blocks: set[int]
) -> set[int] | None:
    """The groups of the residual block that ends in group `end`; None if it is none. `blocks`: groups that are one."""

    def sources(place: int) -> set[int]:
        return {of[i] for layer in members[place] for i in wiring.sources[layer]} - {place}

    def readers(place: int) -> set[int]:
        return {of[i] for layer in members[place] for i in wiring.readers[layer]} - {place}

    region, outside = {end}, sources(end)
    while len(outside) > 1:
        latest = max(outside, key=lambda place: members[place][-1])
        if not readers(latest) <= region or not sources(latest) or latest in blocks or len(region) >= MAX_BLOCK:
            return None
        region.add(latest)
        outside = {source for place in region for source in sources(place)} - region
    if len(region) == 1 or not outside:
        return None
    result = wiring.tops[members[end][0]][0][2:]
    for place in region:
        spatial = wiring.tops[members[place][-1]][0][2:]
        if wiring.net.layers[members[place][0]].spec.type == "Deconvolution":
            return None
        if any(n < m for n, m in zip(spatial, result, strict=False)) and any(n > 1 for n in spatial):
            return None
    return region


def _linked(wiring: _Wiring, groups: Sequence[Group]) -> Grouping:
    of = {index: place for place, group in enumerate(groups) for index in group.layers}
    links: dict[tuple[int, int], Link] = {}
    for (source, target), shape in sorted(wiring.shape_between.items()):
        ends = (of[source], of[target])
        if ends[0] != ends[1]:
            links.setdefault(ends, Link(*ends, shape))
    return Grouping(tuple(groups), tuple(links.values()))


def _size(shape: Shape) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
