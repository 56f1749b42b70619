"""What a net consists of: layers, shapes, parameters, multiply-adds."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from caffe_models.net import Net


@dataclass(frozen=True)
class LayerRow:
    """One layer at the declared input size. `multiply_adds` counts convolutions, deconvolutions and inner products."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    multiply_adds: int


def inspect_net(path: str | os.PathLike[str], phase: str = "TEST") -> list[LayerRow]:
    """A row for each layer, in order.

    Raises:
        PrototxtError: the net cannot be read.
    """
    net = Net.from_prototxt(path, phase)
    rows = []
    for layer, before in zip(net.layers, net.shapes_before, strict=True):
        shapes = [net.inputs[top] for top in layer.spec.tops] if layer.is_input else layer.top_shapes(before)
        weight = math.prod(layer.blob_shapes[0]) if layer.blob_shapes else 0
        # each weight of a convolution works once for each output voxel, of a deconvolution for each input voxel
        places = {
            "Convolution": [shapes[0][0], *shapes[0][2:]] if shapes else [],
            "Deconvolution": [before[0][0], *before[0][2:]] if before else [],
            "InnerProduct": [shapes[0][0]] if shapes else [],
        }.get(layer.spec.type)
        rows.append(
            LayerRow(
                layer.spec.name,
                layer.spec.type,
                layer.spec.bottoms,
                layer.spec.tops,
                tuple(shapes),
                sum(math.prod(shape) for shape in layer.blob_shapes),
                weight * math.prod(places) if places else 0,
            )
        )
    return rows


def table(rows: Sequence[LayerRow]) -> str:
    """The rows as text, with sums below."""
    lines = [f"{'layer':<24}{'type':<26}{'top shape':<26}{'parameters':>12}{'multiply-adds':>18}"]
    for row in rows:
        shape = "x".join(map(str, row.shapes[0])) if row.shapes else "-"
        lines.append(f"{row.name:<24}{row.type:<26}{shape:<26}{row.parameters:>12,}{row.multiply_adds:>18,}")
    parameters, work = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    lines.append(f"{f'{len(rows)} layers':<76}{parameters:>12,}{work:>18,}")
    return "\n".join(lines)
