"""Input: blobs that the caller provides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffe_models.errors import NetError
from caffe_models.layer import Layer, LayerSpec, OnnxGraph, Shape, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InputParams:
    """One shape per top."""

    shapes: tuple[Shape, ...]


@register("Input")
class Input(Layer):
    """Declares names and shapes; `Net` puts the caller's tensors in their place."""

    bottoms_allowed = (0, 0)
    is_input = True
    tops_allowed = (1, None)

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        found = [tuple(int(extent) for extent in shape.get("dim")) for shape in spec.param("input_param").get("shape")]
        if len(found) == 1:
            found *= len(spec.tops)  # one shape serves all tops
        if len(found) != len(spec.tops):
            raise spec.error(f"{len(found)} shape for {len(spec.tops)} tops; give one for all or one each")
        for shape in found:
            if any(extent < 1 for extent in shape):
                raise spec.error(f"shape {shape}; every extent must be 1 or more", spec.param("input_param").line)
        self.params = InputParams(tuple(found))

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return list(self.params.shapes)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        raise NetError(f'layer "{self.spec.name}": an Input has nothing to compute; hand its blobs to Net.forward')

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Nothing: the exporter declares graph inputs."""
