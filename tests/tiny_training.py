"""A detector small enough to train in milliseconds: the train nets' Python layers and losses round four real layers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_models.generators.rpn3d import Level, deploy_net, solver, train_net
from caffe_models.generators.rpn3d_net import NetText
from train.dataset import PreparedScan

STRIDE = 4


def body(dropout: float) -> str:
    """From data and coord to head: a convolution of stride 4, BatchNorm, ReLU, coord, dropout, a convolution."""
    net = NetText("", "")
    size = "num_output: 8 kernel_size: 8 stride: 4 pad: 2"
    lead = f'  convolution_param {{ {size} weight_filler {{ type: "xavier" }} }}\n'
    net.layer("first", "Convolution", ["data"], ["first"], lead)
    net.relu("relu", net.batch_norm("bn", "first"))
    net.layer("join", "Concat", ["bn", "coord"], ["join"], "  concat_param { axis: 1 }\n")
    net.layer("drop", "Dropout", ["join"], ["drop"], f"  dropout_param {{ dropout_ratio: {dropout} }}\n")
    net.convolution("head", "drop", 15, 1)
    return net.text().partition("\n")[2].partition("\n")[2]


def write(
    folder: Path, max_iter: int = 6, snapshot: int = 2, batch: int = 2, crop: int = 16, dropout: float = 0.1
) -> Path:
    """Train, deploy and solver text; the path of the solver."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((f"train_{crop}", train_net(crop, batch)), ("deploy", deploy_net())):
        start = text.index('layer {\n  name: "preBlock_conv1"')
        end = text.index('layer {\n  name: "targets"') if name != "deploy" else len(text)
        (folder / f"{name}.prototxt").write_text(text[:start] + body(dropout) + text[end:])
    path = folder / f"solver_{crop}.prototxt"
    path.write_text(solver(Level(crop, batch, 0.05, max_iter, max_iter - 1, snapshot)))
    return path


def scan(name: str = "s", seed: int = 0) -> PreparedScan:
    """64 voxels wide, with one bright nodule of 10 in the middle."""
    rng = np.random.default_rng(seed)
    voxels: NDArray[np.uint8] = rng.integers(20, 60, (64, 64, 64)).astype(np.uint8)
    voxels[28:36, 28:36, 28:36] = 180
    nodules = np.array([[31.5, 31.5, 31.5, 10, 1]], np.float32)
    return PreparedScan(name, voxels, np.ones(voxels.shape, bool), nodules, True)
