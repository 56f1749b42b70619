"""Older forms of a net's text and binary file, turned into the modern one: V0 and V1 layers, `input` fields.

Follows Caffe's `UpgradeNetAsNeeded`. V1 (2014): `layers { name: "c" type: CONVOLUTION ... }`. V0 (2013):
`layers { layer { name: "c" type: "conv" kernelsize: 3 ... } bottom: ... top: ... }`, all settings in one message, and
padding as a layer of its own before a convolution or pooling.
"""

from collections.abc import Iterable, Sequence

from caffe_models.errors import PrototxtError
from caffe_models.layer import knows
from caffe_models.message import Message
from caffe_models.schema import message_spec

V1_NAMES = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

V0_TYPES = {
    "accuracy": ("Accuracy", ""),
    "bnll": ("BNLL", ""),
    "concat": ("Concat", "concat_param"),
    "conv": ("Convolution", "convolution_param"),
    "data": ("Data", "data_param"),
    "dropout": ("Dropout", "dropout_param"),
    "euclidean_loss": ("EuclideanLoss", ""),
    "flatten": ("Flatten", ""),
    "hdf5_data": ("HDF5Data", "hdf5_data_param"),
    "hdf5_output": ("HDF5Output", "hdf5_output_param"),
    "im2col": ("Im2col", "convolution_param"),
    "images": ("ImageData", "image_data_param"),
    "infogain_loss": ("InfogainLoss", "infogain_loss_param"),
    "innerproduct": ("InnerProduct", "inner_product_param"),
    "lrn": ("LRN", "lrn_param"),
    "multinomial_logistic_loss": ("MultinomialLogisticLoss", ""),
    "pool": ("Pooling", "pooling_param"),
    "relu": ("ReLU", ""),
    "sigmoid": ("Sigmoid", ""),
    "softmax": ("Softmax", ""),
    "softmax_loss": ("SoftmaxWithLoss", ""),
    "split": ("Split", ""),
    "tanh": ("TanH", ""),
    "window_data": ("WindowData", "window_data_param"),
}
"""V0 type -> modern type, and the message that holds its settings today."""

_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
}
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_V0_OWN = ("name", "type", "blobs", "blobs_lr", "weight_decay")
_DATA_PARAMS = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def is_legacy(net: Message) -> bool:
    """Whether a NetParameter has V0 or V1 layers, or `input` fields in place of an Input layer."""
    return net.has("layers") or net.has("input")


def modern_net(net: Message) -> Message:
    """A NetParameter as a new one of the same dialect, with `layer` entries only; may share parts with `net`.

    Raises:
        PrototxtError: as `modern_layers`.
    """
    made = Message(net.spec, net.source, net.line)
    made.dialect_reason = net.dialect_reason
    for name in net.names():
        if name not in ("layer", "layers", "input", "input_shape", "input_dim"):
            made.set(name, net.get(name), net.line_of(name))
    made.set("layer", modern_layers(net))
    return made


def modern_layers(net: Message) -> list[Message]:
    """All layers of a NetParameter as LayerParameters of its dialect, an Input layer for `input` fields in front.

    Raises:
        PrototxtError: both `layer` and V1 `layers`, V0 among V1 layers, an unknown type, a setting that does not belong
            to the V0 type, a padding layer before something else than a convolution or pooling, an input without a
            shape; names file and line.
    """
    modern, old = net.get_messages("layer"), net.get_messages("layers")
    if modern and old:
        line = net.line_of("layers")
        raise PrototxtError(f"{net.source}:{line}: the net has both `layer` and V1 `layers`; use one of the two forms")
    if any(layer.has("layer") for layer in old):
        layers = _from_v0(net, old)
    else:
        layers = [_from_v1(layer) for layer in old] or list(modern)
    return [*_input_layer(net), *layers]


def _input_layer(net: Message) -> list[Message]:
    """An Input layer for `input: "data"` with `input_shape {}` or four `input_dim` per input; empty without them."""
    names = net.get_strs("input")
    if not names:
        return []
    shapes, sizes = net.get_messages("input_shape"), net.get_ints("input_dim")
    line = net.line_of("input")
    if len(shapes) != len(names) and len(sizes) != 4 * len(names):
        raise PrototxtError(
            f"{net.source}:{line}: {len(names)} input, {len(shapes)} input_shape and {len(sizes)} input_dim; "
            "give each input one input_shape or four input_dim"
        )
    layer = _layer(net, line)
    layer.set("name", "input")
    layer.set("type", "Input")
    parameter = layer.new("input_param")
    for index, name in enumerate(names):
        layer.add("top", name)
        extents = shapes[index].get_ints("dim") if shapes else sizes[4 * index : 4 * index + 4]
        parameter.new("shape").set("dim", extents)
    return [layer]


def _from_v1(old: Message) -> Message:
    """A V1LayerParameter as LayerParameter: type names, `blobs_lr` and `weight_decay` as `param {}` entries."""
    kind = old.get_str("type")
    if kind not in V1_NAMES:
        raise PrototxtError(f"{old.where()}: V1 layer type {kind} is not known (known: {', '.join(V1_NAMES)})")
    layer = _layer(old, old.line)
    layer.set("type", V1_NAMES[kind])
    for field in old.spec.fields:
        if field.name in ("type", "param", "blobs_lr", "weight_decay", "blob_share_mode", "layer"):
            continue
        if old.has(field.name) and knows(layer, field.name):
            layer.set(field.name, old.get(field.name), old.line_of(field.name))
    _add_params(layer, old, old.get_strs("param"), old.get_strs("blob_share_mode"))
    _move_transformation(layer)
    return layer


