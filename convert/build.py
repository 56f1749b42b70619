"""From prototxt and caffemodel to the file an engine loads; built once, then kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from caffe_models.binary_topology import differences
from caffe_models.errors import NetError, warn
from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from convert.model_file import cache_folder
from convert.provenance import rpn3d_version
from convert.to_onnx import net_to_onnx, save_onnx
from convert.to_openvino import onnx_to_ir


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
    save_onnx(net_to_onnx(load_net(net, weights), weights), onnx_path)


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
