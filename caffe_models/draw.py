"""A net as a picture: `draw_net` writes an .svg or .png. Drawn by matplotlib, which is loaded inside."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_models.atomic import replacing
from caffe_models.draw_layout import MARGIN, Layout, layout
from caffe_models.errors import NetError
from caffe_models.layer import Shape
from caffe_models.net import Net
from caffe_models.net_boxes import KINDS, Box, box_of, output_box
from caffe_models.net_groups import collapse, group_layers
from caffe_models.net_table import table_of
from caffe_models.net_table_text import binary, decimal, short

COLOURS = {
    "input": ("#eceff1", "#78909c"),
    "convolution": ("#e3f0fb", "#3f7fb5"),
    "residual": ("#e2f3e6", "#3c8d57"),
    "deconvolution": ("#fdebd9", "#c77f33"),
    "pooling": ("#efe6f7", "#8a63ad"),
    "merge": ("#fdf7d6", "#b39b2c"),
    "other": ("#ffffff", "#8a8a8a"),
    "loss": ("#fbe3e3", "#b94a48"),
    "output": ("#455a64", "#263238"),
}
"""Kind of a box -> fill and edge."""

_STYLES = {"title": (12.0, "bold", 15), "plain": (10.5, "normal", 14), "shape": (10.5, "normal", 14)}
_STYLES["name"] = (9.0, "normal", 12)
"""Style of a line -> size in pixels, weight, height of the line."""
_INK = {"title": "#1b1b1b", "plain": "#333333", "shape": "#0b5394", "name": "#6b6b6b"}
_HEADER, _LEGEND = 58.0, 30.0
MANY_BOXES = 60
"""Above this, rows of equal residual blocks become one box each."""
MAX_PIXELS = 60_000
"""Of one side of a PNG; an SVG may be any size."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn."""

    layers: int
    boxes: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.layers} layers in {self.boxes} boxes, {self.width} x {self.height} pixels"


def draw_net(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    phase: str = "TEST",
    *,
    dialect: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    full: bool = False,
) -> Drawn:
    """Draw the net in the prototxt `path` as `out` (.svg or .png), whole or not at all.

    Args:
        full: every layer is a box; else they are grouped, see `net_groups`.

    Raises:
        PrototxtError: the net cannot be read. NetError: another ending than .svg or .png, or a PNG that would be
            larger than matplotlib can write.
    """
    target = Path(out)
    if target.suffix not in (".svg", ".png"):
        raise NetError(f"{target}: a picture's name must end in .svg or .png")
    net = Net.from_prototxt(path, phase, dialect, input_shapes)
    boxes, links = boxes_and_links(net, full)
    sizes = [size_of(box) for box in boxes]
    placed = layout(sizes, links)
    header = _header(net, phase)
    legend = sum(30 + 5.6 * len(kind) for kind in {box.kind for box in boxes})
    width = max(placed.width, 2 * MARGIN + max(8 * len(header[0]), 6 * len(header[1]), legend))
    height = placed.height + _HEADER + _LEGEND
    if target.suffix == ".png" and max(width, height) > MAX_PIXELS:
        raise NetError(f"{target}: would have {width:.0f} x {height:.0f} pixels; write an .svg, or leave --full out")
    _paint(target, boxes, sizes, placed, header, (width, height))
    return Drawn(len(net.layers), sum(box.kind != "output" for box in boxes), round(width), round(height))


def boxes_and_links(net: Net, full: bool = False) -> tuple[list[Box], list[tuple[int, int]]]:
    """The boxes of a net, the outputs last, and which leads to which (indices)."""
    grouping = group_layers(net, full)
    if not full and len(grouping.groups) > MANY_BOXES:
        grouping = collapse(net, grouping)
    before = net.shapes_before
    boxes, links = [], [(link.source, link.target) for link in grouping.links]
    made: dict[str, int] = {}
    for index, group in enumerate(grouping.groups):
        boxes.append(box_of(net, group, before[group.layers[0]], _top_shape(net, group.layers[-1], before)))
        made.update({top: index for layer in group.layers for top in net.layers[layer].spec.tops})
    for layer in net.layers:  # a Split's tops are of the group that made its bottom
        if layer.spec.type == "Split" and layer.spec.bottoms[0] in made:
            made.update({top: made[layer.spec.bottoms[0]] for top in layer.spec.tops if top not in made})
    for blob in net.outputs:
        if blob in made:
            links.append((made[blob], len(boxes)))
            boxes.append(output_box(blob, net.shapes[blob]))
    return boxes, links


