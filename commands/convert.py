"""`rpn3d convert`: a Caffe net to ONNX or OpenVINO, with the parity that was measured."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caffe_models.errors import Rpn3dError
from commands.options import DialectOption, Json, Quiet, known_dialect, say, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffe_models.net import Net
    from convert.quantize import Calibration
    from convert.run_net import Arrays
    from runtime.find_scans import ScanSource
    from runtime.volume import Volume
    from runtime.working_volume import WorkingVolume

app = typer.Typer()

EDGE = 64
CALIBRATION_CROPS = 60
CALIBRATION_CHOICE = 4
"""So many times as many crops are drawn; half of those taken are the ones in which the detector marks most."""
CALIBRATION_PHANTOMS = (1, 2, 3)


@app.command(epilog="Example: rpn3d convert deploy.prototxt net.caffemodel -o net.xml --precision bf16")
def convert(
    net: Annotated[Path, typer.Argument(metavar="PROTOTXT", help="The net; or an .onnx to make an IR from.")],
    weights: Annotated[Path | None, typer.Argument(metavar="CAFFEMODEL", help="Its weights.")] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="X.onnx, or X.xml for OpenVINO.")],
    precision: Annotated[str, typer.Option(help="Of an .xml: f32, bf16 or int8.")] = "f32",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCAN",
            help="For int8, may be repeated: scans (detectors; default: synthetic CTs), or .npz files, each with one "
            "array for each input blob (any net).",
        ),
    ] = None,
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

    if calibration and precision != "int8":
        raise Rpn3dError(f"--calibration is for --precision int8, found {precision}")
    samples = calibration_samples(calibration or [], quiet) if precision == "int8" else None
    result = convert_net(net, weights, out, precision, inputs if parity else None, known_dialect(dialect), samples)
    show("\n".join(result.lines()), result.as_json(), as_json, quiet)


def parity_inputs(net: "Net", scan: str | None) -> "tuple[str, Arrays]":
    """What engines are compared on: a real crop of 64 voxels for a detector, random numbers for any other net.

    The crop comes from the lungs of `scan`, or of a small synthetic CT.
    """
    from convert.parity import random_inputs

    if {name: shape[1] for name, shape in net.inputs.items()} != {"data": 1, "coord": 3}:
        if scan is not None:
            raise Rpn3dError(f"{scan}: only detectors (inputs data, coord) can be measured on a scan; leave --scan out")
        return "random numbers in [-1, 1]", random_inputs(net.inputs)
    working = synthetic(1) if scan is None else read(scan)
    return "a crop of a synthetic CT" if scan is None else f"a crop of {scan}", crops(working, 1)[0]


def calibration_samples(paths: list[str], quiet: bool) -> "Calibration":
    """Inputs from crops of scans (all of about equal number), from .npz files, or without either from synthetic CTs."""
    from convert.npz import read_arrays
    from convert.quantize import Calibration
    from runtime.find_scans import find_scans

    files = [path for path in paths if path.endswith(".npz")]
    if files:
        if len(files) < len(paths):
            raise Rpn3dError("--calibration takes scans or .npz files, not both")
        return Calibration([read_arrays(Path(file)) for file in files], ", ".join(Path(file).name for file in files))
    makers: dict[str, Callable[[], WorkingVolume]] = (
        {source.path.name: partial(read, source) for source in find_scans(paths)}
        if paths
        else {f"synthetic CT {seed}": partial(synthetic, seed) for seed in CALIBRATION_PHANTOMS}
    )
    each = -(-CALIBRATION_CHOICE * CALIBRATION_CROPS // len(makers))
    samples: list[Arrays] = []
    for name, make in makers.items():
        say(f"calibration: {name}", quiet)
        samples += crops(make(), each)
    return Calibration(samples, ", ".join(makers), CALIBRATION_CROPS, highest_logit)


def highest_logit(head: "NDArray[np.float32]") -> float:
    """Of a detector's output (1, anchors x 5, z, y, x), whose channels 0, 5, ... are logits."""
    return float(head[0, ::5].max())


def crops(working: "WorkingVolume", count: int) -> "list[Arrays]":
    """The network's inputs for crops of a working volume."""
    from convert.parity import crop_inputs
    from runtime.lung_crops import lung_crops

    found = lung_crops(working, EDGE, count)
    return [crop_inputs(one.voxels, one.extent_zyx, one.start_zyx) for one in found]


def synthetic(seed: int) -> "WorkingVolume":
    """The working volume of a synthetic CT."""
    from train.phantom import make_phantom

    return lungs_of(make_phantom(seed=seed).volume)


def read(scan: "str | ScanSource") -> "WorkingVolume":
    """The working volume of a scan."""
    from runtime.volume import read_volume

    return lungs_of(read_volume(scan))


def lungs_of(volume: "Volume") -> "WorkingVolume":
    """The working volume of what was read or made."""
    from runtime.lung_mask import find_lungs
    from runtime.working_volume import make_working_volume

    return make_working_volume(volume, find_lungs(volume))
