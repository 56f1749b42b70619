"""The words of protobuf's text format: names, numbers, quoted texts and punctuation, each with its line."""

import re
from typing import NamedTuple

from caffe_models.errors import PrototxtError

NAME, NUMBER, TEXT, SIGN, END = "name", "number", "text", "sign", "end"
_SHOWN = 60

MOST_WORDS = 150_000
MOST_ESCAPES = 50_000
"""Most tokens and backslashes of a text, so that one that is not meant to be read ends soon."""


class Token(NamedTuple):
    """One word; `text` is as written, quotes included."""

    kind: str
    text: str
    line: int

    def shown(self) -> str:
        """The word as errors quote it: its first characters, or what stands for the end."""
        if self.kind == END:
            return "the end of the text"
        return shown(self.text)


def shown(text: str) -> str:
    """`text` as errors quote it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_PATTERN = re.compile(
    r"""[\ \t\r\f\v\n]*+(?:\#[^\n]*+[\ \t\r\f\v\n]*+)*+
    (?:([A-Za-z_][A-Za-z0-9_]*+)
    |([{}<>\[\]:;,\-])
    |("(?:[^"\\\n]++|\\[^\n])*+"|'(?:[^'\\\n]++|\\[^\n])*+')
    |(0[xX][0-9A-Fa-f]++(?![\w.])|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?[fF]?(?![\w.]))
    |(\Z)
    |(.))""",
    re.VERBOSE,
)
_KINDS = ("", NAME, SIGN, TEXT, NUMBER, END, "stray")
_WORD = re.compile(r"[\w.+\-]{1,40}")

_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def tokenize(text: str, source: str) -> list[Token]:
    """The tokens of `text`, one of kind `END` last.

    Raises:
        PrototxtError: a character that has no place, a quoted text without its end, more than `MOST_WORDS` tokens, or
            more than `MOST_ESCAPES` backslashes; names `source` and line.
    """
    if (escapes := text.count("\\")) > MOST_ESCAPES:
        raise PrototxtError(f"{source}: has {escapes} backslashes, a prototxt at most {MOST_ESCAPES}; is this a net?")
    tokens: list[Token] = []
    add, match, count, make = tokens.append, _PATTERN.match, text.count, Token._make
    line, at = 1, 0
    while True:
        found = match(text, at)
        index = found.lastindex if found else None
        if found is None or index is None:  # cannot be: the pattern takes any character
            raise PrototxtError(f"{source}:{line}: {_stray(text, at)}")
        start, end = found.span(index)
        if start != at:
            line += count("\n", at, start)
        kind = _KINDS[index]
        if kind == "stray":
            raise PrototxtError(f"{source}:{line}: {_stray(text, start)}")
        add(make((kind, found[index], line)))
        if kind == END:
            return tokens
        if len(tokens) > MOST_WORDS:
            raise PrototxtError(
                f"{source}:{line}: more than {MOST_WORDS} words and signs; a net of a thousand layers has about 40000"
            )
        at = end


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
                f'{source}:{token.line}: unknown escape "\\{letter}" in {token.shown()}; write a backslash as \\\\'
            )
        at = found.end()
    made += body[at:].encode()
    try:
        return made.decode()
    except UnicodeDecodeError as error:
        raise PrototxtError(f"{source}:{token.line}: the escapes in {token.shown()} do not make UTF-8") from error


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
