"""From a parsed NetParameter to the layers that take part: phase rules, older input forms, V1 layers.

Follows Caffe's `Net::FilterNet`, `StateMeetsRule` and `UpgradeNetAsNeeded`.
"""

from collections.abc import Collection
from dataclasses import dataclass

from caffe_models.errors import PrototxtError
from caffe_models.layer import LayerSpec, knows
from caffe_models.message import Message
from caffe_models.schema import message_spec

_V1_NAMES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}


@dataclass(frozen=True)
class NetState:
    """What `include` and `exclude` rules are held against."""

    phase: str = "TEST"
    level: int = 0
    stages: Collection[str] = ()

    def meets(self, rule: Message) -> bool:
        """Whether this state satisfies one NetStateRule: every condition the rule states must hold."""
        if rule.has("phase") and rule.get("phase") != self.phase:
            return False
        if rule.has("min_level") and self.level < rule.get("min_level"):
            return False
        if rule.has("max_level") and self.level > rule.get("max_level"):
            return False
        if any(stage not in self.stages for stage in rule.get("stage")):
            return False
        return all(stage not in self.stages for stage in rule.get("not_stage"))


def read_layer_specs(net: Message, state: NetState, dialect: str) -> list[LayerSpec]:
    """The layers of `net` (a NetParameter) that take part in `state`, in order.

    Raises:
        PrototxtError: include and exclude on one layer, a net with both `layer` and V1 `layers`, an input without a
            shape; names file and line.
    """
    modern, old = net.get("layer"), net.get("layers")
    if modern and old:
        line = net.line_of("layers")
        raise PrototxtError(f"{net.source}:{line}: the net has both `layer` and V1 `layers`; use one of the two forms")
    layers = list(modern) or [_upgraded(layer, dialect) for layer in old]
    engine = str(net.get("engine")) if knows(net, "engine") else ""
    specs = []
    legacy = _legacy_input(net, dialect)
    if legacy is not None:
        specs.append(_spec(legacy, state, dialect, net.source, engine))
    specs.extend(
        _spec(layer, state, dialect, net.source, engine) for layer in layers if _takes_part(layer, state, net.source)
    )
    return specs


def _takes_part(layer: Message, state: NetState, source: str) -> bool:
    include, exclude = layer.get("include"), layer.get("exclude")
    if include and exclude:
        name, line = layer.get("name"), layer.line
        raise PrototxtError(f'{source}:{line}: layer "{name}": has include and exclude rules; give only one kind')
    if include:
        return any(state.meets(rule) for rule in include)
    return not any(state.meets(rule) for rule in exclude)


def _spec(layer: Message, state: NetState, dialect: str, source: str, net_engine: str) -> LayerSpec:
    if not layer.get("type"):
        raise PrototxtError(f'{source}:{layer.line}: layer "{layer.get("name")}": has no type; add type: "..."')
    own_engine = str(layer.get("engine")) if knows(layer, "engine") else ""
    return LayerSpec(
        name=str(layer.get("name")),
        type=str(layer.get("type")),
        bottoms=tuple(layer.get("bottom")),
        tops=tuple(layer.get("top")),
        message=layer,
        phase=str(layer.get("phase")) if layer.has("phase") else state.phase,
        dialect=dialect,
        loss_weights=tuple(float(weight) for weight in layer.get("loss_weight")),
        line=layer.line,
        source=source,
        engine=own_engine or net_engine,
    )


def _message(name: str, dialect: str, like: Message, line: int) -> Message:
    return Message(message_spec(name, dialect), source=like.source, line=line)


def _legacy_input(net: Message, dialect: str) -> Message | None:
    """An Input layer for `input: "data"` with `input_shape {}` or four `input_dim` per input."""
    names = net.get("input")
    if not names:
        return None
    shapes, sizes = net.get("input_shape"), net.get("input_dim")
    line = net.line_of("input")
    if len(shapes) != len(names) and len(sizes) != 4 * len(names):
        raise PrototxtError(
            f"{net.source}:{line}: {len(names)} input, {len(shapes)} input_shape and {len(sizes)} input_dim; "
            "give each input one input_shape or four input_dim"
        )
    layer = _message("LayerParameter", dialect, net, line)
    layer.set("name", "input")
    layer.set("type", "Input")
    parameter = _message("InputParameter", dialect, net, line)
    for index, name in enumerate(names):
        layer.add("top", name)
        shape = _message("BlobShape", dialect, net, line)
        for extent in shapes[index].get("dim") if shapes else sizes[4 * index : 4 * index + 4]:
            shape.add("dim", int(extent))
        parameter.add("shape", shape)
    layer.set("input_param", parameter)
    return layer


def _upgraded(old: Message, dialect: str) -> Message:
    """A V1LayerParameter as LayerParameter: type names, `blobs_lr` and `weight_decay` as `param {}` entries."""
    kind = str(old.get("type"))
    if kind not in _V1_NAMES:
        raise PrototxtError(
            f"{old.source}:{old.line}: V1 layer type {kind} is not known (known: {', '.join(_V1_NAMES)})"
        )
    layer = _message("LayerParameter", dialect, old, old.line)
    layer.set("type", _V1_NAMES[kind])
    for field in old.spec.fields:
        if field.name in ("type", "param", "blobs", "blobs_lr", "weight_decay", "blob_share_mode", "layer"):
            continue
        if not old.has(field.name) or not knows(layer, field.name):
            continue
        value = old.get(field.name)
        if field.repeated:
            for one in value:
                layer.add(field.name, one)
        else:
            layer.set(field.name, value)
    rates, decays, shared = old.get("blobs_lr"), old.get("weight_decay"), old.get("param")
    for index in range(max(len(rates), len(decays), len(shared))):
        parameter = _message("ParamSpec", dialect, old, old.line)
        if index < len(shared):
            parameter.set("name", shared[index])
        if index < len(rates):
            parameter.set("lr_mult", float(rates[index]))
        if index < len(decays):
            parameter.set("decay_mult", float(decays[index]))
        layer.add("param", parameter)
    return layer
