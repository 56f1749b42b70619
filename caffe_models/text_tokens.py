"""The words of protobuf's text format: names, numbers, quoted texts and punctuation, each with its line."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from caffe_models.errors import PrototxtError

NAME, NUMBER, TEXT, SIGN, END = "name", "number", "text", "sign", "end"
_SHOWN = 60


class Token(NamedTuple):
    """One word; `text` is as written, quotes included."""

    kind: str
    text: str
    line: int

    def shown(self) -> str:
        """The word as errors quote it: its first characters, or what stands for the end."""
        if self.kind == END:
            return "the end of the text"
        return self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}..."


_PATTERN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9A-Fa-f]++(?![\w.])|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?[fF]?(?![\w.]))
    |(?P<text>"(?:[^"\\\n]++|\\[^\n])*+"|'(?:[^'\\\n]++|\\[^\n])*+')
    |(?P<sign>[{}<>\[\]:;,\-])""",
    re.VERBOSE,
)
_WORD = re.compile(r"[\w.+\-]{1,40}")

_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def tokenize(text: str, source: str) -> Iterator[Token]:
    """The tokens of `text`, one of kind `END` last.

    Raises:
        PrototxtError: a character that has no place, a quoted text without its end; names `source` and line.
    """
    line, at, size = 1, 0, len(text)
    match = _PATTERN.match
    while at < size:
        found = match(text, at)
        if found is None:
            raise PrototxtError(f"{source}:{line}: {_stray(text, at)}")
        kind = str(found.lastgroup)
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield Token(kind, found.group(), line)
        at = found.end()
    yield Token(END, "", line)


def unquoted(token: Token, source: str) -> str:
    """The value of a token of kind `TEXT`: quotes removed, C's escapes resolved (octal and hex: bytes of UTF-8).

    Raises:
        PrototxtError: an escape that does not exist, or bytes that are no UTF-8.
    """
    body = token.text[1:-1]
    if "\\" not in body:
        return body
    made, at = bytearray(), 0
    for found in _ESCAPE.finditer(body):
        made += body[at : found.start()].encode()
        octal, hexadecimal, short, long, letter = found.groups()
        if letter is None:
            number = int(octal, 8) & 0xFF if octal else int(hexadecimal or short or long, 16)
            plain = octal is not None or hexadecimal is not None
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                raise PrototxtError(f"{source}:{token.line}: {found.group()} is not a character of Unicode")
            made += bytes([number]) if plain else chr(number).encode()
        elif letter in _LETTERS or letter in "\\'\"?":
            made += _LETTERS.get(letter, letter).encode()
        else:
            raise PrototxtError(
                f'{source}:{token.line}: unknown escape "\\{letter}" in {token.text}; write a backslash as \\\\'
            )
        at = found.end()
    made += body[at:].encode()
    try:
        return made.decode()
    except UnicodeDecodeError as error:
        raise PrototxtError(f"{source}:{token.line}: the escapes in {token.text} do not make UTF-8") from error


def _stray(text: str, at: int) -> str:
    character = text[at]
    if character in "\"'":
        return f"the text that starts with {text[at : at + 20].splitlines()[0]} has no closing {character} on its line"
    if character.isdigit() or character == ".":
        word = _WORD.match(text, at)
        return f'"{word.group() if word else character}" is not a number'
    if character.isprintable():
        return f'found "{character}", which has no place in a prototxt'
    return f"found the character {character!a}; is this a binary file (a .caffemodel)?"
