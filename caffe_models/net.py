"""A Caffe net: layers in order, blobs between them, weights in them; shapes without torch, execution with it."""

import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_models import blob_graph, fillers, loading
from caffe_models.binary_files import MAX_BYTES
from caffe_models.errors import NetError, PrototxtError
from caffe_models.fillers import UnfilledBlob
from caffe_models.free_memory import format_memory, free_memory
from caffe_models.layer import Layer, LayerSpec, Shape, create
from caffe_models.layer_specs import NetState, read_layer_specs
from caffe_models.loading import LoadReport
from caffe_models.message import Message
from caffe_models.schema import DEFAULT_DIALECT

if TYPE_CHECKING:
    import torch

    from caffe_models.weights import Weights


_NO_MEMORY = ("allocate memory", "Storage size calculation overflowed")
"""What PyTorch says in a RuntimeError when a tensor is too large."""

MOST_LAYERS = 5000
"""Most layers of a net; the deepest that were published have about 3000."""

MOST_WEIGHTS = MAX_BYTES // 4
"""Most weights of a net: as many as a .caffemodel, which protobuf limits to 2 GiB, can hold."""


@dataclass(frozen=True)
class NetParameter:
    """One learnable blob for the solver. `tensor.grad` is None for BatchNorm statistics: their gradient is zero."""

    layer: str
    index: int
    tensor: Any
    lr_mult: float
    decay_mult: float