def _from_v0(net: Message, connections: Sequence[Message]) -> list[Message]:
    """V0 layers, without those of type padding, whose `pad` goes into the layer that reads them."""
    padding: dict[str, Message] = {}  # blob -> the padding layer that makes it, at this point of the text
    layers = []
    for connection in connections:
        if not connection.has("layer"):
            raise PrototxtError(
                f"{connection.where()}: a V1 layer among V0 layers (layers {{ layer {{ }} }}); use one form"
            )
        old = connection.get_message("layer")
        bottoms = connection.get_strs("bottom")
        read = [padding[bottom] for bottom in bottoms if bottom in padding]
        if old.get_str("type") == "padding":
            if len(bottoms) != 1 or len(connection.get("top")) != 1 or read:
                raise _v0_error(old, "takes one bottom that is not padded already, and one top")
            padding[connection.get_strs("top")[0]] = connection
            continue
        for top in connection.get_strs("top"):
            padding.pop(top, None)
        layer = _v0_layer(connection)
        if read:
            if old.get_str("type") not in ("conv", "pool") or len(bottoms) != 1:
                raise _v0_error(old, "reads a padding layer; only conv and pool with one bottom may")
            layer.set("bottom", read[0].get_strs("bottom"))
            pad = read[0].get_message("layer").get_int("pad")
            _set(layer.get_message(V0_TYPES[old.get_str("type")][1]), "pad", pad)
        layers.append(layer)
    return layers


def _v0_layer(connection: Message) -> Message:
    old = connection.get_message("layer")
    kind = old.get_str("type")
    if kind not in V0_TYPES:
        raise _v0_error(old, f"unknown V0 type (known: {', '.join((*V0_TYPES, 'padding'))})")
    layer = _layer(old, connection.line)
    modern, inner = V0_TYPES[kind]
    layer.set("name", old.get_str("name"), old.line_of("name"))
    layer.set("type", modern)
    for name in ("bottom", "top"):
        layer.set(name, connection.get(name))
    if old.has("blobs"):
        layer.set("blobs", old.get("blobs"))
    _add_params(layer, old)
    settings = layer.new(inner) if inner else None
    for name in old.names():
        if name in _V0_OWN:
            continue
        new = _V0_RENAMED.get(name, name)
        if name in _V0_TRANSFORM:
            target = (
                layer.get_message("transform_param") if layer.has("transform_param") else layer.new("transform_param")
            )
            _set(target, _V0_TRANSFORM[name], old.get(name), old.line_of(name))
        elif name == "hdf5_output_param" and name == inner:
            settings = old.get_message(name)  # the one message that V0 holds as it is today
            layer.set(name, settings)
        elif settings is not None and knows(settings, new):
            _set(settings, new, old.get(name), old.line_of(name))
        else:
            raise _v0_error(old, f"has {name}, which a layer of this type does not take; remove it", old.line_of(name))
    if settings is not None and not settings.names():
        layer.clear(inner)
    return layer


def _v0_error(old: Message, text: str, line: int = 0) -> PrototxtError:
    where = f"{old.source}:{line}" if line else old.where()
    return PrototxtError(f'{where}: layer "{old.get_str("name")}" ({old.get_str("type")}): {text}')


def _set(message: Message, name: str, value: object, line: int = 0) -> None:
    """Set a field that may be repeated in this dialect; a scalar where it was one in V0."""
    message.set(name, [value] if message.field(name).repeated else value, line)


def _add_params(layer: Message, old: Message, names: Sequence[str] = (), modes: Sequence[str] = ()) -> None:
    """`param {}` entries for `blobs_lr`, `weight_decay`, and V1's names of shared blobs."""
    rates, decays = old.get_floats("blobs_lr"), old.get_floats("weight_decay")
    parts: tuple[tuple[str, Iterable[object]], ...] = (
        ("name", names),
        ("share_mode", modes),
        ("lr_mult", rates),
        ("decay_mult", decays),
    )
    entries = [layer.new("param") for _ in range(max(len(names), len(modes), len(rates), len(decays)))]
    for field, values in parts:
        for entry, value in zip(entries, values, strict=False):
            entry.set(field, value)


def _move_transformation(layer: Message) -> None:
    """scale, mean_file, crop_size and mirror of a V1 data layer go into `transform_param`, where they live today."""
    inner = _DATA_PARAMS.get(layer.get_str("type"))
    if inner is None or not layer.has(inner):
        return
    settings = layer.get_message(inner)
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if settings.has(name):
            target = (
                layer.get_message("transform_param") if layer.has("transform_param") else layer.new("transform_param")
            )
            target.set(name, settings.get(name), settings.line_of(name))
            settings.clear(name)


def _layer(like: Message, line: int) -> Message:
    return Message(message_spec("LayerParameter", like.spec.dialect), source=like.source, line=line)
