"""Protobuf's wire format, read into Messages and written from them, by the schema.

Every step checks that the bytes it needs are there, so that a file cut short or not meant for us ends in an error that
names the byte, and never in a wrong value or a large allocation. As in protobuf, fields unknown to the schema, or sent
with another wire type than the schema's, are skipped; a message sent twice is merged; of a scalar the last counts.
Packed floats stay where they are: the arrays are views of the file's bytes (read-only, perhaps not aligned).
"""

import struct
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from caffe_models.errors import WeightsError
from caffe_models.message import Message, shortest
from caffe_models.schema import DEFAULT_DIALECT, FieldSpec, message_spec

MAX_MESSAGES = 50_000
MAX_FIELDS = 200_000
"""Most messages, and most fields (a long list of floats counts as one), in one file. A net of 1000 layers has about
20,000 messages and 100,000 fields; a hostile file of millions of empty ones would take minutes and the memory."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_SIZED = {"float": (_FIXED32, "<f4"), "double": (_FIXED64, "<f8")}
_MASK = (1 << 64) - 1

Keep = Mapping[str, Collection[str]]


def decode(
    data: bytes,
    message: str = "NetParameter",
    dialect: str = DEFAULT_DIALECT,
    source: str = "<bytes>",
    keep: Keep | None = None,
) -> Message:
    """`data` as a message of type `message`.

    Args:
        source: the file's name, for errors.
        keep: for some message types, the fields to read; their others are skipped unread. Types not named are read
            whole. Weights are read this way, since the rest of such a file depends on the dialect.

    Raises:
        WeightsError: not the wire format of such a message; names source and byte.
    """
    return _Decoder(data, dialect, source, keep or {}).message(message)


class _Decoder:
    """One file. `at` is the next byte; every reader is told the `end` it must not pass."""

    def __init__(self, data: bytes, dialect: str, source: str, keep: Keep) -> None:
        self.data, self.dialect, self.source, self.keep = data, dialect, source, keep
        self.at, self.messages, self.seen = 0, 0, 0

    def message(self, name: str) -> Message:
        made = Message(message_spec(name, self.dialect), self.source)
        self.fields(made, len(self.data))
        return made

    def fields(self, message: Message, end: int) -> None:
        """Read fields into `message` up to byte `end`."""
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            raise self.error(f"more than {MAX_MESSAGES} messages; this is no file of Caffe's")
        known, kept = message.spec.by_number, self.keep.get(message.spec.name)
        packed: dict[str, list[Any]] = {}
        while self.at < end:
            start = self.at
            tag = self.varint(end, message.spec.name)
            number, wire_type = tag >> 3, tag & 7
            if not 1 <= number < 1 << 29 or wire_type not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
                self.at = start
                raise self.error(f"{message.spec.name} has no field of number {number} and wire type {wire_type}")
            self.count(1)
            field = known.get(number)
            if field is None or (kept is not None and field.name not in kept):
                self.skip(wire_type, end, message.spec.name)
            elif wire_type == _BYTES:
                self.sized(message, field, end, packed)
            elif wire_type != _wire_type(field):
                self.skip(wire_type, end, message.spec.name)
            elif field.repeated and field.is_float:
                packed.setdefault(field.name, []).append(self.unpacked(field, self.data[start : self.at], end))
            else:
                self.store(message, field, self.scalar(field, end))
        for name, parts in packed.items():
            message.set(name, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def sized(self, message: Message, field: FieldSpec, end: int, packed: dict[str, list[Any]]) -> None:
        """Read a field whose length is sent first: a text, a message, or packed numbers."""
        start = self.at
        size = self.varint(end, message.spec.name)
        if size > end - self.at:
            self.at = start
            raise self.error(
                f"{message.spec.name}.{field.name} announces {size} bytes, {end - start} are left: the file is cut "
                "short or damaged"
            )
        stop = self.at + size
        if field.is_message:
            self.nested(message, field, stop)
        elif field.kind == "string":
            self.store(message, field, self.data[self.at : stop].decode("utf-8", "backslashreplace"))
        elif field.repeated and field.is_float:
            packed.setdefault(field.name, []).append(self.floats(field, size, stop))
        elif field.repeated:
            self.count(size)  # a byte each, at least
            while self.at < stop:
                self.store(message, field, self.scalar(field, stop))
        self.at = stop

    def nested(self, message: Message, field: FieldSpec, stop: int) -> None:
        if not field.repeated and message.has(field.name):
            inner = message.get_message(field.name)
        else:
            inner = message.new(field.name)
        self.fields(inner, stop)

    def floats(self, field: FieldSpec, size: int, end: int) -> Any:
        """The numbers in the next `size` bytes, as a view."""
        wire_type, layout = _SIZED[field.kind]
        count, rest = divmod(size, _WIDTH[wire_type])
        if rest or size > end - self.at:
            raise self.error(f"{field.name}: {size} bytes are no whole number of {field.kind} values")
        view = np.frombuffer(self.data, layout, count, self.at)
        self.at += size
        return view

    def unpacked(self, field: FieldSpec, tag: bytes, end: int) -> Any:
        """The numbers of all records tag, number, tag, number ... that follow each other from here (behind a tag)."""
        wire_type, layout = _SIZED[field.kind]
        width = _WIDTH[wire_type]
        first, stride = self.floats(field, width, end), width + len(tag)
        if not self.data.startswith(tag, self.at, end):
            return first
        wanted, parts, rows = np.frombuffer(tag, np.uint8), [first], 1
        while True:
            rows = min(2 * rows, (end - self.at) // stride)  # in growing steps, so that short runs stay cheap
            table = np.frombuffer(self.data, np.uint8, rows * stride, self.at).reshape(rows, stride)
            same = (table[:, : len(tag)] == wanted).all(axis=1)
            count = rows if same.all() else int(same.argmin())
            parts.append(np.ascontiguousarray(table[:count, len(tag) :]).view(layout).reshape(-1))
            self.at += count * stride
            if count < rows or rows == 0:
                return np.concatenate(parts)

    def count(self, fields: int) -> None:
        self.seen += fields
        if self.seen > MAX_FIELDS:
            raise self.error(f"more than {MAX_FIELDS} fields; this is no file of Caffe's")

    def scalar(self, field: FieldSpec, end: int) -> Any:
        """One number, bool or enum name; None for an enum's number that the schema does not have."""
        if field.is_float:
            return float(self.floats(field, _WIDTH[_SIZED[field.kind][0]], end)[0])
        value = self.varint(end, field.name)
        if field.kind == "bool":
            return value != 0
        if field.kind == "enum":
            return next((name for name, number in field.enum.items() if number == value), None)
        if field.kind.endswith("32"):
            value &= (1 << 32) - 1
        least, most = field.limits
        return value if value <= most else value + 2 * least

    def store(self, message: Message, field: FieldSpec, value: Any) -> None:
        if value is None:
            return
        message.put(field, shortest(value) if field.kind == "float" else value)

    def skip(self, wire_type: int, end: int, where: str) -> None:
        start = self.at
        size = _WIDTH.get(wire_type, 0)
        if wire_type == _VARINT:
            self.varint(end, where)
        elif wire_type == _BYTES:
            size = self.varint(end, where)
        if size > end - self.at:
            self.at = start
            raise self.error(f"a field of {where} needs {size} bytes, {end - start} are left: the file is cut short")
        self.at += size

    def varint(self, end: int, where: str) -> int:
        """A number in base 128, lowest digits first, at most ten bytes."""
        value, shift, start = 0, 0, self.at
        for at in range(start, min(start + 10, end)):
            byte = self.data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at + 1
                return value & _MASK
            shift += 7
        if end - start >= 10:
            raise self.error(f"a number in {where} has more than ten bytes")
        raise self.error(f"the bytes of {where} end within a number: the file is cut short or damaged")

    def error(self, text: str) -> WeightsError:
        return WeightsError(f"{self.source}: byte {self.at}: {text}")


