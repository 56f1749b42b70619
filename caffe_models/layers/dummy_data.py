"""DummyData: blobs that a filler fills."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models.errors import NetError
from caffe_models.fillers import FillerSpec, fill
from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch

    from caffe_models.message import Message


@dataclass(frozen=True)
class DummyDataParams:
    """Shape and filler of each top."""

    shapes: tuple[Shape, ...]
    fillers: tuple[FillerSpec, ...]


def _shapes(message: "Message", tops: int, spec: LayerSpec) -> tuple[Shape, ...]:
    """One shape for all tops or one each, as `shape {}` or as num, channels, height, width."""
    found = [tuple(int(extent) for extent in shape.get("dim")) for shape in message.get("shape")]
    old = [list(message.get(field)) for field in ("num", "channels", "height", "width")]
    if found and any(old):
        raise spec.error("shape and num, channels, height, width exclude each other", message.line)
    if not found:
        if len({len(values) for values in old}) != 1:
            raise spec.error("num, channels, height and width must stand equally often", message.line)
        found = [tuple(int(value) for value in values) for values in zip(*old, strict=True)]
    if len(found) not in (1, tops):
        raise spec.error(f"{len(found)} shape for {tops} tops; give one for all or one each", message.line)
    if any(extent < 1 for shape in found for extent in shape):
        raise spec.error(f"shapes {found}; every extent must be 1 or more", message.line)
    return tuple(found * tops if len(found) == 1 else found)


@register("DummyData")
class DummyData(Layer):
    """Tops of fixed shape; constants stay, other fillers draw anew in every pass. Without a filler: zeros."""

    bottoms_allowed = (0, 0)
    tops_allowed = (1, None)
    note = "ONNX: constant fillers only"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message, tops = spec.param("dummy_data_param"), len(spec.tops)
        count = len(message.get("data_filler"))
        if count not in (0, 1, tops):
            raise spec.error(f"{count} data_filler for {tops} tops; give none, one for all or one each", message.line)
        fillers = [FillerSpec.of(filler, "data_filler", spec.dialect) for filler in message.get("data_filler")]
        fillers = fillers or [FillerSpec()]
        self.params = DummyDataParams(
            _shapes(message, tops, spec), tuple(fillers * tops if len(fillers) == 1 else fillers)
        )
        self._rng = np.random.default_rng(zlib.crc32(spec.name.encode()))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return list(self.params.shapes)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        every = zip(self.params.fillers, self.params.shapes, strict=True)
        return [torch.from_numpy(fill(filler, shape, self._rng)) for filler, shape in every]

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        for top, filler, shape in zip(tops, self.params.fillers, self.params.shapes, strict=True):
            if filler.type != "constant":
                spec = self.spec
                raise NetError(
                    f'{spec.source}:{spec.line}: layer "{spec.name}": filler {filler.type} draws anew in every pass, '
                    "which has no ONNX form; use a constant filler, or an Input layer"
                )
            graph.node("Identity", [graph.constant(fill(filler, shape, self._rng), f"{self.spec.name}_{top}")], [top])
