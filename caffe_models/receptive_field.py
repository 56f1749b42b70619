"""How many voxels of the net's input one voxel of a blob sees along each axis, and how far apart neighbours look.

The recurrence of Le and Borji (2017), "What are the receptive, effective receptive, and projective fields of neurons",
axis by axis: a window of kernel k, dilation d and stride s turns a field r and a stride j into r + d (k - 1) j and j s.
A deconvolution divides the stride by s; each of its outputs mixes at most ceil((d (k - 1) + 1) / s) inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from caffe_models.layer import Layer, Shape
from caffe_models.layers.convolution import SlidingWindow
from caffe_models.layers.deconvolution import Deconvolution
from caffe_models.layers.pooling import Pooling

_MIXING = frozenset(
    "Reshape Flatten Permute InnerProduct Reduction MVN Python LRN SPP Im2col ArgMax LSTM RNN ROIPooling Filter "
    "BatchReindex Normalize Embed".split()
)
"""Types whose values are of other places than their bottoms', or of all places at once: no field is stated."""


@dataclass(frozen=True)
class Field:
    """Of one blob, for each of its spatial axes (z, y, x)."""

    extent: tuple[int, ...]
    """Voxels of the input that one voxel sees; where the input ends sooner, less."""
    stride: tuple[float, ...]
    """Voxels of the input between neighbours."""


def fields(layers: Sequence[Layer], shapes: Sequence[tuple[Sequence[Shape], Sequence[Shape]]]) -> list[Field | None]:
    """The field of each layer's first top, seen from the first blob of the net that has spatial axes.

    Args:
        shapes: for each layer the shapes of its bottoms and of its tops.

    None: the blob does not depend on that input, or a layer before it mixes all places (InnerProduct, Reshape).
    """
    known: dict[str, Field | None] = {}
    started = False
    found: list[Field | None] = []
    for index, layer in enumerate(layers):
        spec, (before, after) = layer.spec, shapes[index]
        if not spec.bottoms:
            tops: dict[str, Field | None] = dict.fromkeys(spec.tops)
            first = next((i for i, shape in enumerate(after) if len(shape) > 2), None)
            if not started and first is not None:
                axes = len(after[first]) - 2
                tops[spec.tops[first]] = Field((1,) * axes, (1.0,) * axes)
                started = True
        else:
            seen = [(known[blob], shape) for blob, shape in zip(spec.bottoms, before, strict=True)]
            tops = {top: _after(layer, seen, shape) for top, shape in zip(spec.tops, after, strict=True)}
        known.update(tops)
        found.append(tops[spec.tops[0]] if spec.tops else None)
    return found


def _after(layer: Layer, bottoms: Sequence[tuple[Field | None, Shape]], top: Shape) -> Field | None:
    """The field of a top of `layer` from those of its bottoms; a bottom that sees more counts."""
    present = [(field, shape) for field, shape in bottoms if field is not None]
    if not present or layer.spec.type in _MIXING or len(top) != len(present[0][1]):
        return None
    field, shape = max(present, key=lambda one: one[0].extent)
    if isinstance(layer, Pooling) and layer.params.whole:
        windows = [(n, 1, 1) for n in shape[2:]]
    elif isinstance(layer, Pooling):
        windows = [(k, s, 1) for k, s, _ in zip(*layer.geometry(len(shape) - 2), strict=True)]
    elif isinstance(layer, SlidingWindow):
        windows = [(k, s, d) for k, s, _, d in zip(*layer.geometry(len(shape) - 2), strict=True)]
    else:
        return field if top[2:] == shape[2:] or layer.spec.type == "Crop" else None
    extent, stride = [], []
    for r, j, (k, s, d) in zip(field.extent, field.stride, windows, strict=True):
        reach = d * (k - 1)
        up = isinstance(layer, Deconvolution)
        extent.append(round(r + (-(-(reach + 1) // s) - 1 if up else reach) * j))
        stride.append(j / s if up else j * s)
    return Field(tuple(extent), tuple(stride))
