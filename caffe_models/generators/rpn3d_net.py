"""The topology of rpn3d, a 3-D Faster R-CNN region proposal network, as the text of Caffe layers.

A U-Net of residual blocks over a crop at 1 mm: down by 2 four times, up twice by deconvolution with skip
concatenations, three channels with each cell's place in the lungs, and a head with five values for each of three
anchors at a quarter of the resolution. Dialect: Extended Caffe, whose `engine: "MKL2017"` makes a BatchNorm carry its
own gamma and beta, so that there is no Scale layer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from caffe_models.rpn.anchors import ANCHORS_VOXEL, VALUES_PER_ANCHOR

HEAD_CHANNELS = len(ANCHORS_VOXEL) * VALUES_PER_ANCHOR

_LEARNT = "  param { lr_mult: 1 decay_mult: 1 }\n  param { lr_mult: 2 decay_mult: 0 }\n"
_STATISTICS = "  param { lr_mult: 0 decay_mult: 0 }\n" * 3


class NetText:
    """Collects the layers of one net. Each method appends layers and returns the name of the last top."""

    def __init__(self, name: str, note: str, average: float = 0.9, *, frozen: bool = False) -> None:
        """Args:
        average: moving_average_fraction of BatchNorm's statistics.
        frozen: normalise by the statistics that the weights bring, and leave them as they are.
        """
        self._statistics = "use_global_stats: true" if frozen else f"moving_average_fraction: {average:g}"
        self._parts = [f'# {note}\nname: "{name}"\n']

    def text(self) -> str:
        """The prototxt."""
        return "".join(self._parts)

    def layer(self, name: str, kind: str, bottoms: Sequence[str], tops: Sequence[str], body: str = "") -> str:
        """Any layer; `body` is the text of its parameters."""
        wiring = [f'bottom: "{blob}"' for blob in bottoms] + [f'top: "{blob}"' for blob in tops]
        head = f'layer {{\n  name: "{name}"\n  type: "{kind}"\n'
        self._parts.append(head + "".join(f"  {line}\n" for line in wiring) + body + "}\n")
        return tops[-1]

    def convolution(self, name: str, bottom: str, channels: int, kernel: int) -> str:
        """A convolution that keeps the size."""
        pad = f" pad: {kernel // 2}" if kernel > 1 else ""
        size = f"num_output: {channels} kernel_size: {kernel}{pad} stride: 1"
        body = f'{_LEARNT}  convolution_param {{ {size} weight_filler {{ type: "xavier" }} }}\n'
        return self.layer(name, "Convolution", [bottom], [name], body)

    def deconvolution(self, name: str, bottom: str, channels: int) -> str:
        """Twice the size; its weights are learnt like all others."""
        size = f"num_output: {channels} kernel_size: 2 stride: 2"
        body = f'{_LEARNT}  convolution_param {{ {size} weight_filler {{ type: "xavier" }} }}\n'
        return self.layer(name, "Deconvolution", [bottom], [name], body)

    def batch_norm(self, name: str, bottom: str) -> str:
        """Normalisation with gamma and beta; the three statistics are not learnt."""
        body = f'{_STATISTICS}  engine: "MKL2017"\n  batch_norm_param {{ {self._statistics} eps: 1e-5 }}\n'
        return self.layer(name, "BatchNorm", [bottom], [name], body)

    def relu(self, name: str, blob: str) -> str:
        """In place."""
        return self.layer(name, "ReLU", [blob], [blob])

    def pool(self, name: str, bottom: str) -> str:
        """Half the size."""
        body = "  pooling_param { pool: MAX kernel_size: 2 stride: 2 }\n"
        return self.layer(name, "Pooling", [bottom], [name], body)

    def residual_block(self, name: str, bottom: str, channels: int, shortcut: bool) -> str:
        """conv3-BN-ReLU-conv3-BN plus the bottom (through conv1-BN where its channels differ), then ReLU."""
        first = self.convolution(f"{name}_conv1", bottom, channels, 3)
        first = self.relu(f"{name}_relu1", self.batch_norm(f"{name}_bn1", first))
        second = self.batch_norm(f"{name}_bn2", self.convolution(f"{name}_conv2", first, channels, 3))
        if shortcut:
            bottom = self.convolution(f"{name}_shortcut", bottom, channels, 1)
            bottom = self.batch_norm(f"{name}_shortcut_bn", bottom)
        body = "  eltwise_param { operation: SUM }\n"
        return self.relu(f"{name}_relu2", self.layer(f"{name}_sum", "Eltwise", [second, bottom], [f"{name}_sum"], body))

    def stage(self, name: str, bottom: str, channels: int, blocks: int, shortcut: bool) -> str:
        """Residual blocks in a row; `shortcut`: the first one changes the number of channels."""
        for block in range(1, blocks + 1):
            bottom = self.residual_block(f"{name}_{block}", bottom, channels, shortcut and block == 1)
        return bottom

    def python(
        self,
        name: str,
        bottoms: Sequence[str],
        tops: Sequence[str],
        param: Mapping[str, Any],
        *,
        entry: str | None = None,
        loss_weight: float | None = None,
    ) -> None:
        """A layer of the registry `rpn3d` (its `entry`, by default its own name), with its settings as JSON."""
        settings = json.dumps(param).replace('"', '\\"')
        body = "" if loss_weight is None else f"  loss_weight: {loss_weight:g}\n"
        body += f'  python_param {{ module: "rpn3d" layer: "{entry or name}" param_str: "{settings}" }}\n'
        self.layer(name, "Python", bottoms, tops, body)

    def reshape(self, name: str, bottom: str, dims: Sequence[int]) -> str:
        """Same values under another shape."""
        shape = " ".join(f"dim: {dim}" for dim in dims)
        return self.layer(name, "Reshape", [bottom], [name], f"  reshape_param {{ shape {{ {shape} }} }}\n")

    def body(self, data: str, coord: str, *, dropout: bool = True) -> str:
        """Everything between the crop and the blob `head` (batch, 15, z/4, y/4, x/4)."""
        top = data
        for index in (1, 2):
            top = self.batch_norm(f"preBlock_bn{index}", self.convolution(f"preBlock_conv{index}", top, 24, 3))
            self.relu(f"preBlock_relu{index}", top)
        forw1 = self.stage("forw1", self.pool("pool_0", top), 32, 2, shortcut=True)
        forw2 = self.stage("forw2", self.pool("pool_1", forw1), 64, 2, shortcut=True)
        forw3 = self.stage("forw3", self.pool("pool_2", forw2), 64, 3, shortcut=False)
        forw4 = self.stage("forw4", self.pool("pool_3", forw3), 64, 3, shortcut=False)
        path1 = self._up("path1", forw4)
        back3 = self.stage("back3", self._concat("back3_concat", path1, forw3), 64, 3, shortcut=True)
        path2 = self._up("path2", back3)
        joined = self._concat("back2_coord", self._concat("back2_concat", path2, forw2), coord)
        back2 = self.stage("back2", joined, 128, 3, shortcut=True)
        if dropout:
            back2 = self.layer("drop", "Dropout", [back2], ["drop"], "  dropout_param { dropout_ratio: 0.1 }\n")
        hidden = self.relu("head_relu", self.convolution("head_conv", back2, 64, 1))
        return self.convolution("head", hidden, HEAD_CHANNELS, 1)

    def _up(self, name: str, bottom: str) -> str:
        deconvolution = self.deconvolution(f"{name}_deconv", bottom, 64)
        return self.relu(f"{name}_relu", self.batch_norm(f"{name}_bn", deconvolution))

    def _concat(self, name: str, first: str, second: str) -> str:
        return self.layer(name, "Concat", [first, second], [name], "  concat_param { axis: 1 }\n")
