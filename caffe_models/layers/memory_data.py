"""MemoryData: images and labels that the caller provides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MemoryDataParams:
    """Shapes of the two tops, images and labels."""

    data: Shape
    label: Shape


@register("MemoryData")
class MemoryData(Layer):
    """Both tops are inputs of the net: data (batch_size, channels, height, width) and label (batch_size). What
    `transform_param` would do to images is left to the caller."""

    bottoms_allowed = (0, 0)
    tops_allowed = (2, 2)
    is_input = True
    note = "its tops are inputs; transform_param is left to the caller"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("memory_data_param")
        shape = tuple(int(message.get(field)) for field in ("batch_size", "channels", "height", "width"))
        if any(extent < 1 for extent in shape):
            raise spec.error(f"batch_size, channels, height, width {shape}; all must be 1 or more", message.line)
        self.params = MemoryDataParams(shape, shape[:1])

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [self.params.data, self.params.label]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        raise NetError(f'layer "{self.spec.name}": has nothing to compute; hand its blobs to Net.forward')

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Nothing: the exporter declares graph inputs."""
