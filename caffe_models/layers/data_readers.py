"""Layers that read or write files of Caffe's own making: refused, with what to do instead."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffe_models.layer import Layer, LayerSpec, Shape, register

if TYPE_CHECKING:
    import torch

_INSTEAD = "use the deploy net, which has inputs instead, or put an Input layer with the same tops in its place"


class DataReader(Layer):
    """Never made: `refused` is the error that its prototxt ends in."""

    bottoms_allowed = (0, None)
    tops_allowed = (0, None)
    no_onnx = "data comes from the caller"

    def __init__(self, spec: LayerSpec) -> None:
        top = (*spec.tops, "data")[0]
        example = f'layer {{ name: "{top}" type: "Input" top: "{top}" input_param {{ shape {{ dim: 1 dim: ... }} }} }}'
        raise spec.error(f"{self.refused}: {example}" if spec.tops else self.refused)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        raise self.spec.error(self.refused)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        raise self.spec.error(self.refused)


@register("Data")
class Data(DataReader):
    refused = f"reads a LevelDB or LMDB database, which is not done here; {_INSTEAD}"


@register("HDF5Data")
class HDF5Data(DataReader):
    refused = f"reads HDF5 files, which is not done here; {_INSTEAD}"


@register("ImageData")
class ImageData(DataReader):
    refused = f"reads images from a list of files, which is not done here; {_INSTEAD}"


@register("WindowData")
class WindowData(DataReader):
    refused = f"reads windows of images from a list, which is not done here; {_INSTEAD}"


@register("AnnotatedData")
class AnnotatedData(DataReader):
    dialects = ("intel", "extended")
    refused = f"reads annotated images from a database, which is not done here; {_INSTEAD}"


@register("HDF5Output")
class HDF5Output(DataReader):
    refused = "writes an HDF5 file; remove it and take the blobs it reads from the net's outputs"