def encode(message: Message) -> bytes:
    """The wire format of `message`: fields by number, repeated numbers packed where the schema says so.

    Two equal messages give equal bytes.
    """
    parts: list[bytes] = []
    for name in message.names():
        field, value = message.field(name), message.get(name)
        if field.repeated and field.packed:
            content = _packed(field, value)
            parts += [_tag(field, _BYTES), _digits(len(content)), content]
            continue
        for one in value if field.repeated else (value,):
            if field.is_message or field.kind == "string":
                content = encode(one) if isinstance(one, Message) else str(one).encode()
                parts += [_tag(field, _BYTES), _digits(len(content)), content]
            else:
                parts += [_tag(field, _wire_type(field)), _number(field, one)]
    return b"".join(parts)


def _wire_type(field: FieldSpec) -> int:
    """How a single value of the field is sent."""
    if field.is_message or field.kind == "string":
        return _BYTES
    return _SIZED[field.kind][0] if field.is_float else _VARINT


def _tag(field: FieldSpec, wire_type: int) -> bytes:
    return _digits(field.number << 3 | wire_type)


def _packed(field: FieldSpec, values: Any) -> bytes:
    if field.is_float:
        return np.asarray(values, _SIZED[field.kind][1]).tobytes()
    return b"".join(_number(field, value) for value in values)


def _number(field: FieldSpec, value: Any) -> bytes:
    if field.is_float:
        return struct.pack("<f" if field.kind == "float" else "<d", float(value))
    return _digits((field.enum[value] if field.kind == "enum" else int(value)) & _MASK)


def _digits(value: int) -> bytes:
    """A number in base 128, lowest digits first; the highest bit says that more follow."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
