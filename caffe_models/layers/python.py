"""Python layers: entries of a registry of this program, named by `module` and `layer`; nothing is ever imported."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from caffe_models.layer import Layer, LayerSpec, Shape, register

if TYPE_CHECKING:
    import torch

    from caffe_models.batch_share import BatchShare


class PythonLayer(ABC):
    """What a `type: "Python"` layer does. Register a subclass with `@register_python("module", "Layer")`."""

    share: "BatchShare | None" = None
    """As a `Layer`'s."""

    def __init__(self, param: Mapping[str, Any], spec: LayerSpec) -> None:
        """`param` is the JSON object of `param_str` (empty if there is none); raise `spec.error` for wrong ones."""
        self.param = param
        self.spec = spec

    @abstractmethod
    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops."""

    @abstractmethod
    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        """Tensors of the tops."""


PythonClass = TypeVar("PythonClass", bound=type[PythonLayer])
_known: dict[tuple[str, str], type[PythonLayer]] = {}


def register_python(module: str, layer: str) -> Callable[[PythonClass], PythonClass]:
    """Class decorator: make a PythonLayer known as `python_param { module: "..." layer: "..." }`."""

    def decorate(cls: PythonClass) -> PythonClass:
        if (module, layer) in _known:
            raise ValueError(f"Python layer {module}.{layer} is registered twice: {_known[module, layer]} and {cls}")
        _known[module, layer] = cls
        return cls

    return decorate


@dataclass(frozen=True)
class PythonParams:
    """The name of the registry's entry and its settings."""

    module: str
    layer: str
    param: Mapping[str, Any]


@register("Python")
class Python(Layer):
    """Hands everything to the PythonLayer of its name."""

    bottoms_allowed = (0, None)
    tops_allowed = (0, None)
    no_onnx = "it runs this program's own Python code, which serves training"
    note = "entries of a registry; code named in a file is never imported"

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        message = spec.param("python_param")
        text = str(message.get("param_str"))
        found = text if len(text) <= 200 else f"{text[:200]}..."
        try:
            param = json.loads(text) if text else {}
        except (
            ValueError,
            RecursionError,
        ) as error:  # RecursionError: nested without end; ValueError: also 5000 digits
            raise spec.error(f"param_str must be a JSON object, found {found!r}: {error}", message.line) from error
        if not isinstance(param, dict):
            raise spec.error(f"param_str must be a JSON object, found {found!r}", message.line)
        self.params = PythonParams(str(message.get("module")), str(message.get("layer")), param)
        key = (self.params.module, self.params.layer)
        if key not in _known:
            known = ", ".join(sorted(".".join(entry) for entry in _known)) or "none"
            raise spec.error(f"unknown Python layer {'.'.join(key)} (known here: {known}); code in files is not run")
        self.implementation = _known[key](param, spec)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return self.implementation.infer_shapes(bottoms)

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        return self.implementation.forward(tensors)
