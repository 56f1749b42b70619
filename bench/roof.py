"""How fast this machine multiplies and adds at all: the roof that a network's speed is held against.

No figure of a data sheet: clocks change with the load and with the vector width. Measured is what libraries reach on
work that lets them: large matrix products and convolutions, by OpenVINO (oneDNN) in each precision and by NumPy's BLAS
in f32, each several times; the best of all is the roof. A precision that did not really run (read back from the
compiled model) does not count.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe_models.errors import Rpn3dError

CONVOLUTIONS = ("Convolution", "Deconvolution")
"""As OpenVINO's execution graphs name them."""
PRODUCTS = (*CONVOLUTIONS, "FullyConnected", "MatMul")

FOR_S = 0.3
"""Each candidate is repeated for so long in a turn, at least three times."""
MANY_CORES = 8
"""From so many on a larger matrix product is tried, too: a small one is too little work for all."""


CHAINS: tuple[tuple[str, int, tuple[int, ...], int], ...] = (
    ("1x1 convolutions, 512 to 512 channels, 64x64", 512, (64, 64), 1),
    ("3x3x3 convolutions, 64 to 64 channels, 32^3", 64, (32, 32, 32), 3),
)
"""Name, channels, extents and kernel of convolutions that follow one another."""
IN_A_ROW = 6
"""So many: of a single one in int8 more time goes into its f32 input and output than into itself."""


@dataclass(frozen=True)
class Candidate:
    """One piece of work. `multiply_adds` of one call of `run`; `by`: the library; `ran_in`: the precision that ran."""

    name: str
    by: str
    ran_in: str
    multiply_adds: int
    run: Callable[[], object]

    def least_s(self) -> float:
        """Seconds of the fastest of several calls; the first does not count."""
        self.run()
        found: list[float] = []
        until = time.perf_counter() + FOR_S
        while len(found) < 3 or time.perf_counter() < until:
            start = time.perf_counter()
            self.run()
            found.append(time.perf_counter() - start)
        return min(found)

    def as_json(self, least_s: float) -> dict[str, Any]:
        return {
            "name": self.name,
            "by": self.by,
            "ran_in": self.ran_in,
            "multiply_adds": self.multiply_adds,
            "least_s": least_s,
            "gflop_per_s": 2e-9 * self.multiply_adds / least_s,
        }


def roof(precision: str, threads: int) -> list[Candidate]:
    """What is tried in this precision: f32, bf16 or int8.

    Raises:
        Rpn3dError: nothing ran in that precision.
    """
    sizes = (1024, 2048, 4096) if threads >= MANY_CORES else (1024, 2048)
    models = [(f"{n}x{n} by {n}x{n}", *_product(n, precision), n**3) for n in sizes]
    for name, channels, extents, kernel in CHAINS:
        work = IN_A_ROW * channels**2 * kernel ** len(extents) * math.prod(extents)
        models.append((f"{IN_A_ROW} {name}", *_convolutions(channels, extents, kernel, precision), work))
    found = []
    for name, model, shape, work in models:
        compiled = compile_for(model, precision, threads, {"NUM_STREAMS": 1})
        used = ran_in(compiled, PRODUCTS)
        if used == precision:
            request = compiled.create_infer_request()
            data = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
            found.append(Candidate(name, "OpenVINO", used, work, lambda r=request, d=data: r.infer([d])))  # type: ignore[misc]
    if precision == "f32":
        side = sizes[-1]
        one, two = (np.random.default_rng(k).uniform(0, 1, (side, side)).astype(np.float32) for k in range(2))
        found.append(Candidate(f"{side}x{side} by {side}x{side}", "NumPy", "f32", side**3, lambda: one @ two))
    if not found:
        raise Rpn3dError(f"OpenVINO ran none of the models in {precision} on this processor")
    return found


def compile_for(model: Any, precision: str, threads: int, settings: Mapping[str, Any]) -> Any:
    """Compile for the CPU with pinned precision and threads; a quantised model runs in int8 with f32 around it."""
    from runtime.engines.openvino_core import core

    pinned = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    return core().compile_model(model, "CPU", {**pinned, **settings})


def node_info(compiled: Any) -> dict[str, dict[str, Any]]:
    """Nodes of the execution graph by name: type, kernel, ran_in (precision), made_of (layers of the model)."""
    found = {}
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        words = {
            key: info[key].astype(str) if key in info else ""
            for key in ("layerType", "primitiveType", "runtimePrecision", "originalLayersNames")
        }
        used = words["runtimePrecision"]
        found[op.get_friendly_name()] = {
            "type": words["layerType"],
            "kernel": words["primitiveType"],
            "ran_in": "int8" if used in ("i8", "u8") else used,
            "made_of": [name for name in words["originalLayersNames"].split(",") if name],
        }
    return found


def ran_in(compiled: Any, types: tuple[str, ...] = CONVOLUTIONS) -> str:
    """The precision of most nodes of these types; int8 if any is, since quantising leaves some out."""
    count = Counter(info["ran_in"] for info in node_info(compiled).values() if info["type"] in types)
    return "int8" if "int8" in count else count.most_common(1)[0][0] if count else "unknown"


def _product(side: int, precision: str) -> tuple[Any, tuple[int, ...]]:
    """(side, side) times constant weights (side, side)."""
    import openvino
    from openvino import opset13 as ops

    data = ops.parameter([side, side], openvino.Type.f32, name="data")
    weights = _constant((side, side), precision)
    product = ops.matmul(_quantised(data, precision), weights, False, True)
    return openvino.Model([ops.result(product)], [data], "product"), (side, side)


def _convolutions(channels: int, extents: tuple[int, ...], kernel: int, precision: str) -> tuple[Any, tuple[int, ...]]:
    """(1, channels, *extents) to the same, padded, `IN_A_ROW` times with a ReLU behind each."""
    import openvino
    from openvino import opset13 as ops

    axes = len(extents)
    shape = (1, channels, *extents)
    data = ops.parameter(list(shape), openvino.Type.f32, name="data")
    pads, ones = [kernel // 2] * axes, [1] * axes
    made = data
    for _ in range(IN_A_ROW):
        weights = _constant((channels, channels, *[kernel] * axes), precision)
        made = ops.relu(ops.convolution(_quantised(made, precision), weights, ones, pads, pads, ones))
    return openvino.Model([ops.result(made)], [data], "convolutions"), shape


def _constant(shape: tuple[int, ...], precision: str) -> Any:
    from openvino import opset13 as ops

    values = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    if precision != "int8":
        return ops.constant(values)
    return ops.fake_quantize(ops.constant(values), *_bounds(-1.0, 1.0), 255)


def _quantised(data: Any, precision: str) -> Any:
    from openvino import opset13 as ops

    return ops.fake_quantize(data, *_bounds(0.0, 1.0), 256) if precision == "int8" else data


def _bounds(low: float, high: float) -> list[Any]:
    from openvino import opset13 as ops

    return [ops.constant(np.float32(value)) for value in (low, high, low, high)]
