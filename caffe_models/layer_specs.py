"""From a parsed NetParameter to the layers that take part in a phase.

Follows Caffe's `Net::FilterNet` and `StateMeetsRule`; older forms are made modern by `caffe_models.legacy`.
"""

from collections.abc import Collection
from dataclasses import dataclass

from caffe_models.errors import PrototxtError
from caffe_models.layer import LayerSpec, knows
from caffe_models.legacy import modern_layers
from caffe_models.message import Message


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
        PrototxtError: include and exclude on one layer, a layer without a type, or what `modern_layers` refuses;
            names file and line.
    """
    engine = str(net.get("engine")) if knows(net, "engine") else ""
    return [
        _spec(layer, state, dialect, net.source, engine)
        for layer in modern_layers(net)
        if _takes_part(layer, state, net.source)
    ]


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
