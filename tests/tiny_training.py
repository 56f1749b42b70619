"""A detector small enough to train in milliseconds: the train nets' Python layers and losses round four real layers."""

import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from caffe_models.generators.rpn3d import Stage, deploy_net, solver, train_net
from caffe_models.generators.rpn3d_net import NetText
from caffe_models.weights import read_caffemodel, read_solverstate
from train.dataset import PreparedScan
from train.run import LOCK_NAME

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
    path.write_text(solver(Stage(str(crop), crop, batch, 0.05, max_iter, max_iter - 1, snapshot=snapshot)))
    return path


def scan(name: str = "s", seed: int = 0) -> PreparedScan:
    """64 voxels wide, with one bright nodule of 10 in the middle."""
    rng = np.random.default_rng(seed)
    voxels: NDArray[np.uint8] = rng.integers(20, 60, (64, 64, 64)).astype(np.uint8)
    voxels[28:36, 28:36, 28:36] = 180
    nodules = np.array([[31.5, 31.5, 31.5, 10, 1]], np.float32)
    return PreparedScan(name, voxels, np.ones(voxels.shape, bool), nodules, True)


def results(out: Path) -> dict[str, Any]:
    """All that a run leaves and that must not depend on how often it was interrupted."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: line[key] for key in line if "seconds" not in key} for line in lines]
        elif path.suffix == ".caffemodel":
            found[name] = {key: [b.tobytes() for b in blobs] for key, blobs in read_caffemodel(path).items()}
        elif path.suffix == ".solverstate":
            state = read_solverstate(path)
            found[name] = (state.iteration, Path(state.learned_net).name, [array.tobytes() for array in state.history])
        elif path.is_file() and path.name != LOCK_NAME and "tfevents" not in path.name:
            found[name] = path.read_bytes()
    return found


@contextmanager
def copied_before_each_renaming(out: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """What a kill would leave at the worst moments: a file is written under its temporary name and not yet renamed."""
    made: list[Path] = []
    replace = Path.replace

    def copy_then_replace(self: Path, target: Path) -> Path:
        made.append(copies / str(len(made)))
        shutil.copytree(out, made[-1])
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", copy_then_replace)
        yield made


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file grows beyond `limit` bytes, which the system answers as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
