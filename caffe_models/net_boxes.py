"""What stands in the boxes of a drawn net: title, what follows, shape, names; and the kind, for its colour."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from caffe_models.layer import Layer, Shape
from caffe_models.layers.convolution import SlidingWindow
from caffe_models.layers.pooling import Pooling
from caffe_models.layers.python import Python
from caffe_models.net import Net
from caffe_models.net_groups import Group
from caffe_models.net_table_text import short
from caffe_models.weights_table import shown

KINDS = ("input", "convolution", "residual", "deconvolution", "pooling", "merge", "other", "loss", "output")
"""In the order of the legend."""

_MERGES = frozenset({"Concat", "Eltwise", "Crop", "Slice"})


@dataclass(frozen=True)
class Box:
    """One box: `lines` are (style, text) from top to bottom; styles are title, plain, shape and name."""

    kind: str
    lines: tuple[tuple[str, str], ...]


def box_of(net: Net, group: Group, bottoms: Sequence[Shape], top: Shape | None, width: int = 34) -> Box:
    """The box of a group that reads values of shapes `bottoms` and makes one of shape `top`.

    Args:
        width: most characters in a line.
    """
    layers = [net.layers[index] for index in group.layers]
    if group.residual:
        title, plain = _residual(layers, group.repeats, bottoms, top)
        kind = "residual"
    else:
        main = next((layer for layer in layers if _is_main(layer)), layers[0])
        title, kind = _title(main, bottoms, top)
        plain = " · ".join(layer.spec.type for layer in layers if layer is not main)
    names = [layers[0].spec.name, *([layers[-1].spec.name] if len(layers) > 1 else [])]
    half = (width - 3) // 2 if len(names) > 1 else width
    lines = [("title", short(title, width))]
    lines += [("plain", short(plain, width + 4))] if plain else []
    lines += [("shape", short(shape_text(top), width))] if top is not None else []
    if not title.endswith(f" {names[0]}"):
        lines.append(("name", short(" … ".join(short(name, half) for name in names), width + 6)))
    return Box(kind, tuple(lines))


def output_box(blob: str, shape: Shape) -> Box:
    """The box behind the last layer, for a blob that nobody reads."""
    return Box("output", (("title", short(blob, 30)), ("shape", shape_text(shape))))


def shape_text(shape: Shape) -> str:
    """(1, 24, 128, 128, 128) as "24 × 128×128×128", with the batch in front where it is not 1."""
    if len(shape) < 3:
        return shown(shape).replace("x", "×") if shape else "one value"
    batch = f"{shape[0]} × " if shape[0] != 1 else ""
    return f"{batch}{shape[1]} × {'×'.join(map(str, shape[2:]))}"


def _is_main(layer: Layer) -> bool:
    heavy = any(len(shape) > 1 for shape in layer.blob_shapes)
    return heavy or isinstance(layer, Pooling) or any(layer.loss_weights)


def _title(layer: Layer, bottoms: Sequence[Shape], top: Shape | None) -> tuple[str, str]:
    """The title of a layer, and the kind of its box."""
    kind = layer.spec.type
    channels = f", {bottoms[0][1]} → {top[1]}" if top and bottoms and len(bottoms[0]) > 1 and len(top) > 1 else ""
    if isinstance(layer, SlidingWindow):
        deconvolution = kind == "Deconvolution"
        text = f"{'Deconv' if deconvolution else 'Conv'} {_window(layer, len(bottoms[0]) - 2)}{channels}"
        return text, "deconvolution" if deconvolution else "convolution"
    if isinstance(layer, Pooling):
        how = "Max" if layer.params.maximum else "Average"
        if layer.params.whole:
            return f"{how} pool over all", "pooling"
        kernel, stride, _ = layer.geometry(len(bottoms[0]) - 2)
        return f"{how} pool {_sides(kernel)}{_stride(stride)}", "pooling"
    if kind == "InnerProduct":
        return f"Inner product{channels}", "convolution"
    if kind == "Concat" and all(len(shape) > 1 for shape in bottoms):
        return f"Concat {' + '.join(str(shape[1]) for shape in bottoms)}", "merge"
    if kind == "Eltwise":
        operation = str(layer.spec.param("eltwise_param").get("operation"))
        return f"{operation.capitalize()} of {len(bottoms)}", "merge"
    if not layer.spec.bottoms:
        return (f"{kind} {', '.join(layer.spec.tops)}" if layer.spec.tops else kind), "input"
    if isinstance(layer, Python):
        return f"Python {layer.params.layer}", "other"
    return kind, "merge" if kind in _MERGES else "loss" if any(layer.loss_weights) else "other"


def _residual(layers: Sequence[Layer], repeats: int, bottoms: Sequence[Shape], top: Shape | None) -> tuple[str, str]:
    """Title and contents of a residual block: how many of which convolution, and the layers between."""
    entry, result = bottoms[0][1] if bottoms else 0, top[1] if top else 0
    windows = [layer for layer in layers if _is_main(layer)]
    count = Counter(_short_title(layer, len(top or ()) - 2) for layer in windows)
    parts = [f"{n // repeats} {title}" if n > repeats else title for title, n in count.items()]
    others = dict.fromkeys(_BRIEF.get(kind, kind) for layer in layers if (kind := layer.spec.type) != "Eltwise")
    rest = [kind for kind in others if not any(layer.spec.type == kind for layer in windows)]
    times = f"{repeats} × " if repeats > 1 else ""
    return f"{times}Residual block, {entry} → {result}", " · ".join([*parts, *rest])


_BRIEF = {"BatchNorm": "BN"}


def _short_title(layer: Layer, axes: int) -> str:
    if isinstance(layer, SlidingWindow):
        return f"Conv {_window(layer, axes)}"
    return layer.spec.type


def _window(layer: SlidingWindow, axes: int) -> str:
    kernel, stride, _, dilation = layer.geometry(axes)
    wide = f" dilated {_sides(dilation)}" if any(d != 1 for d in dilation) else ""
    groups = f" in {layer.params.group} groups" if layer.params.group > 1 else ""
    return f"{_sides(kernel)}{_stride(stride)}{wide}{groups}"


def _sides(values: Sequence[int]) -> str:
    return "×".join(map(str, values))


def _stride(stride: Sequence[int]) -> str:
    if all(s == 1 for s in stride):
        return ""
    return f" /{stride[0]}" if len(set(stride)) == 1 else f" /{_sides(stride)}"
