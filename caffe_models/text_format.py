"""Prototxt: protobuf's text format, read into Messages and written from them.

Accepts and refuses what Caffe's own reader does (protobuf's TextFormat::Parse): unknown fields, a single field given
twice, wrong types and numbers out of range are errors, here with file, line and what is allowed.
"""

import os
from pathlib import Path
from typing import Any

from caffe_models.binary_files import recognised
from caffe_models.dialects import detect_in, told
from caffe_models.errors import PrototxtError
from caffe_models.message import Message, checked
from caffe_models.schema import DIALECTS, FieldSpec, MessageSpec, message_names, message_spec
from caffe_models.text_tokens import END, NAME, NUMBER, SIGN, TEXT, Token, tokenize, unquoted
from caffe_models.text_writer import write_text

__all__ = ["MAX_BYTES", "parse_text", "read_text", "write_text"]

MAX_BYTES = 4 << 20
"""Longest prototxt; one of 1000 layers has about 200 KB."""

_MAX_DIGITS = 40
_BEHIND_ZERO = ("", ".", "e", "f")
_CLOSING = {"{": "}", "<": ">"}
_TRUE, _FALSE = ("true", "t", "True", "1"), ("false", "f", "False", "0")


def read_text(path: str | os.PathLike[str], message: str = "NetParameter", dialect: str | None = None) -> Message:
    """The prototxt file `path` as a message of type `message`.

    `dialect` None: found out from the text (`caffe_models.dialects`); the message's `spec.dialect` says which, and its
    `dialect_reason` why.

    Raises:
        PrototxtError: no such file, not a text, or not such a message; names file and line.
    """
    source = os.fspath(path)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "is a folder; name the prototxt in it" if Path(path).is_dir() else error.strerror or str(error)
        raise PrototxtError(f"{source}: cannot be read: {reason}") from error
    if what := recognised(content):
        raise PrototxtError(f"{source}: not a prototxt: it is {what}")
    if len(content) > MAX_BYTES:
        raise PrototxtError(f"{source}: has more than {MAX_BYTES} bytes, no prototxt has; is this a .caffemodel?")
    if not content.strip():
        raise PrototxtError(f"{source}: is empty; a prototxt is needed")
    try:
        if b"\0" in content:
            raise ValueError("has a zero byte")
        text = content.decode("utf-8-sig")
    except ValueError as error:
        raise PrototxtError(
            f"{source}: not a text file in UTF-8; is this a .caffemodel? A prototxt is needed here"
        ) from error
    return parse_text(text, message, dialect, source)


def parse_text(text: str, message: str = "NetParameter", dialect: str | None = None, source: str = "<text>") -> Message:
    """`text` as a message of type `message`; `source` names it in errors and in the result.

    Raises:
        PrototxtError: not such a message; names source and line. Of several dialects tried, the error of the one that
            read furthest.
    """
    tokens = tokenize(text, source)
    detection = detect_in(tokens) if dialect is None else told(dialect)
    best: tuple[int, PrototxtError] | None = None
    for one in detection.order:
        reader = _Reader(tokens, source)
        result = Message(message_spec(message, one), source, 1)
        try:
            reader.fields(result, None)
        except PrototxtError as error:
            if best is None or reader.taken > best[0]:
                best = (reader.taken, error)
            if not reader.differs():
                break
        else:
            tried = f"{detection.reason}; but that does not read the text: {best[1]}" if best else detection.reason
            result.dialect_reason = tried
            return result
    if best is None:
        raise ValueError("no dialect to read the text with")
    raise best[1]


