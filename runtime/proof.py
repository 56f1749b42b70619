"""What was measured of a model's precisions against float32, and which of them that proves.

The file lies beside the weights, `<name>-proof.json`; `python -m bench.precision_proof` writes it:

    {"schema_version": 1, "weights_sha256": "2301...", "precisions": {
      "f32": {"cpm": 0.594, "scans": 10, "nodules": 58},
      "int8": {"cpm": 0.592, "cpm_change": -0.002, "real_nodules_found": true, "proven": true,
               "model_sha256": "9e9a...", ...}}}

It holds for the weights it names alone. An int8 model depends on its calibration too, so its entry also names the very
file that was measured.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe_models.errors import Rpn3dError

SCHEMA_VERSION = 1
PRECISIONS = ("f32", "bf16", "int8")


class ProofError(Rpn3dError):
    """A proof of precisions that cannot be read."""


@dataclass(frozen=True)
class PrecisionProof:
    """One precision.

    Attributes:
        cpm: mean sensitivity at seven rates; None if it was not measured.
        cpm_change: cpm less that of f32.
        scans, nodules: it was measured on.
        proven: whether it finds as much as f32, see `bench.precision_proof`.
        model_sha256: of the .bin that was measured, "" if any will do.
    """

    cpm: float | None = None
    cpm_change: float | None = None
    scans: int | None = None
    nodules: int | None = None
    proven: bool = False
    model_sha256: str = ""


@dataclass(frozen=True)
class Proof:
    """All precisions of one model.

    Attributes:
        source: the file, for messages.
        weights_sha256: of the .caffemodel.
        precisions: by name.
    """

    source: str
    weights_sha256: str
    precisions: Mapping[str, PrecisionProof] = field(default_factory=dict)


def read_proof(path: str | Path) -> Proof:
    """Read a proof; keys that are not known here are passed over.

    Raises:
        ProofError: not there, no JSON, or a field of another kind than it must be: names file and field.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProofError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ProofError(f"{path}: not JSON ({error}); write it with `python -m bench.precision_proof`") from error
    if not isinstance(content, dict):
        raise ProofError(f"{path}: holds a {type(content).__name__}, not the fields of a proof")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise ProofError(f"{path}: schema_version is {found!r}; this version of rpn3d reads {SCHEMA_VERSION}")
    digest = _field(path, content, "weights_sha256", str)
    if not _is_sha256(digest):
        raise ProofError(f"{path}: weights_sha256 is {digest!r}, expected 64 hexadecimal digits")
    entries = _field(path, content, "precisions", dict)
    return Proof(str(path), digest, {name: _entry(path, name, entries[name]) for name in entries})


def _entry(path: str | Path, name: str, content: Any) -> PrecisionProof:
    where = f"precisions.{name}"
    if name not in PRECISIONS:
        raise ProofError(f"{path}: {where} is no precision; allowed: {', '.join(PRECISIONS)}")
    if not isinstance(content, dict):
        raise ProofError(f"{path}: {where} is {content!r}, expected the fields of one precision")
    digest = _field(path, content, "model_sha256", str, where, "")
    if digest and not _is_sha256(digest):
        raise ProofError(f"{path}: {where}.model_sha256 is {digest!r}, expected 64 hexadecimal digits")
    return PrecisionProof(
        cpm=_field(path, content, "cpm", float, where, None),
        cpm_change=_field(path, content, "cpm_change", float, where, None),
        scans=_field(path, content, "scans", int, where, None),
        nodules=_field(path, content, "nodules", int, where, None),
        proven=_field(path, content, "proven", bool, where, False),
        model_sha256=digest,
    )


_NAMES = {str: "a text", dict: "an object", float: "a number", int: "a whole number", bool: "true or false"}
_REQUIRED = object()


def _field(
    path: str | Path, content: Mapping[str, Any], key: str, kind: type, where: str = "", default: Any = _REQUIRED
) -> Any:
    name = f"{where}.{key}" if where else key
    if content.get(key) is None:
        if default is _REQUIRED:
            raise ProofError(f"{path}: has no {name}; expected {_NAMES[kind]}")
        return default
    value = content[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProofError(f"{path}: {name} is {value!r}, expected {_NAMES[kind]}")
    return value


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
