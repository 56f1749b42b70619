"""Which file an engine loads for the model and the precision that a user named.

Imports little: detection begins here, and building a model, which needs ONNX and the nets, is seldom due.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
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
        precision: one of those there is an IR for, or auto: the bf16 file, which an engine that is told "auto" runs in
            f32 where the processor is not made for bf16. int8 is not taken here unasked: that is decided by what was
            measured of it, see `commands.models`.
        net: the deploy prototxt, to build from; weights: the model that comes with rpn3d.
        say: told when something is built.

    Raises:
        NetError: nothing there that could be loaded.
    """
    if precision != "auto" and precision not in IR_PRECISIONS:
        raise NetError(f'precision "{precision}" is not one of auto, {", ".join(IR_PRECISIONS)}')
    wanted = "bf16" if precision == "auto" else precision
    if model is not None and model.is_dir():
        return _one_of(model, wanted)
    if model is None or model.suffix == ".caffemodel":
        own = model or weights
        if wanted == "int8":
            return _int8_beside(own, net)
        from convert.build import built_ir

        return built_ir(net, own, wanted, say)
    if model.suffix in (".xml", ".onnx") and model.is_file():
        return model
    raise NetError(f"{model}: no such model; give a folder with built models, an .xml, an .onnx or a .caffemodel")


@dataclass(frozen=True)
class Noted:
    """What one precision of a model was made from.

    Attributes:
        caffemodel_sha256: of the weights; "" if it is not noted.
        bin_sha256: of the IR's .bin; "" if it is not built yet, or not noted.
    """

    caffemodel_sha256: str
    bin_sha256: str = ""


def precisions_there(model: Path | None, *, weights: Path) -> tuple[Path | None, dict[str, Noted]]:
    """What `model_file` can give without being told a precision, and the file that may hold the proof of it.

    Args:
        model, weights: as for `model_file`.

    Returns:
        Where `<name>-proof.json` would lie (None: nowhere), and the precisions: none where a single file is named,
        which leaves no choice.
    """
    if model is not None and model.is_dir():
        irs = {p: found[0] for p in IR_PRECISIONS if len(found := sorted(model.glob(f"*-{p}.xml"))) == 1}
        proofs = sorted(model.glob("*-proof.json"))
        return proofs[0] if len(proofs) == 1 else None, {p: _noted(xml) for p, xml in irs.items()}
    own = model or weights
    if own.suffix != ".caffemodel" or not own.is_file():
        return None, {}
    there = dict.fromkeys(("f32", "bf16"), Noted(file_sha256(own)))
    beside = _noted(own.with_name(f"{own.stem}-int8.xml"))
    if beside.caffemodel_sha256 == there["f32"].caffemodel_sha256:
        there["int8"] = beside
    return own.with_name(f"{own.stem}-proof.json"), there


def _noted(xml: Path) -> Noted:
    return Noted(noted(xml, "caffemodel_sha256") or "", noted(xml, "bin_sha256") or "")


def _int8_beside(weights: Path, net: Path) -> Path:
    """The int8 IR beside a caffemodel, `<name>-int8.xml`; calibrated on scans, it is not built unasked.

    It notes the hash of what it was made from, so that a model trained anew is not answered by the old one.
    """
    xml = weights.with_name(f"{weights.stem}-int8.xml")
    made = f"rpn3d convert {net.name} {weights.name} -o {xml.name} --precision int8 --calibration SCAN"
    if not xml.is_file():
        raise NetError(f"{weights}: there is no {xml.name} beside it; make one with `{made}`")
    if weights.is_file() and noted(xml, "caffemodel_sha256") != file_sha256(weights):
        raise NetError(f"{xml}: was made from other weights than {weights.name}; make it anew with `{made}`")
    return xml


def _one_of(folder: Path, precision: str) -> Path:
    """The only model of a folder in this precision."""
    found = sorted(folder.glob(f"*-{precision}.xml"))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} models" if found else "no model"
    how = "make int8" if precision == "int8" else "make model"
    raise NetError(f"{folder}: holds {what} named *-{precision}.xml; one is needed: `{how}` builds it")
