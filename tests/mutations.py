"""Texts and bytes made wrong, for the fuzz tests: what a hypothesis strategy draws is a list of small damages.

RPN3D_FUZZ=N tries N examples in each test, at random; without it some seconds' worth, the same ones every time.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from conftest import ROOT, data_folder
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from caffe_models.errors import Rpn3dError
from caffe_models.layer import layer_types
from caffe_models.schema import message_names, message_spec

Result = TypeVar("Result")
EXAMPLES = int(os.environ.get("RPN3D_FUZZ") or 0)


def fuzz(examples: int) -> settings:
    """Settings of a fuzz test: `examples`, or as many as RPN3D_FUZZ says, then at random."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def tried(call: Callable[[], Result]) -> tuple[Result | None, str]:
    """What `call` returns and "", or None and the message of our error; any other error goes on."""
    try:
        return call(), ""
    except Rpn3dError as error:
        return None, str(error)


def prototxts() -> list[str]:
    """Texts to damage: nets of the reference data, of every kind of layer, and one of ours."""
    root = data_folder() / "caffe_golden"
    paths = [*sorted(root.glob("ops/*/*/deploy.prototxt"))[::7], *sorted(root.glob("train/*/train.prototxt"))[::5]]
    paths += [*sorted(root.glob("nets/*/deploy*.prototxt"))[::2], *sorted((ROOT / "tests/golden").rglob("*.prototxt"))]
    return [Path(path).read_text() for path in paths if path.stat().st_size < 20_000]


_WORD = re.compile(r'"[^"\n]*"|[A-Za-z_]\w*|-?[0-9.]+(?:e-?\d+)?|\S')
NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "1.5", "1e38", "1e-45", "nan", "inf", "0x10", "017", "65536", "1000003"),
    *("2147483647", "4294967295", "-9223372036854775808", "99999999999999999999"),
)
SIGNS = (
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ":",
    ";",
    ",",
    "-",
    '"',
    "'",
    "\\",
    "#",
    "\n",
    '""',
    '"data"',
    '"\\303\\274"',
    "",
)
WORDS = (
    *("true", "false", "TEST", "TRAIN", "CONVOLUTION", "MAX", "PROD", "WITHIN_CHANNEL", "xavier", "bilinear"),
    *sorted({name for message in message_names() for name in message_spec(message).by_name}),
)
TYPES = tuple(layer_types())


def _damages(kinds: list[str], most: int) -> st.SearchStrategy[list[tuple[str, float, float]]]:
    part = st.floats(0, 1, exclude_max=True)
    return st.lists(st.tuples(st.sampled_from(kinds), part, part), min_size=1, max_size=most)


damages = _damages(["drop", "double", "swap", "number", "sign", "word", "type", "move", "cut"], 6)
mild_damages = _damages(["number", "number", "type", "type", "double", "move"], 3)
"""Those that leave many texts readable, for what comes after reading."""


def damaged_text(text: str, steps: Sequence[tuple[str, float, float]]) -> str:
    """`text` with each damage done to one of its words."""
    spans = [found.span() for found in _WORD.finditer(text)]
    words = [text[start:stop] for start, stop in spans]
    for kind, place, choice in steps:
        if not words:
            break
        at = int(place * len(words))
        if kind == "drop":
            del words[at]
        elif kind == "double":
            words.insert(at, words[at])
        elif kind == "swap":
            other = int(choice * len(words))
            words[at], words[other] = words[other], words[at]
        elif kind == "move":
            words.insert(int(choice * len(words)), words.pop(at))
        elif kind == "cut":
            words = words[: max(1, int(len(words) * choice))] if place < 0.2 else words
        elif kind == "number":
            numbers = [index for index, word in enumerate(words) if word[:1] in tuple("0123456789-.")]
            if numbers:
                words[numbers[int(place * len(numbers))]] = NUMBERS[int(choice * len(NUMBERS))]
        elif kind == "type":
            texts = [index for index, word in enumerate(words) if word[:1] == '"' and word[1:2].isupper()]
            if texts:
                words[texts[int(place * len(texts))]] = f'"{TYPES[int(choice * len(TYPES))]}"'
        else:
            pool = SIGNS if kind == "sign" else WORDS
            words[at] = pool[int(choice * len(pool))]
    return " ".join("\n" + word if word == "layer" else word for word in words)


byte_damage = st.tuples(
    st.sampled_from(["flip", "drop", "double", "insert", "cut", "length", "copy"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
)
byte_damages = st.lists(byte_damage, min_size=1, max_size=6)


def damaged_bytes(data: bytes, steps: Sequence[tuple[str, float, int]]) -> bytes:
    """`data` with each damage done to one of its bytes, more often near the start, where the structure is."""
    made = bytearray(data)
    for kind, place, value in steps:
        if not made:
            break
        at = int(place**3 * len(made))
        if kind == "flip":
            made[at] ^= 1 << (value & 7)
        elif kind == "drop":
            del made[at : at + 1 + (value & 7)]
        elif kind == "double":
            made[at:at] = made[at : at + value]
        elif kind == "insert":
            made[at:at] = bytes([value]) * (1 + (value & 3))
        elif kind == "cut":
            del made[at + 1 :]
        elif kind == "length":
            made[at] = value
        else:
            made[at : at + 4] = made[value % len(made) : value % len(made) + 4]
    return bytes(made)
