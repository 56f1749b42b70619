"""The contract of a layer type, and the registry of all types.

How to add a layer type, in four steps:

1. Make one file, `caffe_models/layers/<type>.py`; every module of that folder is loaded, nothing else is to be edited.
   In it, put the settings into a frozen dataclass and derive a class from `Layer`, decorated with
   `@register("TypeNameOfThePrototxt")`. State how many bottoms and tops it takes in `bottoms_allowed` and
   `tops_allowed`; the base class checks them. `__init__` calls `super().__init__(spec)`, then reads `self.params`
   from `spec.param("xxx_param")`, and answers a user's mistake with `raise spec.error("what is wrong and allowed")`.
2. Write `infer_shapes` (pure Python, no torch: it also serves machines that only detect) and, where the type has
   weights, `blob_specs`, with the shape, filler and learning rate of each blob.
3. Write `forward` with PyTorch, imported inside the function. Spatial sizes come from the tensors, never from the
   prototxt, so that one net serves every window. Weights are `self.blobs`, tensors by then.
4. Write `to_onnx` (opset `ONNX_OPSET`), with the value names it is handed (never those of the spec: in-place layers
   have two values under one blob name), and add a row to the table in `tests/test_layer_contract.py`, which holds
   declared shape, torch and onnxruntime together.
"""

import difflib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from caffe_models.errors import NetError, PrototxtError, warn
from caffe_models.fillers import FillerSpec, UnfilledBlob
from caffe_models.schema import DIALECTS

if TYPE_CHECKING:
    import torch

    from caffe_models.batch_share import BatchShare
    from caffe_models.message import Message

Shape = tuple[int, ...]

MOST_AXES, MOST_IN_AXIS = 32, (1 << 31) - 1
"""Caffe's own limits of a blob."""

MOST_VALUES = 1 << 40
"""Most values in a blob, 4 TB: no net means more. Caffe stops at 2 ** 31 - 1, which an honest net may pass when it is
looked at for a large input; what can be run is a matter of memory."""

FLOAT, INT64 = 1, 7
"""ONNX's numbers of the element types float32 and int64, for Cast."""

ONNX_OPSET = 18
"""The operator set `to_onnx` writes for (axes of reductions are inputs, Split has num_outputs)."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer as the prototxt declares it, after the rules of phase and of older formats were applied."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: "Message"
    """The LayerParameter."""
    phase: str = "TEST"
    """TRAIN or TEST."""
    dialect: str = "extended"
    loss_weights: tuple[float, ...] = ()
    """The `loss_weight`s as written; empty: the default of the type (`Layer.loss_weights` has the effective ones)."""
    line: int = 0
    source: str = "<net>"
    engine: str = ""
    """`engine` of the layer, else of the net: MKL2017 and MKLDNN change what BatchNorm is."""

    def param(self, name: str) -> "Message":
        """The layer's parameter message, e.g. `convolution_param`; empty with defaults if it is not set."""
        found: Message = self.message.get(name)
        return found

    def error(self, text: str, line: int | None = None) -> PrototxtError:
        """A PrototxtError that names file, line and layer before `text`, ready to be raised."""
        at = line if line else self.line
        return PrototxtError(f'{self.source}:{at}: layer "{self.name}" ({self.type}): {text}')


@dataclass(frozen=True)
class BlobSpec:
    """One weight of a layer: its shape, how it starts, and its part in the solver's update."""

    shape: Shape
    filler: FillerSpec = field(default_factory=FillerSpec)
    lr_mult: float = 1.0
    decay_mult: float = 1.0


class OnnxGraph(Protocol):
    """What `Layer.to_onnx` writes into. Values are named by strings; every value is written once."""

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Append an operator of the default domain; an input "" is an omitted optional one."""

    def constant(self, array: npt.NDArray[Any], name: str) -> str:
        """Add an initializer (float32, int64 or bool); the value's name, made unique from the wish `name`."""

    def fresh(self, hint: str) -> str:
        """A new unique value name, for a result between two nodes of one layer."""

    def rank(self, value: str) -> int:
        """Number of axes of a bottom or top (values made by `fresh` are unknown here)."""

    def shape(self, value: str) -> Shape:
        """Shape of a bottom or top at the declared input. Its batch and channels may be used as constants; its
        spatial part (axes from 2) is dynamic at run time and must not be."""


