"""Layers and nets carried over into another dialect's schema, field by field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from caffe_models.errors import PrototxtError
from caffe_models.layer import knows, layer_types
from caffe_models.message import Message
from caffe_models.schema import DIALECTS, message_spec
from caffe_models.translate_batch_norm import STATISTICS, WEIGHTED
from caffe_models.translate_pooling import translate_pooling


@dataclass
class Carrier:
    """Carries messages from one dialect into another, and lists what changed.

    `ranks`: number of axes of a layer's first bottom, by `id` of its message; unknown ones are absent.
    """

    origin: str
    target: str
    net_engine: str = ""
    ranks: dict[int, int] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    def net(self, net: Message) -> Message:
        """A modern NetParameter (`legacy.modern_net`) in the target dialect.

        Raises:
            PrototxtError: something in it has no counterpart there; names file, line, layer and field.
        """
        made = Message(message_spec("NetParameter", self.target), net.source, net.line)
        for name in net.names():
            if name == "layer":
                continue
            if name == "engine" and not knows(made, name):
                self.changes.append(f"net: engine {net.get_str(name)} is dropped")
                continue
            self._field(net, made, name, "the net", net.line_of(name))
        made.set("layer", [self.layer(layer) for layer in net.get_messages("layer")])
        return made

    def layer(self, old: Message) -> Message:
        """A LayerParameter in the target dialect. Raises PrototxtError as `net` does."""
        kind, rank = old.get_str("type"), self.ranks.get(id(old))
        where = f'layer "{old.get_str("name")}" ({kind})'
        self._check_type(old, kind, rank, where)
        made = Message(message_spec("LayerParameter", self.target), old.source, old.line)
        for name in old.names():
            if name == "engine" and not knows(made, name):
                self.changes.append(f'{where}: engine "{old.get_str(name)}" is dropped')
            elif name == "pooling_param":
                parameter = translate_pooling(
                    old.get_message(name),
                    self.target,
                    rank,
                    self._engine(old).startswith("MKL"),
                    note=lambda text: self.changes.append(f"{where}: {text}"),
                    fail=lambda text, line: _error(old, line, where, text),
                )
                made.set(name, parameter, old.line_of(name))
            else:
                self._field(old, made, name, where, old.line_of(name))
        if kind == "SigmoidCrossEntropyLoss" and self.origin != self.target:
            self._sigmoid_loss(old, made, where)
        if kind == "BatchNorm":
            self._statistics(made, where)
        return made

    def _engine(self, layer: Message) -> str:
        own = layer.get_str("engine") if knows(layer, "engine") else ""
        return (own or self.net_engine).upper()

    def _check_type(self, old: Message, kind: str, rank: int | None, where: str) -> None:
        known = layer_types().get(kind)
        dialects = known.dialects if known else DIALECTS
        if self.target not in dialects:
            raise _error(
                old, old.line, where, f"{self.target} Caffe has no such layer type; only {' and '.join(dialects)} have"
            )
        if known and self.target in known.refused_in_3d and (rank or 0) > 4:
            raise _error(old, old.line, where, f"{self.target} Caffe refuses bottoms of {rank} axes here")

    def _field(self, old: Message, made: Message, name: str, where: str, line: int) -> None:
        value = old.get(name)
        if not knows(made, name):
            if not self._meaningless(old, name):
                has = [one for one in DIALECTS if name in message_spec(old.spec.name, one).by_name]
                shown = "" if isinstance(value, Message) else f" {value}"
                raise _error(
                    old,
                    line,
                    where,
                    f"{name}{shown} cannot be written for {self.target}; only {' and '.join(has)} know it",
                )
            self.changes.append(f"{where}: {name}, which changes nothing here, is dropped")
            return
        if not old.field(name).is_message:
            self._plain(old, made, name, where, line)
            return
        carry: Callable[[Message], Message] = lambda one: self.message(one, where)  # noqa: E731
        made.set(name, [carry(one) for one in value] if old.field(name).repeated else carry(value), line)

    def _plain(self, old: Message, made: Message, name: str, where: str, line: int) -> None:
        value: Any = old.get(name)
        if old.field(name).kind == "enum" and not old.field(name).repeated and value not in made.field(name).enum:
            if old.field(name).enum_name != "Engine":
                allowed = ", ".join(made.field(name).enum)
                raise _error(
                    old, line, where, f"{name} {value} cannot be written for {self.target}; allowed: {allowed}"
                )
            self.changes.append(f"{where}: {name} {value} is dropped")
            return
        made.set(name, value, line)

    def message(self, old: Message, where: str) -> Message:
        """Any other message in the target dialect. Raises PrototxtError as `net` does."""
        made = Message(message_spec(old.spec.name, self.target), old.source, old.line)
        for name in old.names():
            self._field(old, made, name, where, old.line_of(name))
        return made

    def _meaningless(self, message: Message, name: str) -> bool:
        """Whether a set field says what is so without it."""
        value, owner = message.get(name), message.spec.name
        if owner == "BatchNormParameter" and name in WEIGHTED:
            return True  # gamma and beta of the MKL engines; where they exist they were split off before
        if owner == "ConvolutionParameter" and name == "negative_slope":
            return not message.get_bool("relu")
        if isinstance(value, Message):
            return all(self._meaningless(value, one) for one in value.names())
        return not message.field(name).repeated and bool(value == message.field(name).default)

    def _sigmoid_loss(self, old: Message, made: Message, where: str) -> None:
        """Intel's divides by the batch size or by nothing and knows no ignore_label, whatever the text says."""
        settings = old.get_message("loss_param")
        mode = "BATCH_SIZE"
        if settings.has("normalization"):
            mode = settings.get_str("normalization")
        elif settings.get_bool("normalize"):
            mode = "VALID"
        if self.target == "intel":
            if settings.has("ignore_label") or mode not in ("BATCH_SIZE", "NONE"):
                what = "ignore_label" if settings.has("ignore_label") else f"normalization {mode}"
                raise _error(
                    old,
                    settings.line,
                    where,
                    f"{what} cannot be written for intel, which divides by the batch size (or NONE)",
                )
            return
        if self.origin == "intel" and settings.names():
            made.clear("loss_param")
            made.new("loss_param").set("normalization", "NONE" if mode == "NONE" else "BATCH_SIZE")
            self.changes.append(f"{where}: loss_param is written as intel Caffe understands it")

    def _statistics(self, made: Message, where: str) -> None:
        """BVLC never learns or decays mean, variance and factor; the others do what `param` says."""
        entries = list(made.get_messages("param"))
        still = all(entry.has("lr_mult") and entry.get_float("lr_mult") == 0 for entry in entries[:STATISTICS])
        if self.origin == self.target or (still and (self.target == "bvlc" or len(entries) >= STATISTICS)):
            return
        if self.target != "bvlc" and self.origin != "bvlc":
            return
        if self.target == "bvlc" and not entries:
            return
        while len(entries) < STATISTICS:
            entries.append(made.new("param"))
        for entry in entries[:STATISTICS]:
            entry.set("lr_mult", 0.0)
            entry.set("decay_mult", 0.0)
        self.changes.append(f"{where}: statistics get param {{ lr_mult: 0 decay_mult: 0 }}")


def _error(message: Message, line: int, where: str, text: str) -> PrototxtError:
    at = f"{message.source}:{line}" if line else message.source
    return PrototxtError(f"{at}: {where}: {text}")
