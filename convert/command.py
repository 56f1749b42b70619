"""What `rpn3d convert` does: build the file asked for, and prove on real input that it is the net."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_models.atomic import replacing
from caffe_models.errors import NetError, PrototxtError, warn
from convert.build import load_net
from convert.model_file import IR_PRECISIONS
from convert.npz import read_arrays
from convert.parity import Parity, measure
from convert.quantize import Calibration
from convert.run_net import run_onnxruntime, run_openvino, run_torch
from convert.to_onnx import net_to_onnx, save_onnx
from convert.to_openvino import onnx_to_ir

if TYPE_CHECKING:
    from caffe_models.layer import Shape
    from caffe_models.net import Net
    from convert.run_net import Arrays


@dataclass(frozen=True)
class Conversion:
    """What was written, and what was measured on it (None: not asked for)."""

    files: tuple[Path, ...]
    inputs: str
    parity: Parity | None
    dialect: str = ""
    dialect_reason: str = ""
    """Of the prototxt, and why it was taken for that; empty: the source was no prototxt."""

    def lines(self) -> list[str]:
        """For people."""
        found = [f"wrote {', '.join(str(file) for file in self.files)}"]
        if self.dialect:
            found.append(f"read as {self.dialect}: {self.dialect_reason}")
        if self.parity is not None:
            found += [f"parity on {self.inputs}:", *(f"  {line}" for line in self.parity.lines())]
        return found

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        parity = None if self.parity is None else asdict(self.parity)
        return {
            "files": [str(file) for file in self.files],
            "dialect": self.dialect or None,
            "dialect_reason": self.dialect_reason or None,
            "inputs": self.inputs,
            "parity": parity,
        }


def convert_net(
    source: str | Path,
    weights: str | Path | None,
    out: str | Path,
    precision: str = "f32",
    inputs: "Callable[[Net], tuple[str, Arrays]] | None" = None,
    dialect: str | None = None,
    calibration: Calibration | None = None,
) -> Conversion:
    """Build `out` and, with `inputs`, compare every engine that is installed on them.

    The files are written before they are measured and taken away again if they fail, so that nothing wrong is left
    behind under the name that was asked for.

    Args:
        source: a prototxt, or an .onnx that an .xml is made of.
        weights: the caffemodel; None with an .onnx.
        out: X.onnx, or X.xml (X.onnx is then written beside it, unless it is the source).
        precision: of an .xml.
        inputs: gives a description and the input arrays for a net; None: nothing is measured.
        dialect: of the prototxt; None: found out from the text.
        calibration: for precision int8.

    Raises:
        NetError: names or precision that do not fit, or a difference above the tolerance.
        PrototxtError, WeightsError: the net or its weights cannot be read.
    """
    source, out = Path(source), Path(out)
    if out.suffix not in (".onnx", ".xml"):
        raise NetError(f"{out}: the result's name must end in .onnx or .xml")
    if out.suffix == ".xml" and precision not in IR_PRECISIONS:
        raise NetError(f'precision "{precision}" is not one of {", ".join(IR_PRECISIONS)}')
    from_onnx = source.suffix == ".onnx"
    if from_onnx and (out.suffix == ".onnx" or weights is not None):
        raise NetError(f"{source}: is an ONNX model already; give -o X.xml and no caffemodel to make OpenVINO IR of it")
    if not from_onnx and weights is None:
        raise NetError(f"{source}: no weights given; usage: rpn3d convert PROTOTXT CAFFEMODEL -o {out}")
    net = None if weights is None else load_net(source, weights, dialect)
    read_as = ("", "") if net is None else (net.dialect, net.dialect_reason)
    description, arrays = ("", None) if inputs is None or net is None else inputs(net)
    onnx_path = source if from_onnx else out.with_suffix(".onnx")
    written: list[Path] = []
    if net is not None:
        save_onnx(net_to_onnx(net, weights), onnx_path)
        written.append(onnx_path)
    if out.suffix == ".xml":
        onnx_to_ir(onnx_path, out, precision, calibration)
        written += [out, out.with_suffix(".bin")]
    if arrays is None:
        return Conversion(tuple(written), "", None, *read_as)
    try:
        parity = measure(net, onnx_path, out, arrays)
        if parity.differences:
            parity.check()
    except NetError:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    if not parity.differences:
        warn(f"{out}: parity was not measured: {'; '.join(parity.left_out)}; pip install torch onnxruntime to prove it")
    return Conversion(tuple(written), description, parity, *read_as)


def run_caffe_net(
    net_path: Path,
    weights: Path,
    inputs: Path,
    outputs: Path,
    engine: str,
    blobs: Sequence[str] = (),
    dialect: str | None = None,
) -> None:
    """Run a net on the arrays of an .npz, and write its outputs (and `blobs`) as another, whole or not at all.

    Everything that can be refused is refused before the net runs, which may take long.

    Raises:
        NetError: an unknown engine, arrays that cannot be read or do not fit, intermediate blobs outside torch, a net
            that the memory cannot hold, an engine that fails.
        PrototxtError, WeightsError: the net or its weights cannot be read.
    """
    if engine not in ("torch", "onnxruntime", "openvino"):
        raise NetError(f'engine "{engine}" is not known; allowed: torch, onnxruntime, openvino')
    if blobs and engine != "torch":
        raise NetError(f"--blobs works with --engine torch only, found {engine}")
    if outputs.suffix != ".npz":
        raise NetError(f"{outputs}: the name of the outputs must end in .npz")
    if outputs.is_dir():
        raise NetError(f"{outputs}: is a folder; name the .npz to write")
    net = load_net(net_path, weights, dialect)
    if absent := sorted(set(blobs) - set(net.shapes)):
        raise NetError(f"{net_path}: has no blob {', '.join(absent)} (blobs: {', '.join(net.shapes)})")
    arrays = read_arrays(inputs, net.inputs, lambda shapes: check_inputs(net, shapes, inputs, engine))
    if engine == "torch":
        results = run_torch(net, arrays, keep=blobs)
    else:
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = Path(folder) / "net.onnx"
            save_onnx(net_to_onnx(net), onnx_path)
            run = run_onnxruntime if engine == "onnxruntime" else run_openvino
            results = run(onnx_path, arrays)
    with replacing(outputs) as temporary:
        np.savez(temporary, allow_pickle=False, **results)


def check_inputs(net: "Net", shapes: "Mapping[str, Shape]", source: Path, engine: str = "torch") -> None:
    """Refuse inputs of shapes that the net cannot take.

    Spatial extents are free where the layers allow it; channels are the prototxt's, and so is the batch outside torch.

    Raises:
        NetError: names `source`, the blob, what was found and what is allowed; or the memory that is lacking.
    """
    fixed = 2 if engine != "torch" else 1
    for blob, shape in shapes.items():
        declared = net.inputs[blob]
        same = shape[:2] == declared[:2] if fixed == 2 else shape[1:2] == declared[1:2]
        if len(shape) != len(declared) or not same or 0 in shape:
            raise NetError(f"{source}: {blob} has shape {shape}; allowed: {_allowed(declared, fixed)}")
    try:
        net.check_memory(shapes)
    except PrototxtError as error:
        found = ", ".join(f"{blob} {shape}" for blob, shape in shapes.items())
        raise NetError(f"{source}: the net cannot take {found}: {error}") from error


def _allowed(declared: "Shape", fixed: int) -> str:
    batch = str(declared[0]) if fixed == 2 or len(declared) < 2 else "any batch"
    return ", ".join([batch, *(str(extent) for extent in declared[1:2]), *["any extent"] * (len(declared) - 2)])
