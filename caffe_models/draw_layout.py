"""Places for the boxes of a directed acyclic graph, top down, and curves between them that cross no box.

After Sugiyama, Tagawa and Toda (1981): boxes get ranks (longest path), a link over several ranks gets a lane of its own
through each rank it passes, the order within the ranks comes from barycentres, and places are gathered into straight
columns. Lengths are pixels, y points down.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]

GAP_X, GAP_Y, LANE, MARGIN = 26.0, 22.0, 12.0, 24.0
_SWEEPS = 24


@dataclass(frozen=True)
class Layout:
    """`centres` of the boxes; `curves`: for each link the points of a path: to points 1, 2; 3, 4; ... it goes straight
    down and between them in an S with vertical ends; `width` and `height` of everything."""

    centres: tuple[Point, ...]
    curves: tuple[tuple[Point, ...], ...]
    width: float
    height: float


@dataclass
class _Place:
    """A box, or the lane of a link in one rank."""

    rank: int
    width: float
    box: int | None
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    x: float = 0.0


def layout(sizes: Sequence[tuple[float, float]], links: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of `sizes` (width, height), linked from index to index; every link goes to a later index."""
    if not sizes:
        return Layout((), (), 2 * MARGIN, 2 * MARGIN)
    ranks = _ranks(len(sizes), links)
    places = [_Place(rank, width, box) for box, (rank, (width, _)) in enumerate(zip(ranks, sizes, strict=True))]
    paths = _lanes(places, ranks, links)
    rows: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
    for number in _first_order(places):
        rows[places[number].rank].append(number)
    rows = _ordered(places, rows)
    _set_x(places, rows)
    left = min(place.x - place.width / 2 for place in places) - MARGIN
    for place in places:
        place.x -= left
    tops, bottoms = _set_y(places, rows, sizes)
    centres = tuple((place.x, (tops[place.rank] + bottoms[place.rank]) / 2) for place in places[: len(sizes)])
    curves = tuple(_curve(path, places, sizes, tops, bottoms) for path in paths)
    width = max(place.x + place.width / 2 for place in places) + MARGIN
    return Layout(centres, curves, width, bottoms[-1] + MARGIN)


