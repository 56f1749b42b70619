"""An ONNX model as OpenVINO IR: an .xml beside a .bin.

f32 and bf16 IRs hold the same float32 weights; what differs is the precision noted in the .xml, which the engine pins
when it compiles. Storing the weights of the bf16 IR in bf16 would halve a file of 21 MB, and cost accuracy: OpenVINO
folds BatchNorm into the convolutions before it rounds, so weights rounded beforehand would be rounded twice. And an IR
without a noted precision is what it is by the processor it meets: bf16 on one, f32 on another. An int8 IR is quantised
(`convert.quantize`) and holds its weights as int8.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import openvino

from caffe_models.atomic import replacing
from caffe_models.errors import NetError
from convert.model_file import IR_PRECISIONS
from convert.provenance import onnx_property, rpn3d_version
from convert.quantize import Calibration, quantise


def onnx_to_ir(
    onnx_path: str | os.PathLike[str],
    xml_path: str | os.PathLike[str],
    precision: str = "f32",
    calibration: Calibration | None = None,
) -> None:
    """Convert `onnx_path` to `xml_path` and the .bin beside it.

    `calibration` is needed for int8, and for it alone (see `convert.quantize`).

    Noted in the .xml under rpn3d: precision, version, openvino, source, weights_sha256 (as in the ONNX model) and
    bin_sha256, by which the engine refuses an .xml and a .bin that do not belong together.

    Raises:
        NetError: a precision there is no IR for, a model that is missing or cannot be read, a name without .xml.
    """
    source = Path(onnx_path)
    if precision not in IR_PRECISIONS:
        raise NetError(f'precision "{precision}" is not one of {", ".join(IR_PRECISIONS)}')
    if not source.is_file():
        raise NetError(f"{source}: no such file; give the .onnx model to convert")
    try:
        model = openvino.Core().read_model(str(source))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise NetError(f"{source}: OpenVINO cannot read it: {reason}") from error
    if precision == "int8":
        model = quantise(model, calibration or Calibration((), "nothing"))
    notes = {
        "precision": precision,
        "version": rpn3d_version(),
        "openvino": openvino.get_version(),
        "source": source.name,
        **{key: onnx_property(source, key) for key in ("weights_sha256", "caffemodel_sha256")},
    }
    for key, text in notes.items():
        model.set_rt_info(text, ["rpn3d", key])
    save_ir(model, xml_path)


def save_ir(model: Any, xml_path: str | os.PathLike[str]) -> None:
    """Write an OpenVINO model as a pair that is whole at every moment, or is not there.

    The old .xml goes first and the new one comes last, since it is the one that is asked for; between them there is no
    model, never one with another's weights. The hash of the .bin in the .xml also shows pairs torn apart by copying.

    Raises:
        NetError: a name that does not end in .xml.
    """
    xml = Path(xml_path)
    if xml.suffix != ".xml":
        raise NetError(f"{xml}: the name of an OpenVINO model ends in .xml; its weights go into a .bin beside it")
    xml.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{xml.stem}-", dir=xml.parent) as folder:
        made = Path(folder) / xml.name
        _serialise(model, made)
        with made.with_suffix(".bin").open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        model.set_rt_info(digest, ["rpn3d", "bin_sha256"])
        _serialise(model, made)
        xml.unlink(missing_ok=True)
        for suffix in (".bin", ".xml"):
            with replacing(xml.with_suffix(suffix)) as temporary:
                made.with_suffix(suffix).replace(temporary)


def _serialise(model: Any, path: Path) -> None:
    openvino.save_model(model, str(path), compress_to_fp16=False)  # its default would store the weights in f16
