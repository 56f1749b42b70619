"""Weights that Intel Caffe saved from a TEST net: BatchNorm and Scale are folded into the convolution before them and
gone from the file, though the prototxt still lists them. With their initial values they would multiply by 316
(1 / sqrt(eps)); they must do nothing instead."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_models.layer import Layer

if TYPE_CHECKING:
    from caffe_models.weights import Weights


def folded_layers(layers: list[Layer], weights: "Weights") -> list[Layer]:
    """The BatchNorm and Scale layers of an intel net in the TEST phase that `weights` lacks although it has the
    convolution right before them, in order."""
    found: list[Layer] = []
    maker: dict[str, Layer] = {}
    for layer in layers:
        spec = layer.spec
        before = maker.get(spec.bottoms[0]) if spec.bottoms else None
        lost = (
            spec.dialect == "intel" and spec.phase == "TEST" and bool(layer.held_blobs) and not weights.get(spec.name)
        )
        if lost and before is not None:
            convolution = before.spec.type == "Convolution" and bool(weights.get(before.spec.name))
            if (spec.type == "BatchNorm" and convolution) or (spec.type == "Scale" and found and found[-1] is before):
                found.append(layer)
        maker.update(dict.fromkeys(spec.tops, layer))
    return found


def identity_blobs(layer: Layer) -> list[npt.NDArray[np.float32]]:
    """Blobs with which a BatchNorm or Scale layer returns its bottom."""
    blobs = [np.zeros(shape, np.float32) for shape in layer.blob_shapes]
    if layer.spec.type == "Scale":
        blobs[0][...] = 1
        return blobs
    eps = float(layer.spec.param("batch_norm_param").get("eps"))
    blobs[1][...], blobs[2][...] = 1 - eps, 1
    if len(blobs) > 3:
        blobs[3][...] = 1
    return blobs
