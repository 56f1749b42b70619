"""What engines are compared on: the net, its inputs, and the files that each engine reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_kinds import FAMILIES
from caffe_models.errors import NetError
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.text_format import read_text
from caffe_models.text_writer import write_text
from caffe_models.translate import translate
from caffe_models.weights import Weights, read_caffemodel, write_caffemodel
from convert.parity import crop_inputs, random_inputs
from convert.run_net import Arrays
from convert.to_onnx import net_to_onnx, save_onnx
from convert.to_openvino import onnx_to_ir
from runtime.network_input import STRIDE, WINDOW_MULTIPLE

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Task:
    """What is compared."""

    net: Path
    weights: Path
    inputs: Arrays
    families: tuple[str, ...] = FAMILIES
    """Or engines by name, see `engine_kinds.chosen`."""
    runs: int = 5
    threads: int = 1
    int8: Path | None = None
    """The quantised IR of this net, where there is one."""
    inputs_are: str = ""
    """What the arrays are, in words."""
    rounds: int = 2
    """In which the runs are made: all engines in order, then all of them backwards, and so on."""
    timeout_s: float = 1800.0
    """After which an engine counts as hanging; the reference may always take 1800 s."""


def inputs_for(net_path: Path, npz: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """The arrays to compare on: those of an .npz, else a tile or random ones of the shapes given or declared.

    A detector gets a cube out of the lungs of a small synthetic CT, since an int8 net is right only on what it was
    calibrated for; any other net gets random numbers in [-1, 1].

    Raises:
        NetError: the file cannot be read or lacks an input.
    """
    net = Net.from_prototxt(net_path, input_shapes=shapes)
    if npz is None:
        return _cube(net.inputs["data"][2]) if _takes_cube(net) else random_inputs(net.inputs)
    try:
        with np.load(npz, allow_pickle=False) as stored:
            arrays = {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}
    except (OSError, ValueError) as error:
        raise NetError(f"{npz}: cannot be read as .npz ({error})") from error
    missing = sorted(set(net.inputs) - set(arrays))
    if missing:
        raise NetError(f"{npz}: has no array for input {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    return {blob: arrays[blob] for blob in net.inputs}


def words_for(net_path: Path, npz: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What `inputs_for` gives, in words."""
    if npz is not None:
        return npz.name
    net = Net.from_prototxt(net_path, input_shapes=shapes)
    return "a cube of a synthetic CT's lungs" if _takes_cube(net) else "random numbers in [-1, 1]"


def is_detector(net: Net) -> bool:
    """Whether it has the blobs of an rpn3d net, so that the runtime's engines take it."""
    channels = {blob: (len(shape), shape[1]) for blob, shape in net.inputs.items() if len(shape) > 1}
    return channels == {"data": (5, 1), "coord": (5, 3)} and set(net.outputs) == {"head"}


def _takes_cube(net: Net) -> bool:
    return is_detector(net) and len(set(net.inputs["data"][2:])) == 1


def _is_window(inputs: Arrays) -> bool:
    extents = inputs["data"].shape[2:]
    cells = tuple(extent // STRIDE for extent in extents)
    return not any(extent % WINDOW_MULTIPLE for extent in extents) and inputs["coord"].shape == (1, 3, *cells)


def _cube(edge: int) -> Arrays:
    from runtime.lung_crops import lung_crops
    from runtime.lung_mask import find_lungs
    from runtime.working_volume import make_working_volume
    from train.phantom import make_phantom

    volume = make_phantom(1, size=130, step_mm=2.5, spacing_mm=(2.7, 2.7, 2.5), reoriented=False).volume
    (one,) = lung_crops(make_working_volume(volume, find_lungs(volume)), edge, 1)
    return crop_inputs(one.voxels, one.extent_zyx, one.start_zyx)


def spelled_for_opencv(net_path: Path, weights_path: Path) -> tuple[str, Weights]:
    """Text and weights of a 3-D net as OpenCV 4's importer wants them, as far as there is such a form.

    Kernel, pad and stride of convolutions stand once for each axis, there is no `engine`, which its schema lacks, and
    gamma and beta of a BatchNorm are a Scale layer. Pooling has no form that it takes in 3-D: its kernel_size may stand
    only once there, and is then 2-D.

    Raises:
        Rpn3dError: the net cannot be translated.
    """
    weights = read_caffemodel(weights_path)
    done = translate(read_text(net_path, "NetParameter"), "extended", weights, str(weights_path), "split")
    for layer in done.net.get("layer"):
        if layer.has("convolution_param"):
            param = layer.get("convolution_param")
            for field in ("kernel_size", "stride", "pad", "dilation"):
                values = tuple(param.get(field))
                if len(values) == 1:
                    param.set(field, values * 3)
        _clear(layer, "engine")
    _clear(done.net, "engine")
    return write_text(done.net), done.weights or {}


def shown(path: Path) -> str:
    """The path as given; one of ours without the folder it happens to be installed in."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _clear(message: Message, field: str) -> None:
    if field in message.spec.by_name:
        message.clear(field)


def prepare_job(task: Task, net: Net, folder: Path) -> dict[str, Any]:
    """The files that the engines read, and what they are told.

    Raises:
        NetError: an int8 model that is not there.
    """
    if task.int8 is not None and not task.int8.is_file():
        raise NetError(f"{task.int8}: no such model; `rpn3d convert ... --precision int8` makes one")
    np.savez(folder / "inputs.npz", allow_pickle=False, **task.inputs)
    spelled = folder / "spelled.prototxt"
    if any(len(shape) == 5 for shape in net.inputs.values()):
        text, weights = spelled_for_opencv(task.net, task.weights)
        spelled.write_text(text, encoding="utf-8")
        write_caffemodel(folder / "plain.caffemodel", weights, net.name, {})
    problem = ""
    try:
        save_onnx(net_to_onnx(net), folder / "net.onnx")
        onnx_to_ir(folder / "net.onnx", folder / "net.xml")
    except NetError as error:
        problem = str(error)
    last = {top: layer.spec.name for layer in net.layers for top in layer.spec.tops}
    return {
        "net": str(task.net.resolve()),
        "weights": str(task.weights.resolve()),
        "spelled": str(spelled) if spelled.exists() else "",
        "plain": str(folder / "plain.caffemodel"),
        "onnx": str(folder / "net.onnx"),
        "ir": str(folder / "net.xml"),
        "onnx_problem": problem,
        "int8": str(task.int8.resolve()) if task.int8 else "",
        "detector": is_detector(net) and _is_window(task.inputs),
        "inputs": str(folder / "inputs.npz"),
        "outputs": list(net.outputs),
        "makers": {blob: last[blob] for blob in net.outputs},
        "threads": task.threads,
        "runs": task.runs,
    }
