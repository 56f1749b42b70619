"""Filter: the examples of a batch that a selector picks."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, Shape, register

if TYPE_CHECKING:
    import torch


@register("Filter")
class Filter(Layer):
    """Of every bottom but the last the examples at which the last, one number per example, is not 0. The batch of the
    tops is that number of examples, and may be 0; as in Caffe's first pass, the declared one is that of the bottoms."""

    bottoms_allowed = (2, None)
    tops_allowed = (1, None)
    no_onnx = "how many examples pass is known only when running, and exported nets have a fixed batch"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        if len(spec.tops) != len(spec.bottoms) - 1:
            raise spec.error(
                f"has {len(spec.tops)} tops for {len(spec.bottoms)} bottoms; one for each but the selector"
            )

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        selector = bottoms[-1]
        if not selector or math.prod(selector) != selector[0]:
            raise self.spec.error(f"selector of shape {selector}; allowed: one number per example")
        if any(not shape or shape[0] != selector[0] for shape in bottoms):
            raise self.spec.error(f"bottoms of shapes {list(bottoms)}; the batch must be the same")
        return list(bottoms[:-1])

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        chosen = tensors[-1].detach().reshape(-1) != 0
        return [tensor[chosen] for tensor in tensors[:-1]]
