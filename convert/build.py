"""From prototxt and caffemodel to the file an engine loads; built once, then kept."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from caffe_models.binary_topology import differences
from caffe_models.errors import NetError, warn
from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from convert.to_onnx import net_to_onnx, rpn3d_version, save_onnx
from convert.to_openvino import IR_PRECISIONS, onnx_to_ir


def load_net(net: str | Path, weights: str | Path, dialect: str | None = None) -> Net:
    """The TEST net of a prototxt with the weights of a caffemodel. `dialect` None: found out from the text.

    Raises:
        PrototxtError, WeightsError: either file cannot be read, or they do not belong together.
    """
    loaded = Net.from_prototxt(net, dialect=dialect)
    loaded.load(read_caffemodel(weights), str(weights), strict=True)  # a deploy net with random weights is a mistake
    for text in differences(loaded, weights):
        warn(text)
    return loaded


def build_onnx(net: str | Path, weights: str | Path, onnx_path: str | Path) -> None:
    """prototxt + caffemodel -> ONNX, whole or not at all."""
    save_onnx(net_to_onnx(load_net(net, weights)), onnx_path)


def cache_folder() -> Path:
    """Where built and compiled models are kept: `RPN3D_CACHE`, else `rpn3d` in the user's cache folder."""
    own = os.environ.get("RPN3D_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpn3d"


def built_ir(net: Path, weights: Path, precision: str, say: Callable[[str], None]) -> Path:
    """The IR of this net and these weights in the cache; built if this version of rpn3d has not done so yet."""
    digest = hashlib.sha256(rpn3d_version().encode())
    for file in (net, weights):
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise NetError(f"{file}: cannot be read ({error.strerror})") from error
    folder = cache_folder() / digest.hexdigest()[:16]
    xml = folder / f"{weights.stem}-{precision}.xml"
    if not xml.is_file():
        say(f"building {xml} from {net.name} and {weights.name}")
        onnx_path = folder / f"{weights.stem}.onnx"
        build_onnx(net, weights, onnx_path)
        onnx_to_ir(onnx_path, xml, precision)
    return xml


def model_file(
    model: Path | None,
    precision: str,
    *,
    net: Path,
    weights: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """The IR or ONNX file to load for what a user named.

    Args:
        model: None (the model that comes with rpn3d), a folder of built models, an .xml, an .onnx, or a .caffemodel of
            the same net.
        precision: auto, or one of those there is an IR for. Every IR holds the same weights and an engine that
            is told "auto" falls back where the processor is not made for bf16, so "auto" takes the bf16 file.
        net: the deploy prototxt, to build from; weights: the model that comes with rpn3d.
        say: told when something is built.

    Raises:
        NetError: nothing there that could be loaded.
    """
    wanted = "bf16" if precision == "auto" else precision
    if wanted not in IR_PRECISIONS:
        raise NetError(f'precision "{precision}" is not one of auto, {", ".join(IR_PRECISIONS)}')
    if model is None:
        return built_ir(net, weights, wanted, say)
    if model.is_dir():
        found = sorted(model.glob(f"*-{wanted}.xml"))
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} models" if found else "no model"
        raise NetError(f"{model}: holds {what} named *-{wanted}.xml; one is needed: `make model` builds it")
    if model.suffix == ".caffemodel":
        return built_ir(net, model, wanted, say)
    if model.suffix in (".xml", ".onnx") and model.is_file():
        return model
    raise NetError(f"{model}: no such model; give a folder with built models, an .xml, an .onnx or a .caffemodel")
