"""Which family of Caffe a prototxt was written for.

Evidence is collected over the whole text; each piece leaves the dialects that can have written it:

- a field that some dialects do not have, by the schema (`kernel_size_3d`: intel; `round_mode`: bvlc;
  `smooth_l1_loss_param`, or a solver's `plateau_winsize`: intel and extended);
- an engine given as a text, `engine: "MKL2017"`, or by a name of the MKL engines: intel and extended;
- `kernel_size`, `stride` or `pad` of a pooling given more than once: extended;
- a layer type that some dialects do not have (`Clip`: bvlc; `Permute`: intel and extended).

Where several dialects are left, "extended" is taken if it is among them: its schema is the widest, and it alone reads
`kernel_size: 2` for pooling in three dimensions. A text that cannot be read in the dialect so found is tried in the
others in turn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from caffe_models.layer import layer_types
from caffe_models.schema import DEFAULT_DIALECT, DIALECTS, message_names, message_spec
from caffe_models.text_tokens import NAME, SIGN, TEXT, Token, tokenize

MKL_ENGINES = ("MKL2017", "MKLDNN")
"""Engines of Intel's and Extended Caffe, as texts and as values of `engine` fields."""

_ORDER = (DEFAULT_DIALECT, *(one for one in DIALECTS if one != DEFAULT_DIALECT))
_DEEPEST = 50
_REPEATED_IN_EXTENDED = ("kernel_size", "stride", "pad")


@dataclass(frozen=True)
class Detection:
    """The dialect a text is taken for, why, and all dialects with the likeliest first."""

    dialect: str
    reason: str
    order: tuple[str, ...]
    possible: frozenset[str]
    """Those that nothing speaks against."""


@dataclass(frozen=True)
class Evidence:
    """Something in a text (or, with line 0, in a binary file) that only some dialects have."""

    line: int
    what: str
    dialects: frozenset[str]


def detect(text: str, source: str = "<text>") -> Detection:
    """The dialect of a prototxt's text (of a net or a solver).

    Raises:
        PrototxtError: the text has characters no prototxt can have.
    """
    return detect_in(tokenize(text, source))


def detect_in(tokens: Iterable[Token]) -> Detection:
    """The same of a text's tokens."""
    return weigh(_evidence(tokens))


def told(dialect: str) -> Detection:
    """A dialect that the caller knows."""
    return Detection(dialect, "as told", (dialect,), frozenset({dialect}))


def weigh(evidence: Iterable[Evidence]) -> Detection:
    """What is left of the dialects after every piece of evidence; a piece that contradicts all before it is left out
    (reading the text will name the field that does not fit)."""
    left, reasons = frozenset(DIALECTS), []
    for one in evidence:
        both = left & one.dialects
        if both and both != left:
            left = both
            where = f"line {one.line}: " if one.line else ""
            reasons.append(f"{where}{one.what} is of {' and '.join(sorted(one.dialects))} only")
    order = tuple(sorted(_ORDER, key=lambda dialect: dialect not in left))
    if not reasons:
        reasons.append("nothing in it belongs to one dialect only")
    if len(left) > 1:
        reasons.append(f"{order[0]} reads all that {' and '.join(sorted(left - {order[0]}))} could mean here")
    return Detection(order[0], "; ".join(reasons), order, left)


def _evidence(tokens: Iterable[Token]) -> Iterator[Evidence]:
    field, around, sizes = "", [""], set[str]()
    for token, after in pairwise(tokens):
        if token.kind == NAME and after.kind == SIGN and after.text in ":{<":
            field = token.text
            if dialects := _of_field().get(field):
                yield Evidence(token.line, field, dialects)
            if around[-1] == "pooling_param" and field in _REPEATED_IN_EXTENDED:
                if field in sizes:
                    yield Evidence(token.line, f"{field} of a pooling given more than once", frozenset({"extended"}))
                sizes.add(field)
        elif token.kind == NAME and token.text in MKL_ENGINES:
            yield Evidence(token.line, f"engine {token.text}", frozenset({"intel", "extended"}))
        elif token.kind == TEXT and field == "engine":
            yield Evidence(token.line, f"engine {token.shown()}", frozenset({"intel", "extended"}))
        elif token.kind == TEXT and field == "type":
            if dialects := types_of_some().get(token.text[1:-1]):
                yield Evidence(token.line, f"layer type {token.shown()}", dialects)
        elif token.kind == SIGN and token.text in "{<":
            if len(around) > _DEEPEST:
                return  # no text of Caffe's; the reader will say so
            around.append(field)
            sizes.clear()
        elif token.kind == SIGN and token.text in "}>" and len(around) > 1:
            around.pop()
        elif token.text == "[" and around[-1] == "pooling_param" and field in _REPEATED_IN_EXTENDED:
            yield Evidence(token.line, f"{field} of a pooling as a list", frozenset({"extended"}))


@cache
def _of_field() -> dict[str, frozenset[str]]:
    """The dialects of each field name that not all of them have."""
    known = {
        dialect: {name for message in message_names(dialect) for name in message_spec(message, dialect).by_name}
        for dialect in DIALECTS
    }
    every = set().union(*known.values())
    found = {name: frozenset(dialect for dialect in DIALECTS if name in known[dialect]) for name in every}
    return {name: dialects for name, dialects in found.items() if len(dialects) < len(DIALECTS)}


@cache
def types_of_some() -> dict[str, frozenset[str]]:
    """The dialects of each layer type that not all of them have."""
    return {
        name: frozenset(layer.dialects) for name, layer in layer_types().items() if set(layer.dialects) != set(DIALECTS)
    }
