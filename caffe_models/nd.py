"""Settings that stand once or per axis, and the output sizes of sliding windows, for any number of spatial axes."""

from collections.abc import Sequence

from caffe_models.layer import LayerSpec, knows
from caffe_models.message import Message


def read_axes(message: Message, field: str, spec: LayerSpec, short: str | None = None) -> tuple[int, ...]:
    """`field` as a tuple, whether it is repeated, a scalar, absent (empty), or given as `<short>_h`, `<short>_w`.

    Raises:
        PrototxtError: both forms at once, or only one of _h and _w.
    """
    short = short or field
    given = values(message, field)
    height, width = values(message, f"{short}_h"), values(message, f"{short}_w")
    if not height and not width:
        return given
    if given:
        raise spec.error(f"{field} and {short}_h/{short}_w exclude each other", message.line_of(field))
    if short == "kernel" and not (height and width):
        raise spec.error("kernel_h and kernel_w come together", message.line)
    default = 1 if short == "stride" else 0
    return (height or (default,)) + (width or (default,))


def values(message: Message, field: str) -> tuple[int, ...]:
    """The integers in a field, empty if it is unset or unknown in this dialect."""
    if not knows(message, field) or not message.has(field):
        return ()
    found = message.get(field)
    return tuple(int(one) for one in found) if isinstance(found, Sequence) else (int(found),)


def per_axis(given: tuple[int, ...], axes: int, default: int, field: str, spec: LayerSpec) -> tuple[int, ...]:
    """One value for each of `axes` spatial axes.

    Raises:
        PrototxtError: the field stands neither once nor once per axis.
    """
    if not given:
        return (default,) * axes
    if len(given) == 1:
        return given * axes
    if len(given) != axes:
        raise spec.error(
            f"{field} is given {len(given)} times for {axes} spatial axes (_h and _w are for two); give it once or "
            f"{axes} times"
        )
    return given


def convolved(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output of a convolution: floor((in + 2p - (d(k-1)+1)) / s) + 1. Example: 7, k 3, s 2, p 1 -> 4."""
    return (size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1


def deconvolved(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output of a deconvolution: s(in - 1) + d(k-1) + 1 - 2p. Example: 4, k 2, s 2 -> 8."""
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad


def pooled(size: int, kernel: int, stride: int, pad: int, clip: bool, ceil: bool = True) -> int:
    """Output of a pooling: ceil((in + 2p - k) / s) + 1, so 7, k 2, s 2 -> 4 (a convolution would give 3).

    With `clip` (Caffe: as soon as any axis is padded) the last window must start inside the input or its left
    padding: 6, k 2, s 2, p 1 -> 4, its last window starting at 5 = in - 1. `ceil=False` is BVLC's `round_mode: FLOOR`.
    """
    span = size + 2 * pad - kernel
    out = (-(-span // stride) if ceil else span // stride) + 1
    if clip and (out - 1) * stride >= size + pad:
        out -= 1
    return out
