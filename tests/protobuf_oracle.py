"""Google's protobuf, fed with our schema, as the oracle for our text and wire formats."""

import random
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from caffe_models.message import Message
from caffe_models.schema import FieldSpec, message_names, message_spec

_PACKAGE = "oracle"


@cache
def message_class(name: str, dialect: str) -> Any:
    """Protobuf's own class for a message of our schema."""
    return message_factory.GetMessageClass(_pool(dialect).FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool(dialect: str) -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name=f"{dialect}.proto", package=_PACKAGE, syntax="proto2")
    enums: dict[str, Any] = {}
    for name in message_names(dialect):
        made = file.message_type.add(name=name)
        for field in message_spec(name, dialect).fields:
            one = made.field.add(name=field.name, number=field.number, label=3 if field.repeated else 1)
            if field.is_message:
                one.type, one.type_name = one.TYPE_MESSAGE, f".{_PACKAGE}.{field.message}"
            elif field.kind == "enum":
                enums[field.enum_name] = field.enum
                one.type, one.type_name = one.TYPE_ENUM, f".{_PACKAGE}.Of{field.enum_name}.{field.enum_name}"
            else:
                one.type = getattr(one, f"TYPE_{field.kind.upper()}")
            if field.packed:
                one.options.packed = True
            elif field.default is not None and not field.repeated:
                one.default_value = str(field.default).lower() if field.kind == "bool" else str(field.default)
    for name, values in enums.items():  # each in a message of its own: values of different enums share names
        made = file.message_type.add(name=f"Of{name}").enum_type.add(name=name)
        for value, number in values.items():
            made.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def random_message(name: str, dialect: str, seed: int, depth: int = 4) -> Message:
    """A message with a random part of its fields set to random values, awkward ones among them."""
    return _random(Message(message_spec(name, dialect)), random.Random(seed), depth)


def _random(message: Message, draw: random.Random, depth: int) -> Message:
    fields = [field for field in message.spec.fields if depth or not field.is_message]
    for field in draw.sample(fields, min(len(fields), draw.randrange(7))):
        if field.is_message:
            for _ in range(draw.randrange(1, 4) if field.repeated else 1):
                _random(message.new(field.name), draw, depth - 1)
        elif field.repeated and field.packed and field.is_float:
            kind = np.float32 if field.kind == "float" else np.float64
            message.set(field.name, np.array([draw.gauss(0, 1) for _ in range(draw.randrange(1, 9))], kind))
        elif field.repeated:
            message.set(field.name, [_value(field, draw) for _ in range(draw.randrange(1, 5))])
        else:
            message.set(field.name, _value(field, draw))
    return message


def _value(field: FieldSpec, draw: random.Random) -> Any:
    if field.kind == "string":
        return "".join(draw.choice("ab \"'\\\n\t\r\x01\x7fäλ€\U0001f642{}#:") for _ in range(draw.randrange(12)))
    if field.kind == "enum":
        return draw.choice(list(field.enum))
    if field.kind == "bool":
        return draw.random() < 0.5
    if field.is_float:
        ordinary = draw.gauss(0, 1) * 10.0 ** draw.randrange(-40, 38)
        return draw.choice([0.0, -0.0, 1.0, 0.1, 1e-5, 3.4028235e38, float("inf"), float("-inf"), ordinary, ordinary])
    least, most = field.limits
    return draw.choice([0, 1, 2, 7, 127, 128, least, most, max(least, -1), draw.randint(least, most)])
