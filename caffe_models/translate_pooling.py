"""Pooling in the words of another dialect.

The dialects agree on what pooling is and differ in how its window is written: "bvlc" has one number for both axes, or
`_h` and `_w`, and two axes only; "intel" has the same in two dimensions, and `kernel_size_3d`, `stride_3d`, `pad_3d` in
three; "extended" gives `kernel_size`, `stride`, `pad` once or once for each axis.
"""

from collections.abc import Callable

from caffe_models.layer import knows
from caffe_models.message import Message
from caffe_models.schema import message_spec

_SIZES = (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad"))
_WRITTEN_ANEW = frozenset(
    name for long, short in _SIZES for name in (long, f"{long}_3d", f"{short}_h", f"{short}_w")
) | {"round_mode", "avg_include_pad", "axis"}


def translate_pooling(
    old: Message,
    target: str,
    rank: int | None,
    mkl: bool,
    note: Callable[[str], None],
    fail: Callable[[str, int], Exception],
) -> Message:
    """A PoolingParameter of dialect `target` with the same meaning.

    Args:
        rank: axes of the bottom; None: not known.
        mkl: whether an MKL engine runs the layer; only they heed avg_include_pad.
        note: told what is written differently.
        fail: makes the error from a text and a line.

    Raises:
        PrototxtError: `target` cannot express it, or `rank` would have to be known.
    """
    made = Message(message_spec("PoolingParameter", target), old.source, old.line)
    for name in old.names():
        if name in _WRITTEN_ANEW:
            continue
        if name == "engine" and old.get_str(name) not in made.field(name).enum:
            note(f"engine {old.get_str(name)} is dropped")
        else:
            made.set(name, old.get(name), old.line_of(name))
    _rounding(old, made, target, fail)
    _padding_counts(old, made, target, mkl, note, fail)
    _axis(old, made, target, fail)
    sizes = {name: read_size(old, name, short) for name, short in _SIZES}
    rank = rank or _rank_by_sizes(sizes)
    if rank == 5 and target == "bvlc":
        raise fail("bvlc Caffe has no pooling in three dimensions; translate to intel or extended", old.line)
    if target == "intel" and rank is None and any(sizes.values()):
        raise fail(
            "intel Caffe writes pooling of two and of three dimensions differently, and the shape of the bottom is not "
            "known: give the net an Input layer with a shape",
            old.line,
        )
    for name, short in _SIZES:
        before = [one for one in (name, f"{name}_3d", f"{short}_h", f"{short}_w") if knows(old, one) and old.has(one)]
        after = _write_size(made, name, short, sizes[name], rank, old.line_of(before[0]) if before else old.line)
        if before != after:
            numbers = " ".join(map(str, sizes[name]))
            note(f"{' and '.join(before)} {numbers} is written as {' and '.join(after)}")
    return made


def read_size(message: Message, name: str, short: str) -> tuple[int, ...]:
    """`name` of a PoolingParameter in whichever form it is given: empty, one number, or one for each axis."""
    if knows(message, f"{name}_3d") and message.has(f"{name}_3d"):
        return message.get_ints(f"{name}_3d")
    if message.has(name):
        return message.get_ints(name) if message.field(name).repeated else (message.get_int(name),)
    pair = f"{short}_h", f"{short}_w"
    if any(message.has(one) for one in pair):
        return tuple(message.get_int(one) for one in pair)
    return ()


def _rank_by_sizes(sizes: dict[str, tuple[int, ...]]) -> int | None:
    """Axes of the bottom, where a size is given for each."""
    return next((2 + len(values) for values in sizes.values() if len(values) > 1), None)


def _write_size(
    message: Message, name: str, short: str, values: tuple[int, ...], rank: int | None, line: int
) -> list[str]:
    """Write a size as the message's dialect does; the fields that were set."""
    if not values:
        return []
    if rank == 5 and knows(message, f"{name}_3d"):
        name = f"{name}_3d"
    if message.field(name).repeated and not (len(values) == 2 and rank == 4):
        for value in values:
            message.add(name, value, line)
        return [name]
    if len(set(values)) == 1:
        message.set(name, [values[0]] if message.field(name).repeated else values[0], line)
        return [name]
    pair = [f"{short}_h", f"{short}_w"]
    for one, value in zip(pair, values, strict=True):
        message.set(one, value, line)
    return pair


def _axis(old: Message, made: Message, target: str, fail: Callable[[str, int], Exception]) -> None:
    if not knows(old, "axis") or not old.has("axis"):
        return
    if knows(made, "axis"):
        made.set("axis", old.get_int("axis"))
    elif old.get_int("axis") != 1:
        raise fail(f"axis {old.get_int('axis')} cannot be written for {target}, where it is 1", old.line_of("axis"))


def _rounding(old: Message, made: Message, target: str, fail: Callable[[str, int], Exception]) -> None:
    if not knows(old, "round_mode") or not old.has("round_mode"):
        return
    if knows(made, "round_mode"):
        made.set("round_mode", old.get_str("round_mode"))
    elif old.get_str("round_mode") != "CEIL":
        raise fail(
            f"round_mode FLOOR cannot be written for {target}, whose pooling rounds up; remove it if sizes divide",
            old.line_of("round_mode"),
        )


def _padding_counts(
    old: Message,
    made: Message,
    target: str,
    mkl: bool,
    note: Callable[[str], None],
    fail: Callable[[str, int], Exception],
) -> None:
    """avg_include_pad: whether zeros of the padding count in an average."""
    if not knows(old, "avg_include_pad") or not old.has("avg_include_pad"):
        return
    if knows(made, "avg_include_pad"):
        made.set("avg_include_pad", old.get_bool("avg_include_pad"))
    elif (
        mkl
        and not old.get_bool("avg_include_pad")
        and old.get_str("pool") == "AVE"
        and any(read_size(old, "pad", "pad"))
    ):
        raise fail(
            f"avg_include_pad: false cannot be written for {target}, which counts the padding",
            old.line_of("avg_include_pad"),
        )
    else:
        note("avg_include_pad, which changes nothing here, is dropped")
