"""What a net consists of: layers, shapes, parameters, multiply-adds, memory, receptive fields; without torch."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caffe_models.errors import NetError
from caffe_models.layer import Layer, Shape
from caffe_models.net import Net
from caffe_models.net_memory import BYTES, live_bytes
from caffe_models.receptive_field import fields
from caffe_models.weights_table import WeightsFit, fit, read_stored


@dataclass(frozen=True)
class LayerRow:
    """One layer at the input size asked for.

    Attributes:
        parameters: values in its blobs; shared ones count with their first layer.
        multiply_adds: of convolutions, deconvolutions, inner products, RNN and LSTM; 0 for all other types.
        top_bytes: of its tops; live_bytes: of all blobs while it runs, see `net_memory.live_bytes`.
        field, stride: of the first top, see `receptive_field.Field`; None: not stated.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    parameters: int
    multiply_adds: int
    top_bytes: int
    live_bytes: int
    field: tuple[int, ...] | None
    stride: tuple[float, ...] | None


@dataclass(frozen=True)
class NetTable:
    """A net as a table. `weights` is None where no weights file was given."""

    name: str
    source: str
    dialect: str
    dialect_reason: str
    phase: str
    precision: str
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    rows: tuple[LayerRow, ...]
    weights: WeightsFit | None = None

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        return self.parameters * BYTES[self.precision]

    @property
    def peak_row(self) -> LayerRow | None:
        """The layer that runs when the most bytes of blobs are alive."""
        return max(self.rows, key=lambda row: row.live_bytes, default=None)

    @property
    def peak_bytes(self) -> int:
        return self.peak_row.live_bytes if self.peak_row else 0

    @property
    def types(self) -> dict[str, int]:
        """Type -> number of layers, the most frequent first."""
        return dict(Counter(row.type for row in self.rows).most_common())

    def as_json(self) -> dict[str, Any]:
        """Everything, with the totals."""
        totals = {
            "layers": len(self.rows),
            "types": self.types,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "weight_bytes": self.weight_bytes,
            "peak_blob_bytes": self.peak_bytes,
            "peak_layer": self.peak_row.name if self.peak_row else None,
        }
        plain = {"name", "source", "dialect", "dialect_reason", "phase", "precision", "inputs", "outputs"}
        return {
            **{key: value for key, value in vars(self).items() if key in plain},
            "totals": totals,
            "layers": [asdict(row) for row in self.rows],
            "weights": None if self.weights is None else asdict(self.weights),
        }


def inspect_net(
    path: str | os.PathLike[str],
    phase: str = "TEST",
    *,
    weights: str | os.PathLike[str] | None = None,
    dialect: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    precision: str = "f32",
) -> NetTable:
    """The table of the net in the prototxt `path`, and how the blobs of `weights` fit it.

    Args:
        input_shapes: other shapes for some inputs; what must follow from them (a second input at a quarter of the
            first, say) is for the caller to give.
        precision: of values and weights, for the bytes: f32, bf16, f16 or int8.

    Raises:
        PrototxtError: the net cannot be read, or a layer cannot take the shapes; names it.
        NetError: an unknown phase or precision, or an input that the net does not have.
        WeightsError: the weights cannot be read. Weights that do not fit are reported, not raised.
    """
    if precision not in BYTES:
        raise NetError(f'precision "{precision}" is not known; allowed: {", ".join(BYTES)}')
    if phase not in ("TEST", "TRAIN"):
        raise NetError(f'phase "{phase}" is not known; allowed: TEST, TRAIN')
    net = Net.from_prototxt(path, phase, dialect, input_shapes)
    return table_of(net, phase, precision, None if weights is None else fit(net.layers, *read_stored(weights)))


def table_of(net: Net, phase: str = "TEST", precision: str = "f32", weights: WeightsFit | None = None) -> NetTable:
    """The table of a net that is at hand."""
    before = net.shapes_before
    tops = [
        [net.inputs[top] for top in layer.spec.tops] if layer.is_input else layer.top_shapes(shapes)
        for layer, shapes in zip(net.layers, before, strict=True)
    ]
    width = BYTES[precision]
    kept = {*net.outputs, *(top for top, _ in net.loss_tops)}
    live = live_bytes(net.layers, net.graph, tops, tuple(kept), width)
    seen = fields(net.layers, list(zip(before, tops, strict=True)))
    counted: set[int] = set()
    rows = []
    for layer, bottoms, shapes, bytes_now, field in zip(net.layers, before, tops, live, seen, strict=True):
        held = list(zip(layer.held_blobs, layer.blob_shapes, strict=True))
        own = [shape for blob, shape in held if id(blob) not in counted]
        counted.update(id(blob) for blob, _ in held)
        rows.append(
            LayerRow(
                layer.spec.name,
                layer.spec.type,
                layer.spec.bottoms,
                layer.spec.tops,
                tuple(shapes),
                sum(math.prod(shape) for shape in own),
                multiply_adds(layer, bottoms, shapes),
                width * sum(math.prod(shape) for shape in shapes),
                bytes_now,
                field.extent if field else None,
                field.stride if field else None,
            )
        )
    return NetTable(
        net.name,
        net.layers[0].spec.source if net.layers else "",
        net.dialect,
        net.dialect_reason,
        phase,
        precision,
        net.inputs,
        {blob: net.shapes[blob] for blob in net.outputs},
        tuple(rows),
        weights,
    )


def multiply_adds(layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
    """How often a weight is multiplied with a value and added; biases and all other arithmetic are left out.

    Each weight of a convolution or inner product works once for each output place, of a deconvolution once for each
    input place (padding is counted as if it were computed); of an RNN or LSTM once for each time and stream, static
    inputs once for each stream.
    """
    if layer.spec.type in ("RNN", "LSTM"):
        matrices = [(index, math.prod(shape)) for index, shape in enumerate(layer.blob_shapes) if len(shape) == 2]
        times, streams = bottoms[0][:2]
        static = 2 if len(bottoms) > 2 and len(bottoms[2]) == 2 else -1  # Caffe's order: W_x, b, W_x of the static
        return sum(size * streams * (1 if index == static else times) for index, size in matrices)
    if layer.spec.type not in ("Convolution", "Deconvolution", "InnerProduct") or not layer.blob_shapes:
        return 0
    weight = math.prod(layer.blob_shapes[0])
    if layer.spec.type == "Deconvolution":
        return sum(weight * math.prod(shape) // shape[1] for shape in bottoms)
    if layer.spec.type == "InnerProduct":
        return sum(weight * math.prod(shape[:-1]) for shape in tops)
    return sum(weight * math.prod(shape) // shape[1] for shape in tops)
