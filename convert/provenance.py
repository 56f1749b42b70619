"""Where a converted model comes from: what is noted in it, so that a result can be traced to its weights."""

import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from caffe_models.layer import Layer


def rpn3d_version() -> str:
    """The installed version; "source" where the package runs from its sources alone."""
    try:
        return version("rpn3d")
    except PackageNotFoundError:
        return "source"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_sha256(layers: Sequence["Layer"]) -> str:
    """Hash of all blobs with their layers' names and shapes: the same for the same net, whatever file it came from."""
    digest = hashlib.sha256()
    for layer in layers:
        for index in range(len(layer.blobs)):
            array = np.ascontiguousarray(layer.array(index), dtype="<f4")
            digest.update(f"{layer.spec.name}\0{index}\0{array.shape}\0".encode())
            digest.update(array.data)
    return digest.hexdigest()


def noted(xml: str | os.PathLike[str], key: str) -> str | None:
    """What is noted in an IR under rpn3d/`key`; None where nothing is, or in a file of another kind.

    Read as plain XML, which takes a tenth of the time that OpenVINO needs to make the model.
    """
    from xml.etree import ElementTree

    try:
        found = ElementTree.parse(xml).find(f"rt_info/rpn3d/{key}")
    except (OSError, ElementTree.ParseError):
        return None
    return None if found is None else found.get("value")


def onnx_property(path: Path, key: str) -> str:
    """One of an ONNX model's metadata properties; "unknown" where it has none."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return next((entry.value for entry in model.metadata_props if entry.key == key), "unknown")