class Net:
    """A net as Caffe would build it from one prototxt in one phase. Make it by `from_prototxt`."""

    def __init__(self, name: str, specs: list[LayerSpec], input_shapes: Mapping[str, Shape] | None = None) -> None:
        """Create the layers, check the wiring and infer all shapes.

        Raises:
            PrototxtError: more than `MOST_LAYERS` layers, or than `MOST_WEIGHTS` weights; unknown layer type, bottoms
                nobody makes, blobs made twice, shapes that do not fit.
        """
        self.name = name
        if len(specs) > MOST_LAYERS:
            raise PrototxtError(f"{specs[0].source}: has {len(specs)} layers; allowed: {MOST_LAYERS}")
        self.dialect, self.dialect_reason = specs[0].dialect if specs else DEFAULT_DIALECT, ""
        """Of the text the net was made from, and why it was taken for that."""
        self.layers: list[Layer] = [create(spec) for spec in specs]
        self.graph = blob_graph.read(self.layers)
        self.outputs: tuple[str, ...] = self.graph.outputs
        self.inputs: dict[str, Shape] = self._declared_inputs(input_shapes or {})
        self.on_torch = False
        self._channels_last = False
        self._overwritten = self.graph.overwritten
        self.shapes: dict[str, Shape] = self._infer(self.inputs, declare=True)
        self._checked: set[tuple[tuple[str, Shape], ...]] = set()

    @staticmethod
    def from_prototxt(
        path: str | os.PathLike[str],
        phase: str = "TEST",
        dialect: str | None = None,
        input_shapes: Mapping[str, Shape] | None = None,
        level: int = 0,
        stages: Collection[str] = (),
    ) -> "Net":
        """The net in the text file `path`.

        Args:
            phase: TRAIN or TEST; with `level` and `stages` it decides which layers take part.
            dialect: bvlc, intel or extended; None: found out from the text.
            input_shapes: other shapes for some inputs than the file declares.

        Raises:
            PrototxtError: the file cannot be read or Caffe would not accept it; names file and line.
        """
        from caffe_models.text_format import read_text

        message = read_text(path, "NetParameter", dialect)
        return Net.from_message(message, phase, dialect, input_shapes, level, stages)

    @staticmethod
    def from_message(
        message: Message,
        phase: str = "TEST",
        dialect: str | None = None,
        input_shapes: Mapping[str, Shape] | None = None,
        level: int = 0,
        stages: Collection[str] = (),
    ) -> "Net":
        """As `from_prototxt`, from a parsed NetParameter. The dialect is the message's unless given."""
        state = message.get("state")
        merged = NetState(phase, level or int(state.get("level")), {*stages, *state.get("stage")})
        specs = read_layer_specs(message, merged, dialect or message.spec.dialect)
        name = str(message.get("name")) or Path(message.source).stem
        net = Net(name, specs, input_shapes)
        net.dialect_reason = message.dialect_reason if dialect in (None, message.spec.dialect) else "as told"
        return net

    def _declared_inputs(self, given: Mapping[str, Shape]) -> dict[str, Shape]:
        declared: dict[str, Shape] = {}
        for layer in self.layers:
            if layer.is_input:
                declared.update(zip(layer.spec.tops, layer.top_shapes([]), strict=True))
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise NetError(f"net {self.name}: no input {', '.join(unknown)} (inputs: {', '.join(declared) or 'none'})")
        return {blob: tuple(given.get(blob, shape)) for blob, shape in declared.items()}

    def infer(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shape of every blob for other shapes of the inputs, without torch.

        Raises:
            PrototxtError: a layer cannot take its bottoms. NetError: a layer's weights do not fit them.
        """
        return self._infer({**self.inputs, **inputs}, declare=False)

    def _infer(self, inputs: Mapping[str, Shape], declare: bool) -> dict[str, Shape]:
        shapes: dict[str, Shape] = dict(inputs)
        owners: dict[str, list[Any]] = {}
        count = 0
        for layer in self.layers:
            if layer.is_input:
                continue
            bottoms = [shapes[blob] for blob in layer.spec.bottoms]
            shapes.update(zip(layer.spec.tops, layer.top_shapes(bottoms), strict=True))
            wanted = layer.blob_specs(bottoms)
            if declare:
                count += loading.make_blobs(layer, wanted, owners)
                if count > MOST_WEIGHTS:
                    shapes_here = ", ".join(str(spec.shape) for spec in wanted)
                    raise layer.spec.error(
                        f"with its weights of shape {shapes_here} the net has {count}; allowed: {MOST_WEIGHTS}, what a "
                        ".caffemodel can hold"
                    )
                continue
            for index, (shape, spec) in enumerate(zip(layer.blob_shapes, wanted, strict=True)):
                if shape != spec.shape:
                    raise NetError(
                        f'{layer.spec.source}:{layer.spec.line}: layer "{layer.spec.name}": blob {index} has shape '
                        f"{shape}, but bottoms of shape {bottoms} need {spec.shape}"
                    )
        return shapes

    def fill(self, seed: int) -> None:
        """Set every weight by its filler. The numbers depend on the seed and the layer's name, not on other layers."""
        done: set[int] = set()
        shapes = self.shapes_before
        for layer, bottoms in zip(self.layers, shapes, strict=True):
            for index, spec in enumerate(layer.blob_specs(bottoms)):
                blob = layer.held_blobs[index]
                if id(blob) in done:  # shared by name: the first layer's filler counts, as in Caffe
                    continue
                done.add(id(blob))
                key = (seed, zlib.crc32(layer.spec.name.encode()), index)
                if isinstance(blob, UnfilledBlob):
                    blob.seed = key
                else:
                    loading.assign(blob, fillers.fill(spec.filler, spec.shape, np.random.default_rng(key)))

    @property
    def shapes_before(self) -> list[list[Shape]]:
        """For each layer the declared shapes of its bottoms (of an in-place blob: before that layer)."""
        shapes: dict[str, Shape] = dict(self.inputs)
        before = []
        for layer in self.layers:
            bottoms = [shapes[blob] for blob in layer.spec.bottoms]
            before.append(bottoms)
            if not layer.is_input:
                shapes.update(zip(layer.spec.tops, layer.top_shapes(bottoms), strict=True))
        return before

    def load(self, weights: "Weights", source: str, strict: bool = False) -> LoadReport:
        """Copy blobs from `weights` by layer name, with Caffe's rules; see `loading.load`.

        What Caffe passes over in silence is warned about: layers that the file lacks (they keep their initial values)
        and layers that the net lacks. `strict`, for nets that are to be used as they are, refuses the first.
        """
        return loading.load(self.layers, weights, source, strict)

    def weights(self) -> "Weights":
        """All blobs as float32 arrays (copies), by layer name in the order of the layers."""
        return {
            layer.spec.name: [layer.array(index) for index in range(len(layer.blobs))]
            for layer in self.layers
            if layer.held_blobs
        }

    @property
    def layer_types(self) -> dict[str, str]:
        """Type of every layer by name, as a caffemodel records it."""
        return {layer.spec.name: layer.spec.type for layer in self.layers}

    def to_torch(self, device: str = "cpu", channels_last: bool = False) -> "Net":
        """Turn all blobs into torch tensors; returns the net itself.

        Args:
            channels_last: hold weights, and bring inputs, in PyTorch's channels-last memory format.

        In the TRAIN phase, blobs with a learning rate require gradients; BatchNorm statistics never do.
        """
        loading.to_torch(self.layers, device, channels_last)
        self.on_torch = True
        self._channels_last = channels_last
        return self

    def parameters(self) -> list[NetParameter]:
        """Every learnable blob once (shared ones under their first owner), BatchNorm's statistics among them, in
        Caffe's order, which is that of a solver state's history.

        BVLC Caffe forces the learning rate of statistics to 0; the other two leave it to the prototxt, so that a
        net without `param { lr_mult: 0 }` has its statistics decayed, as theirs. Of layers that share a blob the first
        one that states a multiplier counts (others must state the same: `loading.make_blobs`).
        """
        owners: dict[int, tuple[Layer, int]] = {}
        factors: dict[int, dict[str, float]] = {}
        for layer in self.layers:
            entries = layer.spec.message.get("param")
            for index, blob in enumerate(layer.blobs):
                owners.setdefault(id(blob), (layer, index))
                for name, factor in zip(("lr_mult", "decay_mult"), layer.multipliers(index), strict=True):
                    if index < len(entries) and entries[index].has(name):
                        factors.setdefault(id(blob), {}).setdefault(name, factor)
        found = []
        for blob, (layer, index) in owners.items():
            lr_mult, decay_mult = layer.multipliers(index)
            stated = {"lr_mult": lr_mult, "decay_mult": decay_mult, **factors.get(blob, {})}
            found.append(NetParameter(layer.spec.name, index, layer.blobs[index], **stated))
        return found

    @property
    def loss_tops(self) -> tuple[tuple[str, float], ...]:
        """The blobs that count into the total loss, with their weights."""
        return tuple(
            (top, weight)
            for layer in self.layers
            for top, weight in zip(layer.spec.tops, layer.loss_weights, strict=True)
            if weight
        )

    def total_loss(self, values: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """The weighted sum of the losses in what `forward` returned.

        Raises:
            NetError: the net has no loss.
        """
        terms = [values[top].sum() * weight for top, weight in self.loss_tops]
        if not terms:
            raise NetError(f"net {self.name}: has no loss layer in this phase, nothing to learn from")
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def forward(self, inputs: Mapping[str, "torch.Tensor"], *, keep: Collection[str] = ()) -> "dict[str, torch.Tensor]":
        """Run the net; returns its outputs, its loss blobs, and the blobs named in `keep` (their final values).

        Shapes may differ from the declared ones where the layers allow it; a blob is freed after its last reader.
        Inputs stay as they are (in-place layers write into their own memory).

        Raises:
            NetError: an input is missing or unknown, `keep` names no blob, `to_torch` was not called, or the blobs are
                larger than the memory that is free.
            PrototxtError: a layer cannot take these shapes.
        """
        self._check_feed(inputs, keep)
        try:
            return self._run(inputs, keep)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
                raise
            shapes = ", ".join(f"{blob} {tuple(tensor.shape)}" for blob, tensor in inputs.items())
            raise NetError(f"net {self.name}: not enough memory to run it for inputs {shapes}") from error

    def check_memory(self, inputs: Mapping[str, Shape]) -> None:
        """Refuse inputs of these shapes if the blobs alone are larger than the memory that is free now.

        Raises:
            NetError: names the layer at which the memory would end. PrototxtError: a layer cannot take the shapes.
        """
        needed, layer = blob_graph.least_memory(self.layers, self.graph, self.infer(inputs))
        free = free_memory()
        if needed > free and layer is not None:
            shapes = ", ".join(f"{blob} {shape}" for blob, shape in inputs.items())
            raise NetError(
                f"net {self.name}: for inputs {shapes} the blobs alive at layer {layer.spec.name} alone have "
                f"{format_memory(needed)}, {format_memory(free)} of memory are free; give smaller inputs"
            )

    def _run(self, inputs: Mapping[str, "torch.Tensor"], keep: Collection[str]) -> "dict[str, torch.Tensor]":
        values = {blob: self._layout(tensor) for blob, tensor in inputs.items()}
        wanted = {*self.outputs, *keep, *(top for top, _ in self.loss_tops)}
        for index, layer in enumerate(self.layers):
            if layer.is_input:
                continue
            layer.may_overwrite = index in self._overwritten and not self._is_kept(layer, keep)
            self._step(layer, values)
            for blob in self.graph.last_used_by[index]:
                if blob not in wanted:
                    del values[blob]
        return {blob: values[blob] for blob in values if blob in wanted}

    @staticmethod
    def _is_kept(layer: Layer, keep: Collection[str]) -> bool:
        return bool(keep) and layer.spec.bottoms[0] != layer.spec.tops[0] and layer.spec.bottoms[0] in keep

    @staticmethod
    def _step(layer: Layer, values: "dict[str, torch.Tensor]") -> None:
        bottoms = [values[blob] for blob in layer.spec.bottoms]
        for index, flag in enumerate(layer.spec.message.get("propagate_down")):
            if not flag and index < len(bottoms):
                bottoms[index] = bottoms[index].detach()
        values.update(zip(layer.spec.tops, layer.forward(bottoms), strict=True))

    def _layout(self, tensor: "torch.Tensor") -> "torch.Tensor":
        if not self._channels_last or tensor.ndim not in (4, 5):
            return tensor
        import torch

        return tensor.to(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)

    def _check_feed(self, inputs: Mapping[str, "torch.Tensor"], keep: Collection[str]) -> None:
        if not self.on_torch:
            raise NetError(f"net {self.name}: call to_torch() before forward()")
        missing, unknown = sorted(set(self.inputs) - set(inputs)), sorted(set(inputs) - set(self.inputs))
        if missing or unknown:
            what = f"missing: {', '.join(missing)}" if missing else f"unknown: {', '.join(unknown)}"
            raise NetError(f"net {self.name}: inputs {what} (the net's inputs: {', '.join(self.inputs) or 'none'})")
        absent = sorted(set(keep) - set(self.shapes))
        if absent:
            raise NetError(f"net {self.name}: no blob {', '.join(absent)} (blobs: {', '.join(self.shapes)})")
        shapes = {blob: tuple(tensor.shape) for blob, tensor in inputs.items()}
        key = self._key(shapes)
        if key not in self._checked:
            self.check_memory(shapes)
            self._checked.add(key)

    @staticmethod
    def _key(shapes: Mapping[str, Shape]) -> tuple[tuple[str, Shape], ...]:
        return tuple(sorted((blob, tuple(shape)) for blob, shape in shapes.items()))
