"""One protobuf message of Caffe as a Python object, whichever form it was read from.

proto2's rules: a field is set or not, an unset one has its default, a message field is a Message of its own. Enums are
held as their names. A `float` is held as the shortest decimal that rounds to the same 32 bits: 0.1 stays 0.1, from text
and from binary alike. Long lists of floats (`BlobProto.data`) are NumPy arrays.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe_models.errors import PrototxtError
from caffe_models.schema import FieldSpec, MessageSpec, message_spec

Array = npt.NDArray[Any]


class Message:
    """A message of type `spec`; knows the file and line it came from, and the line of each of its values.

    `source` is a file's name or "<text>"; `line` is 1 for the first line of a text and 0 for binary or built messages.
    """

    __slots__ = ("_lines", "_values", "dialect_reason", "line", "source", "spec")

    def __init__(self, spec: MessageSpec, source: str = "<built>", line: int = 0) -> None:
        self.spec = spec
        self.source = source
        self.line = line
        self.dialect_reason = ""
        """Of a whole text: why it was read in the dialect of `spec`."""
        self._values: dict[str, Any] = {}
        self._lines: dict[str, list[int]] = {}

    def __repr__(self) -> str:
        return f"<{self.spec.name} at {self.source}:{self.line}: {', '.join(self._values) or 'empty'}>"

    def field(self, name: str) -> FieldSpec:
        """The field's description. Raises PrototxtError, naming the message and its fields, if there is none."""
        found = self.spec.by_name.get(name)
        if found is None:
            raise PrototxtError(f"{self.where()}: {self.spec.no_field(name)}")
        return found

    def where(self, name: str = "", index: int = 0) -> str:
        """`FILE:LINE` of this message, or of value `index` of field `name`; the file alone if it is binary."""
        line = self.line_of(name, index) if name else self.line
        return f"{self.source}:{line}" if line else self.source

    def names(self) -> tuple[str, ...]:
        """The fields that are set, in the order of their numbers."""
        set_here = [one for one in self.spec.fields if self.has(one.name)]
        return tuple(one.name for one in sorted(set_here, key=lambda one: one.number))

    def has(self, name: str) -> bool:
        """Whether the field is set; a repeated field is when it has at least one value."""
        self.field(name)
        value = self._values.get(name)
        return value is not None and not (isinstance(value, list | np.ndarray) and len(value) == 0)

    def get(self, name: str) -> Any:
        """The field's value, or its default; an empty message if a message field is unset. Repeated: a tuple, or a 1-D
        array of float32 or float64 for numbers that arrived packed."""
        field = self.field(name)
        value = self._values.get(name)
        if field.repeated:
            return value if isinstance(value, np.ndarray) else tuple(value or ())
        if value is not None:
            return value
        if field.is_message:
            return Message(message_spec(field.message, self.spec.dialect), self.source, self.line)
        return field.default

    def line_of(self, name: str, index: int = 0) -> int:
        """The line of the field's value number `index`; the message's own line if the field is unset or binary."""
        lines = self._lines.get(name, ())
        return lines[index] if 0 <= index < len(lines) else self.line

    def set(self, name: str, value: Any, line: int = 0) -> None:
        """Set a field; a repeated one takes a sequence or an array and loses what it had.

        Raises:
            PrototxtError: no such field, or a value of the wrong type or range.
        """
        field = self.field(name)
        if not field.repeated:
            self._values[name] = self._checked(field, value)
            if line:
                self._lines[name] = [line]
            return
        if isinstance(value, np.ndarray) and field.is_float:
            if value.ndim != 1:
                raise PrototxtError(f"{self.where()}: {self.spec.name}.{name} takes a 1-D array, not {value.shape}")
            self._values[name] = np.asarray(value, np.float32 if field.kind == "float" else np.float64)
        else:
            self._values[name] = [self._checked(field, one) for one in value]
        self._lines.pop(name, None)

    def add(self, name: str, value: Any, line: int = 0) -> None:
        """Append one value to a repeated field. Raises PrototxtError as `set` does, and for fields not repeated."""
        field = self.field(name)
        if not field.repeated:
            raise PrototxtError(f"{self.where()}: {self.spec.name}.{name} takes one value; use set")
        values = self._values.setdefault(name, [])
        if isinstance(values, np.ndarray):
            values = self._values[name] = values.tolist()
        values.append(self._checked(field, value))
        if line:
            self._lines.setdefault(name, []).append(line)

    def put(self, field: FieldSpec, value: Any, line: int = 0) -> None:
        """As `set` or `add`, with the field at hand and a value that is in the form of `checked`: for the readers."""
        if not field.repeated:
            self._values[field.name] = value
            if line:
                self._lines[field.name] = [line]
            return
        self._values.setdefault(field.name, []).append(value)
        if line:
            self._lines.setdefault(field.name, []).append(line)

    def clear(self, name: str) -> None:
        """Unset a field."""
        self.field(name)
        self._values.pop(name, None)
        self._lines.pop(name, None)

    def new(self, name: str, line: int = 0) -> "Message":
        """A new empty message for field `name`, put in place (appended if repeated)."""
        field = self.field(name)
        if not field.is_message:
            raise PrototxtError(f"{self.where()}: {self.spec.name}.{name} is a {field.kind}, not a message")
        made = Message(message_spec(field.message, self.spec.dialect), self.source, line or self.line)
        if field.repeated:
            self.add(name, made, line)
        else:
            self.set(name, made, line)
        return made

    def copy(self) -> "Message":
        """An independent message with the same values, file and lines; arrays are shared."""
        made = Message(self.spec, self.source, self.line)
        made.dialect_reason = self.dialect_reason
        made._lines = {name: list(lines) for name, lines in self._lines.items()}
        for name, value in self._values.items():
            if isinstance(value, list):
                made._values[name] = [one.copy() if isinstance(one, Message) else one for one in value]
            else:
                made._values[name] = value.copy() if isinstance(value, Message) else value
        return made

    def equals(self, other: "Message") -> bool:
        """Whether the same fields are set to the same values; files and lines do not count."""
        if self.spec.name != other.spec.name or self.names() != other.names():
            return False
        return all(_equal(self._values[name], other._values[name]) for name in self.names())

    def get_int(self, name: str) -> int:
        return int(self.get(name))

    def get_float(self, name: str) -> float:
        return float(self.get(name))

    def get_bool(self, name: str) -> bool:
        return bool(self.get(name))

    def get_str(self, name: str) -> str:
        """A string, or an enum's name."""
        return str(self.get(name))

    def get_message(self, name: str) -> "Message":
        found: Message = self.get(name)
        return found

    def get_messages(self, name: str) -> tuple["Message", ...]:
        return tuple(self.get(name))

    def get_ints(self, name: str) -> tuple[int, ...]:
        return tuple(int(one) for one in self.get(name))

    def get_floats(self, name: str) -> tuple[float, ...]:
        return tuple(float(one) for one in self.get(name))

    def get_strs(self, name: str) -> tuple[str, ...]:
        return tuple(str(one) for one in self.get(name))

    def get_array(self, name: str) -> Array:
        """A repeated float or double field as a 1-D array of float32 or float64; a view where it arrived packed."""
        kind = np.float32 if self.field(name).kind == "float" else np.float64
        return np.asarray(self.get(name), kind)

    def _checked(self, field: FieldSpec, value: Any) -> Any:
        try:
            return checked(field, value)
        except ValueError as error:
            raise PrototxtError(f"{self.where()}: {self.spec.name}.{field.name}: {error}") from error


