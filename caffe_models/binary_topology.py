"""The net inside a `.caffemodel`: which dialect wrote it, and how it reads.

A caffemodel holds the layers it was saved from, and the dialects write them with different field numbers: a pooling
with kernel 3 and stride 2 of Extended Caffe is one of stride 3 and pad 2 in BVLC's schema. Which dialect it was shows
in fields that only some have, and in poolings, of which only one reading makes sense: a kernel must be there, and pad
must be smaller than it, as all three Caffes check. Two dimensions in the words of bvlc and intel are the same bytes.
"""

import os
from collections.abc import Iterator

from caffe_models.binary_files import read_binary
from caffe_models.dialects import Detection, Evidence, types_of_some, weigh
from caffe_models.errors import WeightsError
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.schema import message_spec
from caffe_models.translate_pooling import read_size
from caffe_models.weights_hdf5 import SIGNATURE
from caffe_models.wire import decode

_OTHERS = frozenset({"intel", "extended"})
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_SHORT = (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad"))


def detect_binary(path: str | os.PathLike[str]) -> Detection:
    """The dialect a `.caffemodel` was written in; `possible` are those that nothing speaks against.

    Raises:
        WeightsError: not a caffemodel, or HDF5, which holds no layers but their weights.
    """
    return _detect(*_read(path))


def read_topology(path: str | os.PathLike[str], dialect: str | None = None) -> Message:
    """The NetParameter in a `.caffemodel`, without blobs, and without the phase it was saved in, which Caffe writes
    into every layer. `dialect` None: found out, see `detect_binary`.

    Raises:
        WeightsError: as `detect_binary`; or no layer is connected; or nothing decides between two readings.
    """
    source, data = _read(path)
    found = _detect(source, data)
    chosen = dialect or found.dialect
    net = _decoded(source, data, chosen)
    layers = net.get_messages("layer") or net.get_messages("layers")
    if not any(layer.has("top") for layer in layers):
        raise WeightsError(f"{source}: holds weights, but not how its layers are connected; the prototxt is needed")
    poolings = any(layer.has("pooling_param") for layer in layers)
    if dialect is None and poolings and "extended" in found.possible and len(found.possible) > 1:
        raise WeightsError(f"{source}: its poolings could be of {' or '.join(sorted(found.possible))}; say --dialect")
    for layer in net.get_messages("layer"):
        layer.clear("phase")
    net.dialect_reason = "as told" if dialect else found.reason
    return net


def differences(net: Net, path: str | os.PathLike[str]) -> list[str]:
    """Where the layers that a `.caffemodel` was saved from differ from those of `net`: sentences for warnings.

    Compared are the dialect, where both sides are sure, and the windows of convolutions and poolings of one name. HDF5
    files hold nothing to compare, nor do layers saved as name, type and blobs alone (as ours are); what cannot be read
    (fields of yet another fork) is left alone.
    """
    source, data = _read(path, hdf5=True)
    if not data:
        return []
    try:
        found = _detect(source, data)
        topology = _decoded(source, data, found.dialect)
    except WeightsError:
        return []
    texts = list[str]()
    if net.dialect != "extended" and net.dialect not in found.possible:  # an ambiguous text is taken for extended
        texts.append(
            f"{source}: was saved by another Caffe ({found.reason}) than {net.dialect}, as which the net is read"
        )
    stored = {layer.get_str("name"): layer for layer in topology.get_messages("layer") if layer.has(_parameter(layer))}
    for layer in net.layers:
        other = stored.get(layer.spec.name)
        if other is None or other.get_str("type") != layer.spec.type:
            continue
        sure = layer.spec.type in _CONVOLUTIONS or not ("extended" in found.possible and len(found.possible) > 1)
        ours, theirs = _windows(layer.spec.message), _windows(other)
        if sure and ours != theirs:
            what = ", ".join(
                f"{name} {_shown(ours[name])} here, {_shown(theirs[name])} there"
                for name in ours
                if ours[name] != theirs[name]
            )
            texts.append(
                f'{source}: layer "{layer.spec.name}" was saved from another layer than that of {net.name}: {what}'
            )
    return texts


def _read(path: str | os.PathLike[str], hdf5: bool = False) -> tuple[str, bytes]:
    source, data = os.fspath(path), read_binary(path, ".caffemodel")
    if data.startswith(SIGNATURE):
        if hdf5:
            return source, b""
        raise WeightsError(f"{source}: HDF5 holds weights, but not how layers are connected; the prototxt is needed")
    return source, data


def _detect(source: str, data: bytes) -> Detection:
    return weigh(_evidence(_decoded(source, data, "extended"), _decoded(source, data, "intel")))


def _decoded(source: str, data: bytes, dialect: str) -> Message:
    keep = {
        name: [one for one in message_spec(name, dialect).by_name if one != "blobs"]
        for name in ("LayerParameter", "V1LayerParameter", "V0LayerParameter")
    }
    return decode(data, "NetParameter", dialect, source, keep)


def _evidence(extended: Message, intel: Message) -> Iterator[Evidence]:
    """From one net, read by two schemas (which agree on all but pooling)."""
    if extended.get_str("engine"):
        yield Evidence(0, "an engine of the net", _OTHERS)
    for one, other in zip(extended.get_messages("layer"), intel.get_messages("layer"), strict=True):
        name, kind = f'of layer "{one.get_str("name")}"', one.get_str("type")
        if one.get_str("engine"):
            yield Evidence(0, f"the engine {name}", _OTHERS)
        if dialects := types_of_some().get(kind):
            yield Evidence(0, f"the type {name}, {kind},", dialects)
        settings = one.get_message("batch_norm_param")
        if any(settings.has(field) for field in ("engine", "use_weight_bias", "bias_term", "filler", "bias_filler")):
            yield Evidence(0, f"gamma and beta {name}", _OTHERS)
        if one.has("pooling_param"):
            dialects = _of_pooling(one.get_message("pooling_param"), other.get_message("pooling_param"))
            if dialects:
                yield Evidence(0, f"the pooling {name}", dialects)


def _of_pooling(extended: Message, intel: Message) -> frozenset[str]:
    """The dialects in which a pooling makes sense; empty for one that makes none."""
    if any(intel.has(f"{name}_3d") for name in ("kernel_size", "stride", "pad")):
        return frozenset({"intel"})
    if any(len(extended.get_ints(name)) > 1 for name in ("kernel_size", "stride", "pad")):
        return frozenset({"extended"})
    found = {"extended"} if _makes_sense(extended) else set[str]()
    return frozenset(found | {"bvlc", "intel"} if _makes_sense(intel) else found)


def _makes_sense(pooling: Message) -> bool:
    kernel, stride, pad = (read_size(pooling, name, short) for name, short in _SHORT)
    if pooling.get_bool("global_pooling"):
        return not kernel and not any(pad) and all(one == 1 for one in stride)
    if not kernel or min(kernel) < 1 or (stride and min(stride) < 1):
        return False
    longest = max(len(kernel), len(pad))
    wide = (one * longest if len(one) == 1 else one for one in (kernel, pad or (0,)))
    return all(p < k for k, p in zip(*wide, strict=True))


def _parameter(layer: Message) -> str:
    return "pooling_param" if layer.get_str("type") == "Pooling" else "convolution_param"


def _windows(layer: Message) -> dict[str, tuple[int, ...]]:
    """kernel, stride and pad of a convolution or pooling; one number where all axes have the same."""
    parameter = layer.get_message(_parameter(layer))
    found = {}
    for (name, short), default in zip(_SHORT, ((), (1,), (0,)), strict=True):
        sizes = read_size(parameter, name, short) or default
        found[name] = sizes[:1] if len(set(sizes)) == 1 else sizes
    if layer.get_str("type") == "Pooling":
        found["pool"] = (parameter.field("pool").enum[parameter.get_str("pool")],)
    return found


def _shown(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes)) or "none"