def _ranks(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; a source stands right above its first reader."""
    ranks = [0] * count
    readers: list[list[int]] = [[] for _ in range(count)]
    fed = set()
    for source, target in sorted(links, key=lambda link: link[1]):
        ranks[target] = max(ranks[target], ranks[source] + 1)
        readers[source].append(target)
        fed.add(target)
    for source in range(count):
        if source not in fed and readers[source]:
            ranks[source] = min(ranks[target] for target in readers[source]) - 1
    return ranks


def _lanes(places: list[_Place], ranks: Sequence[int], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Add the lanes to `places`; the places each link runs through. Links of one source share their lanes."""
    lanes: dict[tuple[int, int], int] = {}
    paths = []
    for source, target in links:
        path = [source]
        for rank in range(ranks[source] + 1, ranks[target]):
            if (source, rank) not in lanes:
                lanes[source, rank] = len(places)
                places.append(_Place(rank, LANE, None))
            path.append(lanes[source, rank])
        path.append(target)
        for upper, lower in itertools.pairwise(path):
            if lower not in places[upper].down:
                places[upper].down.append(lower)
                places[lower].up.append(upper)
        paths.append(path)
    return paths


def _first_order(places: Sequence[_Place]) -> list[int]:
    """Depth first from the sources, so that parts that do not hang together stay apart."""
    seen: dict[int, None] = {}
    stack = [n for n in reversed(range(len(places))) if not places[n].up]
    while stack:
        number = stack.pop()
        if number not in seen:
            seen[number] = None
            stack.extend(sorted(places[number].down, key=lambda n: places[n].box is not None, reverse=True))
    return list(seen)


def _ordered(places: Sequence[_Place], rows: list[list[int]]) -> list[list[int]]:
    """Rows with fewer crossings: barycentres of the row above, then of the row below, and so on; the best is kept."""
    best, least = rows, _crossings(places, rows)
    for sweep in range(_SWEEPS):
        if least == 0:
            break
        rows = [list(row) for row in rows]
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            order = {n: i for other in rows for i, n in enumerate(other)}
            centre = {}
            for number in row:
                near = places[number].up if downwards else places[number].down
                centre[number] = sum(order[n] for n in near) / len(near) if near else float(order[number])
            row.sort(key=lambda n: centre[n])
        found = _crossings(places, rows)
        if found < least:
            best, least = rows, found
    return best


def _crossings(places: Sequence[_Place], rows: Sequence[Sequence[int]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(rows):
        order = {n: i for i, n in enumerate(lower)}
        ends = [order[n] for number in upper for n in sorted(places[number].down, key=lambda n: order[n])]
        total += sum(ends[j] < ends[i] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return total


def _set_x(places: Sequence[_Place], rows: Sequence[Sequence[int]]) -> None:
    """x of every place. Places that should stand below each other form columns (after Brandes and Koepf, 2002); the
    columns are packed from the left, then drawn towards what they are linked to."""
    column = _columns(places, rows)
    count = max(column) + 1
    left: list[dict[int, float]] = [{} for _ in range(count)]  # the columns right before it, and the least distance
    right: list[dict[int, float]] = [{} for _ in range(count)]
    for row in rows:
        for one, other in itertools.pairwise(row):
            apart = (places[one].width + places[other].width) / 2 + GAP_X
            a, b = column[one], column[other]
            left[b][a] = right[a][b] = max(left[b].get(a, 0.0), apart)
    at = [0.0] * count
    order = _topological(left, right)
    for c in order:
        at[c] = max((at[a] + apart for a, apart in left[c].items()), default=0.0)
    pulls: list[list[int]] = [[] for _ in range(count)]
    for number, place in enumerate(places):
        pulls[column[number]] += [column[n] for n in (*place.up, *place.down) if column[n] != column[number]]
    for sweep in range(_SWEEPS):
        for c in order if sweep % 2 else reversed(order):
            if pulls[c]:
                wanted = sum(at[other] for other in pulls[c]) / len(pulls[c])
                least = max((at[a] + apart for a, apart in left[c].items()), default=-math.inf)
                most = min((at[b] - apart for b, apart in right[c].items()), default=math.inf)
                at[c] = max(least, min(wanted, most)) if least <= most else at[c]
    for number, place in enumerate(places):
        place.x = at[column[number]]


def _columns(places: Sequence[_Place], rows: Sequence[Sequence[int]]) -> list[int]:
    """The column of every place: links that go straight down, chosen so that none crosses another."""
    column = list(range(len(places)))
    for upper, lower in itertools.pairwise(rows):
        above = {number: index for index, number in enumerate(upper)}
        below = {number: index for index, number in enumerate(lower)}
        links = [(u, v) for u in upper for v in places[u].down if (places[u].box is None) == (places[v].box is None)]
        mean_below = {u: sum(below[n] for n in places[u].down) / max(1, len(places[u].down)) for u in upper}
        mean_above = {v: sum(above[n] for n in places[v].up) / max(1, len(places[v].up)) for v in lower}
        ranked = [  # lanes first; then the middle one of several
            (places[u].box is not None, abs(below[v] - mean_below[u]) + abs(above[u] - mean_above[v]), below[v], u, v)
            for u, v in links
        ]
        taken: list[tuple[int, int]] = []
        for *_, u, v in sorted(ranked):
            a, b = above[u], below[v]
            if all((a - c) * (b - d) > 0 for c, d in taken):
                taken.append((a, b))
                column[v] = column[u]
    names = {old: new for new, old in enumerate(dict.fromkeys(column))}
    return [names[old] for old in column]


def _topological(left: Sequence[dict[int, float]], right: Sequence[dict[int, float]]) -> list[int]:
    """Columns so that each comes after those left of it; where alignment made a ring, the rest in any order."""
    waiting = [len(before) for before in left]
    ready = [c for c, n in enumerate(waiting) if n == 0]
    for c in ready:
        for other in right[c]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    return [*ready, *sorted(set(range(len(left))) - set(ready))]


def _set_y(
    places: Sequence[_Place], rows: Sequence[Sequence[int]], sizes: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Top and bottom of each row; rows with long sideways links between them stand further apart."""
    tops, bottoms, at = [], [], MARGIN
    for row in rows:
        height = max((sizes[box][1] for n in row if (box := places[n].box) is not None), default=LANE)
        tops.append(at)
        bottoms.append(at + height)
        reach = max((abs(places[n].x - places[m].x) for n in row for m in places[n].down), default=0.0)
        at += height + GAP_Y + min(reach, 600.0) / 20
    return tops, bottoms


def _curve(
    path: Sequence[int],
    places: Sequence[_Place],
    sizes: Sequence[tuple[float, float]],
    tops: Sequence[float],
    bottoms: Sequence[float],
) -> tuple[Point, ...]:
    """From the bottom of the first box through its lanes to the top of the last."""
    source, target = places[path[0]], places[path[-1]]
    start = _port(source, places[path[1]].x)
    end = _port(target, places[path[-2]].x)
    middle = (tops[source.rank] + bottoms[source.rank]) / 2
    points: list[Point] = [(start, middle + sizes[path[0]][1] / 2), (start, bottoms[source.rank])]
    for number in path[1:-1]:
        lane = places[number]
        points += [(lane.x, tops[lane.rank]), (lane.x, bottoms[lane.rank])]
    middle = (tops[target.rank] + bottoms[target.rank]) / 2
    points += [(end, tops[target.rank]), (end, middle - sizes[path[-1]][1] / 2)]
    return tuple(points)


def _port(box: _Place, towards: float) -> float:
    """Where a link leaves or enters a box: below or above what it comes from, as far as the box reaches."""
    reach = max(0.0, box.width / 2 - 16)
    return min(max(towards, box.x - reach), box.x + reach)