class _Reader:
    """Goes through the tokens once; `next` is the one ahead, `taken` how many are behind."""

    def __init__(self, tokens: list[Token], source: str) -> None:
        self.tokens, self.source, self.taken = tokens, source, 0
        self.next = tokens[0]
        self.open: list[tuple[MessageSpec, Token]] = []  # the messages around, each with the brace opened inside it
        self.last: tuple[str, str] = ("", "")  # the message and field being read

    def differs(self) -> bool:
        """Whether the field being read is not the same in all dialects: another one may get further."""
        message, name = self.last
        found = [
            message_spec(message, one).by_name.get(name)
            for one in DIALECTS
            if message and message in message_names(one)
        ]
        return any(field != found[0] for field in found)

    def fields(self, message: Message, opened: Token | None) -> None:
        """Read fields into `message` up to the brace that closes `opened` (None: up to the end of the text)."""
        closing = _CLOSING[opened.text] if opened else ""
        while True:
            token = self.take()
            if token.kind == END:
                if opened is None:
                    return
                raise self.error(
                    token,
                    f'the text ends inside {message.spec.name}: the "{opened.text}" of line {opened.line} '
                    f'is not closed by "{closing}"',
                )
            if opened is not None and token.kind == SIGN and token.text == closing:
                return
            if token.kind != NAME:
                if token.text in "}>":
                    raise self.error(
                        token,
                        f'found "{token.text}" without an open brace'
                        if opened is None
                        else f'found "{token.text}", but line {opened.line} opened with "{opened.text}"',
                    )
                raise self.error(token, f"found {token.shown()} where a field of {message.spec.name} should be named")
            self.field(message, token)
            if self.next.text in (";", ",") and self.next.kind == SIGN:
                self.take()

    def field(self, message: Message, name: Token) -> None:
        self.last = (message.spec.name, name.text)
        field = message.spec.by_name.get(name.text)
        if field is None:
            raise self.error(name, self.unknown(message, name.text))
        if not field.repeated and message.has(field.name):
            raise self.error(
                name,
                f"{message.spec.name}.{field.name} is given twice (before on line {message.line_of(field.name)}); "
                "it takes one value",
            )
        colon = self.accept(":")
        if not colon and not field.is_message:
            raise self.error(self.next, f'after {name.text} a ":" and a value must follow, found {self.next.shown()}')
        if field.repeated and self.accept("["):
            if self.accept("]"):
                return
            while True:
                self.value(message, field, name)
                if self.accept("]"):
                    return
                if not self.accept(","):
                    raise self.error(
                        self.next, f'in the list of {name.text}, "," or "]" must follow, found {self.next.shown()}'
                    )
        self.value(message, field, name)

    def value(self, message: Message, field: FieldSpec, name: Token) -> None:
        """Read one value of `field` into `message`."""
        token = self.take()
        if field.is_message:
            if token.kind != SIGN or token.text not in _CLOSING:
                raise self.error(
                    token, f'after {name.text} (a {field.message}) "{{" must follow, found {token.shown()}'
                )
            made = Message(message_spec(field.message, message.spec.dialect), self.source, name.line)
            self.open.append((message.spec, token))
            self.fields(made, token)
            self.open.pop()
            value: Any = made
        else:
            value = self.scalar(field, token)
        try:
            value = checked(field, value)
        except ValueError as error:
            raise self.error(token, f"{message.spec.name}.{field.name}: {error}") from error
        message.put(field, value, name.line)

    def scalar(self, field: FieldSpec, token: Token) -> Any:
        if field.kind == "string":
            return self.quoted(field, token)
        negative = token.kind == SIGN and token.text == "-"
        if negative:
            token = self.take()
        word = token.text
        if field.kind == "enum" and not negative:
            if token.kind == NUMBER:
                names = [one for one, number in field.enum.items() if str(number) == word]
                return names[0] if names else word
            if token.kind == NAME:
                return word
        if field.kind == "bool" and not negative and token.kind in (NAME, NUMBER):
            if word in _TRUE + _FALSE:
                return word in _TRUE
            raise self.wrong(field, token, "true or false")
        if field.is_float:
            value = _float(token)
            if value is not None:
                return -value if negative else value
        if field.is_integer and token.kind == NUMBER:
            whole = _integer(word)
            if whole is not None:
                return -whole if negative else whole
        raise self.wrong(field, token, _WANTED.get(field.kind, "a whole number"), "-" if negative else "")

    def quoted(self, field: FieldSpec, token: Token) -> str:
        """One or several quoted texts side by side."""
        if token.kind != TEXT:
            raise self.wrong(field, token, 'a text in quotes, "like this"')
        parts = [unquoted(token, self.source)]
        while self.next.kind == TEXT:
            parts.append(unquoted(self.take(), self.source))
        return "".join(parts)

    def take(self) -> Token:
        token = self.next
        if token.kind != END:
            self.taken += 1
            self.next = self.tokens[self.taken]
        return token

    def accept(self, sign: str) -> bool:
        """Take the next token if it is `sign`."""
        if self.next.text != sign or self.next.kind != SIGN:
            return False
        self.take()
        return True

    def unknown(self, message: Message, name: str) -> str:
        """What to say of a field the message does not have; one that a message around it has hints at a lost brace."""
        for outer, brace in reversed(self.open):
            if name in outer.by_name:
                return (
                    f'message {message.spec.name} has no field "{name}", but {outer.name} has: is the '
                    f'"{_CLOSING[brace.text]}" missing that closes line {brace.line}?'
                )
        text = message.spec.no_field(name)
        for one, other in (("NetParameter", "SolverParameter"), ("SolverParameter", "NetParameter")):
            if message.spec.name == one and name in message_spec(other, message.spec.dialect).by_name:
                what = {"NetParameter": "the net", "SolverParameter": "the solver"}
                return f"this looks like {what[other]}'s text, {what[one]}'s is needed here: {text}"
        return text

    def wrong(self, field: FieldSpec, token: Token, wanted: str, sign: str = "") -> PrototxtError:
        return self.error(token, f"{field.name} takes {wanted}, found {sign}{token.shown()}")

    def error(self, token: Token, text: str) -> PrototxtError:
        return PrototxtError(f"{self.source}:{token.line}: {text}")


_WANTED = {"float": "a number", "double": "a number", "bool": "true or false", "enum": "one of its names, unquoted"}


def _float(token: Token) -> float | None:
    word = token.text.lower()
    if token.kind == NAME:
        return float(word) if word in ("inf", "infinity", "nan") else None
    if token.kind != NUMBER or (word[0] == "0" and word[1:2] not in _BEHIND_ZERO):  # hexadecimal, or octal as in C
        return None
    return float(word.rstrip("f"))


def _integer(word: str) -> int | None:
    """Decimal, hexadecimal (0x) or octal (0...), as in C."""
    digits = word.lower()
    if len(digits) > _MAX_DIGITS:
        return None
    try:
        if digits.startswith("0x"):
            return int(digits, 16)
        return int(digits, 8) if digits.startswith("0") else int(digits)
    except ValueError:
        return None
