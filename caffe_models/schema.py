"""Caffe's schema: which messages exist, their fields, numbers, kinds and defaults, in each dialect.

Three families of Caffe share most of one schema and disagree in a few places (pooling above all), in the text and on
the wire: "bvlc" (BVLC Caffe 1.0), "intel" (Intel Caffe 1.1) and "extended" (Extended Caffe 1.0-rc3). The table itself
is in `caffe_models.schema_messages`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from caffe_models.schema_messages import DIALECT_ENUMS, DIALECT_FIELDS, DIALECT_MESSAGES, ENUMS, MESSAGES

DIALECTS = ("bvlc", "intel", "extended")
DEFAULT_DIALECT = "extended"

Scalar = int | float | bool | str

_INTEGERS = ("int32", "int64", "uint32", "uint64")
_FLOATS = ("float", "double")
_ENUM, _MESSAGE = "enum", "message"


@dataclass(frozen=True)
class FieldSpec:
    """One field of a message.

    `kind` is int32, int64, uint32, uint64, float, double, bool, string, "enum" or "message"; `message` is the name of
    the message type and `enum_name`, `enum` the name of the enum and its values (name -> number). `default` is the
    value of an unset scalar field (an enum's is a name) and None for messages.
    """

    name: str
    number: int
    kind: str
    repeated: bool = False
    packed: bool = False
    default: Scalar | None = None
    message: str = ""
    enum_name: str = ""
    enum: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_integer(self) -> bool:
        return self.kind in _INTEGERS

    @property
    def is_float(self) -> bool:
        return self.kind in _FLOATS

    @property
    def is_message(self) -> bool:
        return self.kind == _MESSAGE

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value of an integer field."""
        bits = 64 if self.kind.endswith("64") else 32
        return (0, (1 << bits) - 1) if self.kind[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)


@dataclass(frozen=True)
class MessageSpec:
    """One message type in one dialect."""

    name: str
    dialect: str
    fields: tuple[FieldSpec, ...]
    by_name: Mapping[str, FieldSpec]
    by_number: Mapping[int, FieldSpec]

    def no_field(self, name: str) -> str:
        """The sentence that says that this message has no field `name`: the likely one, other dialects, all fields."""
        hints = []
        near = difflib.get_close_matches(name[:60], self.by_name, n=1)
        if near:
            hints.append(f'did you mean "{near[0]}"?')
        elsewhere = [one for one in DIALECTS if one != self.dialect and name in message_spec(self.name, one).by_name]
        if elsewhere:
            hints.append(f"dialect {' and '.join(elsewhere)} has it, the text is read as {self.dialect};")
        hints.append(f"allowed: {', '.join(self.by_name)}")
        return f'message {self.name} has no field "{name}" ({" ".join(hints)})'


def message_names(dialect: str = DEFAULT_DIALECT) -> tuple[str, ...]:
    """All message types of a dialect."""
    return tuple(sorted({*MESSAGES, *DIALECT_MESSAGES[_known(dialect)]}))


@cache
def message_spec(name: str, dialect: str = DEFAULT_DIALECT) -> MessageSpec:
    """The message type `name` ("NetParameter", "SolverParameter", ...) in a dialect.

    Raises:
        ValueError: no such message or dialect; a mistake in the program, not in a user's file.
    """
    _known(dialect)
    text = DIALECT_MESSAGES[dialect].get(name) or MESSAGES.get(name)
    if text is None:
        raise ValueError(f'no message "{name}" (known: {", ".join(message_names(dialect))})')
    added = DIALECT_FIELDS[dialect].get(name)
    parts = [text, added] if added else [text]
    fields = tuple(_field(one, dialect) for part in parts for one in part.split(", "))
    by_name = {one.name: one for one in fields}
    by_number = {one.number: one for one in fields}
    if len(by_name) != len(fields) or len(by_number) != len(fields):
        raise ValueError(f"message {name} of dialect {dialect}: a field's name or number occurs twice")
    return MessageSpec(name, dialect, fields, MappingProxyType(by_name), MappingProxyType(by_number))


@cache
def enum_values(name: str, dialect: str = DEFAULT_DIALECT) -> Mapping[str, int]:
    """The values of an enum, name -> number, in the order of the schema."""
    text = DIALECT_ENUMS[_known(dialect)].get(name) or ENUMS[name]
    return MappingProxyType({one.split()[0]: int(one.split()[1]) for one in text.split(", ")})


def _known(dialect: str) -> str:
    if dialect not in DIALECTS:
        raise ValueError(f'no dialect "{dialect}" (known: {", ".join(DIALECTS)})')
    return dialect


def _field(text: str, dialect: str) -> FieldSpec:
    """A field from the table's notation, `NUMBER name KIND[*|+] [DEFAULT]`."""
    number, name, kind, *rest = text.split()
    repeated, packed = kind[-1] in "*+", kind[-1] == "+"
    kind, given = kind.rstrip("*+"), rest[0] if rest else None
    if kind in ENUMS:
        values = enum_values(kind, dialect)
        default: Scalar = given or next(iter(values))
        return FieldSpec(name, int(number), _ENUM, repeated, packed, default, enum_name=kind, enum=values)
    if kind in MESSAGES or kind in DIALECT_MESSAGES[dialect]:
        return FieldSpec(name, int(number), _MESSAGE, repeated, message=kind)
    return FieldSpec(name, int(number), kind, repeated, packed, _default(kind, given))


def _default(kind: str, given: str | None) -> Scalar:
    if kind in _INTEGERS:
        return int(given or 0)
    if kind in _FLOATS:
        return float(given or 0)
    if kind == "bool":
        return given == "true"
    if kind == "string":
        return given or ""
    raise ValueError(f'the schema\'s table has an unknown kind "{kind}"')
