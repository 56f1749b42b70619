"""rpn3d's deploy net as a PyTorch user writes it by hand: the yardstick for what executing the prototxt costs.

The modules' names are the prototxt's with dots for underscores (forw1.0.conv1 is forw1_1_conv1), so that weights pass
from a caffemodel by name. Nothing else of the Caffe engine is used here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


class Block(nn.Module):
    """conv3-BN-ReLU-conv3-BN plus the input (through conv1-BN where its channels differ), then ReLU."""

    def __init__(self, inputs: int, channels: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(channels, momentum=0.1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm3d(channels, momentum=0.1)
        self.relu = nn.ReLU(inplace=True)
        self.project = project
        if project:
            self.shortcut = nn.Conv3d(inputs, channels, 1)
            self.shortcut_bn = nn.BatchNorm3d(channels, momentum=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.project:
            x = self.shortcut_bn(self.shortcut(x))
        result: torch.Tensor = self.relu(y + x)
        return result


class PreBlock(nn.Module):
    """Two convolutions at full resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 24, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(24, momentum=0.1)
        self.conv2 = nn.Conv3d(24, 24, 3, padding=1)
        self.bn2 = nn.BatchNorm3d(24, momentum=0.1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        result: torch.Tensor = self.relu(self.bn2(self.conv2(x)))
        return result


class Up(nn.Module):
    """Twice the size by deconvolution."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose3d(64, 64, 2, stride=2)
        self.bn = nn.BatchNorm3d(64, momentum=0.1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.relu(self.bn(self.deconv(x)))
        return result


class PlainRpn3d(nn.Module):
    """data (n, 1, z, y, x) and coord (n, 3, z/4, y/4, x/4) to head (n, 15, z/4, y/4, x/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.preBlock = PreBlock()
        self.pool = nn.MaxPool3d(2, 2, ceil_mode=True)
        self.forw1 = _stage(24, 32, 2)
        self.forw2 = _stage(32, 64, 2)
        self.forw3 = _stage(64, 64, 3)
        self.forw4 = _stage(64, 64, 3)
        self.path1 = Up()
        self.back3 = _stage(128, 64, 3)
        self.path2 = Up()
        self.back2 = _stage(131, 128, 3)
        self.drop = nn.Dropout(0.1)
        self.head_conv = nn.Conv3d(128, 64, 1)
        self.head = nn.Conv3d(64, 15, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, data: torch.Tensor, coord: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.preBlock(data))
        x = self.pool(self.forw1(x))
        forw2 = self.forw2(x)
        forw3 = self.forw3(self.pool(forw2))
        x = self.path1(self.forw4(self.pool(forw3)))
        x = self.back3(torch.cat([x, forw3], 1))
        x = self.back2(torch.cat([self.path2(x), forw2, coord], 1))
        result: torch.Tensor = self.head(self.relu(self.head_conv(self.drop(x))))
        return result


def _stage(inputs: int, channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks in a row; the first one changes the number of channels, if it changes."""
    first = Block(inputs, channels, inputs != channels)
    return nn.Sequential(first, *(Block(channels, channels, False) for _ in range(blocks - 1)))


def load_caffe(module: nn.Module, weights: Mapping[str, Sequence[npt.NDArray[np.float32]]]) -> None:
    """Copy a caffemodel's blobs; a BatchNorm's are mean, variance, factor, gamma and beta.

    Raises:
        KeyError: a layer is missing. ValueError: a layer is left over, or a shape differs.
    """
    used = set()
    for path, one in module.named_modules():
        if not isinstance(one, nn.Conv3d | nn.ConvTranspose3d | nn.BatchNorm3d):
            continue
        name = "_".join(str(int(part) + 1) if part.isdigit() else part for part in path.split("."))
        blobs = [torch.from_numpy(np.array(blob)) for blob in weights[name]]
        used.add(name)
        if isinstance(one, nn.BatchNorm3d):
            mean, var, factor, *affine = blobs
            scale = 0.0 if factor.item() == 0 else 1.0 / factor.item()
            pairs = [(one.running_mean, mean * scale), (one.running_var, var * scale)]
            pairs += list(zip((one.weight, one.bias), affine, strict=True))
        else:
            pairs = list(zip((one.weight, one.bias), blobs, strict=True))
        for target, blob in pairs:
            if target is None or target.shape != blob.shape:
                raise ValueError(f"{name}: blob of shape {tuple(blob.shape)} does not fit the module")
            target.data.copy_(blob)
    if left := sorted(set(weights) - used):
        raise ValueError(f"no module for {', '.join(left)}")
