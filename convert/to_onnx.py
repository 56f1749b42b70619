"""A Caffe net as an ONNX model, layer by layer, under the prototxt's own names.

Nodes carry the names of layers, values those of blobs. ONNX assigns every value once, Caffe's in-place layers do not:
of several layers that write one blob the last gives its value the blob's name, since that is the one an output or a
later layer means; the earlier ones get names made of blob and layer.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from caffe_models.atomic import replacing
from caffe_models.errors import NetError
from caffe_models.layer import ONNX_OPSET, Shape
from caffe_models.net import Net
from convert.provenance import file_sha256, rpn3d_version, weights_sha256

IR_VERSION = 8
"""The oldest file format that opset 18 may be stored in; older runtimes refuse newer ones."""

AXES = {3: ("l",), 4: ("h", "w"), 5: ("d", "h", "w")}
"""Number of axes of a blob -> letters of its spatial axes, for the names of dynamic dimensions."""


class GraphWriter:
    """Collects nodes and initializers; the `OnnxGraph` that layers write into."""

    def __init__(self, reserved: Sequence[str]) -> None:
        """`reserved`: names no value may take but by being asked for (the blobs)."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: dict[str, Shape] = {}
        self._taken = set(reserved)

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), **attributes))

    def constant(self, array: npt.NDArray[Any], name: str) -> str:
        unique = self.fresh(name)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), unique))
        return unique

    def fresh(self, hint: str) -> str:
        name, count = hint, 1
        while name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        return name

    def rank(self, value: str) -> int:
        return len(self.shapes[value])

    def shape(self, value: str) -> Shape:
        return self.shapes[value]

    def name_nodes(self, first: int, layer: str, tops: Sequence[str]) -> None:
        """Name the nodes from `first` on: the one that makes the top has the layer's name, helpers add their op."""
        made: list[Any] = self.nodes[first:]
        main: Any = next((node for node in reversed(made) if set(node.output) & set(tops)), None)
        count: Counter[str] = Counter()
        for node in made:
            if node is main:
                node.name = layer
                continue
            count[node.op_type] += 1
            number = count[node.op_type]
            node.name = f"{layer}/{node.op_type}" + (f"_{number}" if number > 1 else "")


def net_to_onnx(net: Net, weights: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """The net with its weights as an ONNX model that passes ONNX's checker.

    The batch and the channels are those the prototxt declares, spatial sizes are free (`data_d`, `data_h`, `data_w`).
    An input blob that layers overwrite keeps its name for the input. The file `weights` that the net was loaded with
    is noted by its hash.

    Raises:
        NetError: the net is of the TRAIN phase, or a layer of it (a loss, say) has no ONNX form; names file and line.
    """
    writer = GraphWriter(list(net.shapes))
    value: dict[str, str] = {}
    last_writer = {top: layer for layer in net.layers for top in layer.spec.tops}
    source = ""
    for layer, shapes in zip(net.layers, net.shapes_before, strict=True):
        spec = layer.spec
        if spec.phase == "TRAIN":
            raise NetError(
                f"{spec.source}: the net was read in its TRAIN phase; ONNX is for deploying: read it in the TEST phase"
            )
        source = source or spec.source
        if layer.is_input:
            for top in spec.tops:
                value[top] = top
                writer.shapes[top] = net.inputs[top]
            continue
        bottoms = [value[blob] for blob in spec.bottoms]
        tops = [
            top if last_writer[top] is layer and top not in net.inputs else writer.fresh(f"{top}_{spec.name}")
            for top in spec.tops
        ]
        writer.shapes.update(zip(tops, layer.top_shapes(shapes), strict=True))
        first = len(writer.nodes)
        layer.to_onnx(writer, bottoms, tops)
        writer.name_nodes(first, spec.name, tops)
        value.update(zip(spec.tops, tops, strict=True))

    inputs = [_value_info(blob, shape) for blob, shape in net.inputs.items()]
    outputs = [_value_info(value[b], writer.shapes[value[b]]) for b in net.outputs if value[b] not in net.inputs]
    if not outputs:
        raise NetError(f"{source}: net {net.name} computes no output; nothing to convert")
    graph = helper.make_graph(writer.nodes, net.name or "net", inputs, outputs, writer.initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", ONNX_OPSET)],
        ir_version=IR_VERSION,
        producer_name="rpn3d",
        producer_version=rpn3d_version(),
    )
    helper.set_model_props(
        model,
        {
            "rpn3d_version": rpn3d_version(),
            "source": os.path.basename(source),
            "weights_sha256": weights_sha256(net.layers),
            "caffemodel_sha256": "none" if weights is None else file_sha256(weights),
        },
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise NetError(f"{source}: ONNX refuses the converted net: {str(error).strip().splitlines()[0]}") from error
    return model


def save_onnx(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write the model, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _value_info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    letters = AXES.get(len(shape), ())
    fixed = len(shape) - len(letters)
    dims = [*shape[:fixed], *(f"{name}_{letter}" for letter in letters)]
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