def checked(field: FieldSpec, value: Any) -> Any:
    """`value` in the form in which a Message holds it for `field`.

    Raises:
        ValueError: of the wrong type, out of range, or no value of the enum; says what is allowed.
    """
    if field.is_message:
        if not isinstance(value, Message) or value.spec.name != field.message:
            raise ValueError(f"takes a message of type {field.message}, found {value!r}")
        return value
    if field.kind == "string":
        if not isinstance(value, str):
            raise ValueError(f"takes a text, found {value!r}")
        return value
    if field.kind == "enum":
        if value not in field.enum:
            raise ValueError(f"found {value!r}, allowed: {', '.join(field.enum)}")
        return str(value)
    if field.kind == "bool":
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"takes true or false, found {value!r}")
        return bool(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"takes a number, found {value!r}")
    if field.is_float:
        return shortest(float(value)) if field.kind == "float" else float(value)
    if not isinstance(value, int | np.integer):
        raise ValueError(f"takes a whole number, found {value!r}")
    least, most = field.limits
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range; allowed: {least} to {most} ({field.kind})")
    return int(value)


def shortest(value: float) -> float:
    """The shortest decimal that rounds to the same float32; beyond its range infinity, as protobuf does."""
    if not math.isfinite(value) or (value.is_integer() and abs(value) < 1 << 24):  # whole ones, quickly
        return value
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        if one is None or other is None or len(one) != len(other):
            return False
        kind = one.dtype if isinstance(one, np.ndarray) else other.dtype
        return bool(np.array_equal(np.asarray(one, kind), np.asarray(other, kind), equal_nan=True))
    if isinstance(one, Message):
        return isinstance(other, Message) and one.equals(other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and bool(one == other)
