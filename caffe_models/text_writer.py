"""Messages written as prototxt, protobuf's text format."""

from typing import Any

from caffe_models.message import Message, checked
from caffe_models.schema import FieldSpec


def write_text(message: Message) -> str:
    """`message` as a prototxt that reads back equal: fields by number, two spaces a level, one value a line."""
    lines: list[str] = []
    _write(message, "", lines)
    return "".join(f"{line}\n" for line in lines)


def _write(message: Message, indent: str, lines: list[str]) -> None:
    for name in message.names():
        field = message.field(name)
        values = message.get(name)
        for value in values if field.repeated else (values,):
            if isinstance(value, Message):
                lines.append(f"{indent}{name} {{")
                _write(value, indent + "  ", lines)
                lines.append(f"{indent}}}")
            else:
                lines.append(f"{indent}{name}: {_written(field, value)}")


def _written(field: FieldSpec, value: Any) -> str:
    if field.kind == "string":
        return f'"{"".join(_escaped(character) for character in value)}"'
    if field.kind == "bool":
        return "true" if value else "false"
    if field.is_float:
        number = float(checked(field, value))
        return (
            str(int(number)) if number.is_integer() and abs(number) < 1e15 and str(number) != "-0.0" else repr(number)
        )
    return str(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else "".join(f"\\{byte:03o}" for byte in character.encode())
