"""Which file an engine loads for the model and the precision that a user named.

Imports little: detection begins here, and building a model, which needs ONNX and the nets, is seldom due.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from caffe_models.errors import NetError
from convert.provenance import file_sha256, noted

IR_PRECISIONS = ("f32", "bf16", "int8")


def cache_folder() -> Path:
    """Where built and compiled models are kept: `RPN3D_CACHE`, else `rpn3d` in the user's cache folder."""
    own = os.environ.get("RPN3D_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rpn3d"


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
        precision: one of those there is an IR for, or auto: int8 where there is such a model, since it is the fastest
            on every processor; else the bf16 file, which an engine that is told "auto" runs in f32 where the
            processor is not made for bf16.
        net: the deploy prototxt, to build from; weights: the model that comes with rpn3d, its int8 IR beside it.
        say: told when something is built.

    Raises:
        NetError: nothing there that could be loaded.
    """
    if precision != "auto" and precision not in IR_PRECISIONS:
        raise NetError(f'precision "{precision}" is not one of auto, {", ".join(IR_PRECISIONS)}')
    wanted = ("int8", "bf16") if precision == "auto" else (precision,)
    if model is not None and model.is_dir():
        return _one_of(model, wanted, say)
    if model is None or model.suffix == ".caffemodel":
        own = model or weights
        lack = int8_lack(own)
        if "int8" in wanted and not lack:
            return int8_beside(own)
        if precision == "int8":
            made = f"rpn3d convert {net.name} {own.name} -o {int8_beside(own).name} --precision int8 --calibration SCAN"
            raise NetError(f"{own}: {lack}; make one with `{made}`")
        from convert.build import built_ir

        return built_ir(net, own, wanted[-1], say)
    if model.suffix in (".xml", ".onnx") and model.is_file():
        return model
    raise NetError(f"{model}: no such model; give a folder with built models, an .xml, an .onnx or a .caffemodel")


def int8_beside(weights: Path) -> Path:
    """Where the int8 IR of a caffemodel lies: `<name>-int8.xml` beside it."""
    return weights.with_name(f"{weights.stem}-int8.xml")


def int8_lack(weights: Path) -> str:
    """Why the int8 IR beside a caffemodel cannot stand for it; empty if it can: it notes the hash of what it was made
    from, so that a model trained anew is not answered by the old one."""
    xml = int8_beside(weights)
    if not xml.is_file():
        return f"there is no {xml.name} beside it"
    if not weights.is_file() or noted(xml, "caffemodel_sha256") == file_sha256(weights):
        return ""
    return f"{xml.name} beside it was made from other weights"


def _one_of(folder: Path, precisions: Sequence[str], say: Callable[[str], None]) -> Path:
    """The only model of a folder in the first of the precisions that there is; int8 of other weights is passed over."""
    found = {precision: sorted(folder.glob(f"*-{precision}.xml")) for precision in precisions}
    for precision, files in found.items():
        if len(files) > 1:
            raise NetError(f"{folder}: holds {len(files)} models named *-{precision}.xml; one is needed")
    present = [files[0] for files in found.values() if files]
    if not present:
        raise NetError(f"{folder}: holds no model named *-{precisions[-1]}.xml; one is needed: `make model` builds it")
    first, last = present[0], present[-1]
    if noted(first, "weights_sha256") != noted(last, "weights_sha256"):
        say(f"{first.name} was made from other weights than {last.name} and is not used")
        return last
    return first