class Layer(ABC):
    """One layer of a Net."""

    bottoms_allowed: ClassVar[tuple[int, int | None]] = (1, 1)
    tops_allowed: ClassVar[tuple[int, int | None]] = (1, 1)
    """Least and most (None: any) number of bottoms and tops."""
    is_loss: ClassVar[bool] = False
    """Whether the first top counts into the total loss (weight 1) unless the prototxt says otherwise."""
    fresh_tops: bool = False
    """Whether forward returns new memory that neither a bottom nor autograd needs: the next layer may overwrite it."""
    statistics: ClassVar[frozenset[int]] = frozenset()
    """Indices of blobs that are measured, not learnt: they never require gradients."""
    is_input: ClassVar[bool] = False
    """Whether the tops come from the caller: inputs of the net, computed by nobody."""
    type_name: ClassVar[str] = ""
    share: "BatchShare | None" = None
    """The rows of the batch that this process has, where several train together."""

    # What `docs/layers.md` says about the type, besides what is declared above.
    dialects: ClassVar[tuple[str, ...]] = DIALECTS
    """The Caffes that have the type."""
    spatial_axes: ClassVar[tuple[int, int | None]] = (0, None)
    """Least and most (None: any) number of spatial axes of the first bottom."""
    refused_in_3d: ClassVar[frozenset[str]] = frozenset()
    """Dialects whose Caffe has the type but stops at a bottom of more than 4 axes: it is run all the same, since its
    formula has one meaning there, with a warning that the Caffe of the file could not have made its weights."""
    no_onnx: ClassVar[str] = ""
    """Why the type cannot run outside PyTorch; empty: it can."""
    refused: ClassVar[str] = ""
    """Why a layer of this type is refused in any engine, and what to do instead; empty: it is not."""
    note: ClassVar[str] = ""
    """What else a user must know."""

    def __init__(self, spec: LayerSpec) -> None:
        """Read the parameters; a subclass calls this first, then sets its `params`.

        Raises:
            PrototxtError: wrong number of bottoms or tops, or (in subclasses) a setting Caffe does not allow.
        """
        self.spec = spec
        self._held: list[Any] = []
        self._all_filled = True
        self._warned = False
        self.may_overwrite = False  # set by Net for each run: forward may put its result into its first bottom's memory
        self._check_count("bottom", len(spec.bottoms), self.bottoms_allowed)
        self._check_count("top", len(spec.tops), self.tops_allowed)
        flags = spec.message.get("propagate_down")
        if flags and len(flags) != len(spec.bottoms):
            raise spec.error(
                f"{len(flags)} propagate_down for {len(spec.bottoms)} bottoms; give one per bottom or none"
            )
        if spec.loss_weights and len(spec.loss_weights) != len(spec.tops):
            raise spec.error(
                f"{len(spec.loss_weights)} loss_weight for {len(spec.tops)} tops; give one per top or none"
            )

    def _check_count(self, what: str, found: int, allowed: tuple[int, int | None]) -> None:
        least, most = allowed
        if found < least or (most is not None and found > most):
            text = str(least) if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            raise self.spec.error(f"has {found} {what}(s), allowed: {text}")

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each top in the total loss: as written, else 1 for the first top of a loss, else 0."""
        if self.spec.loss_weights:
            return self.spec.loss_weights
        return tuple(1.0 if self.is_loss and index == 0 else 0.0 for index in range(len(self.spec.tops)))

    @property
    def blobs(self) -> list[Any]:
        """The weights: NumPy arrays, after `Net.to_torch` tensors. Those that nobody has set get their fillers' values
        now; for shapes alone ask `blob_shapes`, which costs nothing."""
        if not self._all_filled:
            self._held = [blob.array() if isinstance(blob, UnfilledBlob) else blob for blob in self._held]
            self._all_filled = True
        return self._held

    @property
    def held_blobs(self) -> list[Any]:
        """`blobs` as they are: `UnfilledBlob`s where nobody has set or asked for the values yet."""
        if not self._all_filled:  # a layer that shares one may have asked
            self._held = [
                blob.array() if isinstance(blob, UnfilledBlob) and blob.filled else blob for blob in self._held
            ]
        return self._held

    def hold(self, blobs: list[Any]) -> None:
        """Set `blobs`; arrays, tensors or `UnfilledBlob`s."""
        self._held, self._all_filled = blobs, False

    @property
    def blob_shapes(self) -> list[Shape]:
        """Shape of each blob."""
        return [tuple(blob.shape) for blob in self._held]

    def array(self, index: int) -> npt.NDArray[np.float32]:
        """A copy of blob `index` as a float32 array in C order, wherever the blob lives."""
        blob = self.blobs[index]
        return np.array(blob if isinstance(blob, np.ndarray) else blob.detach().cpu().numpy(), np.float32, order="C")

    def hint_for_blobs(self, count: int) -> str:
        """What to tell a user whose weights file has `count` blobs for this layer, which is not the right number."""
        return "weights of another net?"

    def multipliers(self, index: int) -> tuple[float, float]:
        """(lr_mult, decay_mult) of blob `index`, from the layer's `param {}` entries; 1, 1 where there is none."""
        entries = self.spec.message.get("param")
        if index >= len(entries):
            return 1.0, 1.0
        return float(entries[index].get("lr_mult")), float(entries[index].get("decay_mult"))

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """`infer_shapes`, checked: as many shapes as tops, every extent at least 1, and a size that can be meant.

        Raises:
            PrototxtError: the bottoms do not fit the layer, or a top is larger than any blob of Caffe.
        """
        shapes = [tuple(int(extent) for extent in shape) for shape in self.infer_shapes(bottoms)]
        if self.spec.dialect in self.refused_in_3d and bottoms and len(bottoms[0]) > 4 and not self._warned:
            self._warned = True
            warn(str(self.spec.error(f"{self.spec.dialect} Caffe refuses bottoms of 5 axes here; run as in 2-D")))
        if len(shapes) != len(self.spec.tops):
            raise self.spec.error(f"declares {len(self.spec.tops)} tops but makes {len(shapes)}")
        for top, shape in zip(self.spec.tops, shapes, strict=True):
            if any(extent < 1 for extent in shape):
                given = ", ".join(str(tuple(bottom)) for bottom in bottoms)
                raise self.spec.error(
                    f'top "{top}" would have shape {shape} from bottoms {given}: the input is too small'
                )
            if len(shape) > MOST_AXES or any(extent > MOST_IN_AXIS for extent in shape):
                shown = str(shape) if len(shape) <= MOST_AXES else f"of {len(shape)} axes"
                raise self.spec.error(
                    f'top "{top}" would have shape {shown}; allowed: {MOST_AXES} axes of at most {MOST_IN_AXIS}'
                )
            if math.prod(shape) > MOST_VALUES:
                raise self.spec.error(
                    f'top "{top}" would have shape {shape}, {math.prod(shape)} values; allowed: {MOST_VALUES}'
                )
        return shapes

    @abstractmethod
    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops for shapes of the bottoms; without torch. Raises PrototxtError where they do not fit."""

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        """The layer's weights, in Caffe's order, for shapes of the bottoms."""
        return []

    @abstractmethod
    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        """Tensors of the tops from tensors of the bottoms. Sizes are those of the tensors at hand."""

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        """Write the layer as ONNX nodes that read the values `bottoms` and write the values `tops`.

        Raises:
            NetError: the layer has no meaning outside training (losses), or no ONNX form.
        """
        raise NetError(
            f'{self.spec.source}:{self.spec.line}: layer "{self.spec.name}": type {self.spec.type} has no ONNX form'
            f"{f' ({self.no_onnx})' if self.no_onnx else ''}; "
            "convert the deploy net (without losses and training layers)"
        )


class Loss(Layer):
    """A layer whose first top is a number to be made small; in training, hence in PyTorch, only."""

    is_loss = True
    no_onnx = "a loss serves training, which PyTorch does"


LayerClass = TypeVar("LayerClass", bound=type[Layer])
_registry: dict[str, type[Layer]] = {}


def register(type_name: str) -> Callable[[LayerClass], LayerClass]:
    """Class decorator: make a Layer known under the `type:` of a prototxt. Refuses a name that is taken."""

    def decorate(cls: LayerClass) -> LayerClass:
        if type_name in _registry:
            raise ValueError(f"layer type {type_name} is registered twice: {_registry[type_name]} and {cls}")
        cls.type_name = type_name
        _registry[type_name] = cls
        return cls

    return decorate


def layer_types() -> dict[str, type[Layer]]:
    """All known types by name, sorted."""
    importlib.import_module("caffe_models.layers")
    return dict(sorted(_registry.items()))


_WRITE_ND = "its kernel, stride and pad are the fork's own; write "
_THRICE = "with kernel_size, stride and pad given three times (depth, height, width)"
_CONVOLUTION, _DECONVOLUTION, _POOLING = (
    f'{_WRITE_ND}type: "{name}" {_THRICE}' for name in ("Convolution", "Deconvolution", "Pooling")
)
_DEPTHWISE = 'write type: "Convolution" with group and num_output equal to the number of channels'
_READER = 'it feeds training; put a layer of type: "Input" with the same tops in its place'
FOREIGN_TYPES: dict[str, str] = {
    "BN": 'write a "BatchNorm" and a "Scale" with bias_term: true behind it; its blobs are in another order',
    "Convolution3D": _CONVOLUTION,
    "ConvolutionDepthwise": _DEPTHWISE,
    "DataTransform": _READER,
    "Deconvolution3D": _DECONVOLUTION,
    "DepthwiseConvolution": _DEPTHWISE,
    "NdConvolution": _CONVOLUTION,
    "NdPooling": _POOLING,
    "Pooling3D": _POOLING,
    "VideoData": _READER,
}
"""Types of forks that never were in one of the three Caffes -> what to do about them."""


def create(spec: LayerSpec) -> Layer:
    """The layer for a spec.

    Raises:
        PrototxtError: the type is unknown (the message lists the known ones), or the layer refuses its parameters.
    """
    known = layer_types()
    if spec.type in FOREIGN_TYPES:
        raise spec.error(f"a type of another fork of Caffe: {FOREIGN_TYPES[spec.type]}")
    if spec.type not in known:
        near = difflib.get_close_matches(spec.type[:60], known, n=1, cutoff=0.7)
        hint = f", did you mean {near[0]}?" if near else ""
        where = f'{spec.source}:{spec.line}: layer "{spec.name}"'
        raise PrototxtError(f'{where}: unknown type "{spec.type}"{hint} (known: {", ".join(known)})')
    return known[spec.type](spec)


def knows(message: "Message", name: str) -> bool:
    """Whether the message's dialect has a field of that name at all."""
    return name in message.spec.by_name


def canonical_axis(axis: int, rank: int, spec: LayerSpec, field_name: str = "axis") -> int:
    """`axis` counted from the front; negative axes count from the end, as in Caffe.

    Raises:
        PrototxtError: the axis lies outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise spec.error(f"{field_name} {axis} is outside a blob of {rank} axes; allowed: {-rank} to {rank - 1}")
    return axis % rank


def int64(*values: int) -> npt.NDArray[np.int64]:
    """A 1-D int64 array, ONNX's form of shapes and axes."""
    return np.array(values, np.int64)
