"""`rpn3d convert`: a Caffe net to ONNX or OpenVINO, with the parity that was measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import DialectOption, Json, Quiet, known_dialect, show

if TYPE_CHECKING:
    from caffe_models.net import Net
    from convert.run_net import Arrays

app = typer.Typer()


@app.command(epilog="Example: rpn3d convert deploy.prototxt net.caffemodel -o net.xml --precision bf16")
def convert(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net; or an .onnx to make an IR from.")],
    weights: Annotated[Path | None, typer.Argument(metavar="CAFFEMODEL", help="Its weights.")] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="X.onnx, or X.xml for OpenVINO.")],
    precision: Annotated[str, typer.Option(help="Of an .xml: f32 or bf16.")] = "f32",
    scan: Annotated[str | None, typer.Option(help="Measure on a crop of this scan (detectors).")] = None,
    parity: Annotated[bool, typer.Option(help="Measure that all engines agree, and fail if not.")] = True,
    dialect: DialectOption = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Convert a Caffe net to ONNX or OpenVINO, and print how far the engines differ."""
    from convert.command import convert_net

    def inputs(loaded: "Net") -> "tuple[str, Arrays]":
        return parity_inputs(loaded, scan)

    result = convert_net(net, weights, out, precision, inputs if parity else None, known_dialect(dialect))
    show("\n".join(result.lines()), result.as_json(), as_json, quiet)


def parity_inputs(net: "Net", scan: str | None) -> "tuple[str, Arrays]":
    """What engines are compared on: a real crop of 64 voxels for a detector, random numbers for any other net.

    The crop comes from the middle of the lungs of `scan`, or of a small synthetic CT.
    """
    from convert.parity import crop_inputs, random_inputs
    from runtime.lung_mask import find_lungs
    from runtime.volume import read_volume
    from runtime.working_volume import make_working_volume

    if {name: shape[1] for name, shape in net.inputs.items()} != {"data": 1, "coord": 3}:
        if scan is not None:
            raise Rpn3dError(f"{scan}: only detectors (inputs data, coord) can be measured on a scan; leave --scan out")
        return "random numbers in [-1, 1]", random_inputs(net.inputs)
    if scan is None:
        from train.phantom import make_phantom

        volume, what = make_phantom(seed=1).volume, "a crop of a synthetic CT"
    else:
        volume, what = read_volume(scan), f"a crop of {scan}"
    working = make_working_volume(volume, find_lungs(volume))
    edge = 64
    starts = [max(0, n // 2 - edge // 2) for n in working.voxels.shape]
    starts[2] = max(0, working.voxels.shape[2] // 4 - edge // 2)  # in a lung, not in the heart between them
    z, y, x = starts
    crop = working.voxels[z : z + edge, y : y + edge, x : x + edge]
    if crop.shape != (edge, edge, edge):
        raise Rpn3dError(f"{scan}: the lungs' box of {working.voxels.shape} mm is too small for a crop of {edge} mm")
    return what, crop_inputs(crop, working.voxels.shape, starts)
