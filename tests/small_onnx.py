"""A detector of a few layers with random weights, in ONNX by hand: blobs and strides are the real one's."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_small_detector(path: Path, head: str = "head", scale: float = 1.0) -> Path:
    """data (1, 1, D, H, W), coord (1, 3, D/4, ...) -> conv 6, pool, conv 8, pool, with coord, conv 15."""
    draw = np.random.default_rng(5)
    shapes = {"w1": (6, 1, 3, 3, 3), "w2": (8, 6, 3, 3, 3), "w3": (15, 11, 1, 1, 1)}
    weights = [
        numpy_helper.from_array((scale * draw.normal(0, 0.3, shape)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    pads, pool = [1] * 6, {"kernel_shape": [2] * 3, "strides": [2] * 3}
    nodes = [
        helper.make_node("Conv", ["data", "w1"], ["a"], pads=pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], **pool),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=pads),
        helper.make_node("MaxPool", ["d"], ["e"], **pool),
        helper.make_node("Concat", ["e", "coord"], ["f"], axis=1),
        helper.make_node("Conv", ["f", "w3"], [head]),
    ]
    blobs = {"data": [1, 1, "d", "h", "w"], "coord": [1, 3, "cd", "ch", "cw"], head: [1, 15, "cd", "ch", "cw"]}
    data, coord, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in blobs.items())
    graph = helper.make_graph(nodes, "small", [data, coord], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def window(d: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Random data and coord of that size."""
    draw = np.random.default_rng(d + h + w)
    data = draw.uniform(-1, 1, (1, 1, d, h, w)).astype(np.float32)
    return data, draw.uniform(-0.5, 0.5, (1, 3, d // 4, h // 4, w // 4)).astype(np.float32)