def size_of(box: Box) -> tuple[float, float]:
    """Width and height in pixels; widths of letters are those of DejaVu Sans, on average, and a little more."""
    widest = max(len(text) * _STYLES[style][0] * (0.66 if style == "title" else 0.59) for style, text in box.lines)
    return max(90.0, widest + 20), sum(_STYLES[style][2] for style, _ in box.lines) + 12.0


def _top_shape(net: Net, index: int, before: Sequence[Sequence[Shape]]) -> Shape | None:
    layer = net.layers[index]
    if not layer.spec.tops:
        return None
    if layer.is_input:
        return net.inputs[layer.spec.tops[0]]
    return layer.top_shapes(before[index])[0]


def _header(net: Net, phase: str) -> tuple[str, str]:
    table = table_of(net, phase)
    inputs = ", ".join(f"{short(blob, 20)} {'×'.join(map(str, shape))}" for blob, shape in list(net.inputs.items())[:3])
    counts = f"{len(net.layers)} layers, {decimal(table.parameters)} parameters"
    work = f"{decimal(table.multiply_adds)} multiply-adds, {binary(table.peak_bytes)}B of blobs at most"
    totals = f"{counts}, {work}{' at ' + inputs if inputs else ''}"
    return f"{short(net.name, 40)} ({phase})", totals


def _paint(
    out: Path,
    boxes: Sequence[Box],
    sizes: Sequence[tuple[float, float]],
    placed: Layout,
    header: tuple[str, str],
    extent: tuple[float, float],
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    width, height = extent
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")

    def write(x: float, y: float, text: str, style: str, colour: str, align: str = "center") -> None:
        size, weight, _ = _STYLES[style]
        # parse_math: a name with $ in it is a name
        more: dict[str, Any] = {"ha": align, "va": "center", "color": colour, "parse_math": False, "zorder": 4}
        axes.text(x, y, text, fontsize=size * 0.72, fontweight=weight, **more)

    def rectangle(x: float, y: float, wide: float, high: float, kind: str) -> None:
        fill, edge = COLOURS[kind]
        shape = FancyBboxPatch(
            (x, y), wide, high, boxstyle="round,pad=0,rounding_size=5", fc=fill, ec=edge, lw=0.9, zorder=3
        )
        axes.add_patch(shape)

    shift = (width - placed.width) / 2
    down = _HEADER + _LEGEND - MARGIN / 2
    for points in placed.curves:
        moved = [(x + shift, y + down) for x, y in points]
        vertices, codes = [moved[0]], [Curve.MOVETO]
        for index, (x, y) in enumerate(moved[1:], 1):
            x0, y0 = moved[index - 1]
            if index % 2 == 1:
                vertices.append((x, y))
                codes.append(Curve.LINETO)
            else:
                half = (y - y0) / 2
                vertices += [(x0, y0 + half), (x, y - half), (x, y)]
                codes += [Curve.CURVE4] * 3
        long = len(points) > 4
        colour = "#c77f33" if long else "#5f6b73"
        axes.add_patch(PathPatch(Curve(vertices, codes), fc="none", ec=colour, lw=1.1, zorder=1))
        x, y = moved[-1]
        axes.add_patch(Polygon([(x, y), (x - 3.6, y - 7), (x + 3.6, y - 7)], fc=colour, ec="none", zorder=2))
    for box, (x, y), (wide, high) in zip(boxes, placed.centres, sizes, strict=True):
        rectangle(x + shift - wide / 2, y + down - high / 2, wide, high, box.kind)
        at = y + down - high / 2 + 6
        for style, text in box.lines:
            step = _STYLES[style][2]
            write(x + shift, at + step / 2, text, style, "#ffffff" if box.kind == "output" else _INK[style])
            at += step
    write(MARGIN, 20, header[0], "title", _INK["title"], "left")
    write(MARGIN, 38, header[1], "plain", _INK["plain"], "left")
    at = MARGIN
    present = {box.kind for box in boxes}
    for kind in (kind for kind in KINDS if kind in present):
        rectangle(at, _HEADER, 12, 10, kind)
        write(at + 17, _HEADER + 5, kind, "name", _INK["plain"], "left")
        at += 30 + 5.6 * len(kind)
    settings = {"svg.fonttype": "none", "svg.hashsalt": "rpn3d", "font.family": "sans-serif"}
    with mpl.rc_context(settings), replacing(out) as temporary:
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        figure.savefig(temporary, format=out.suffix[1:], metadata=metadata)
