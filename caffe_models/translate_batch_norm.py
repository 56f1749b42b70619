"""BatchNorm with gamma and beta of its own (five blobs, MKL engines) as BatchNorm and Scale, and back."""

from collections.abc import Callable

from caffe_models.layer import knows
from caffe_models.message import Message

STATISTICS = 3
"""Blobs of a BatchNorm before gamma and beta."""

WEIGHTED = ("engine", "use_weight_bias", "bias_term", "filler", "bias_filler")
"""Fields of BatchNormParameter that only gamma and beta need."""

Note = Callable[[str], None]


def engine_of(layer: Message, net: Message) -> str:
    """The engine that decides what a BatchNorm is: the layer's, else the net's, else that of batch_norm_param."""
    for message in (layer, net):
        if knows(message, "engine") and message.get_str("engine"):
            return message.get_str("engine").upper()
    settings = layer.get_message("batch_norm_param")
    return settings.get_str("engine") if knows(settings, "engine") else ""


def split(net: Message, note: Note) -> dict[str, str]:
    """In a modern NetParameter, give every BatchNorm of an MKL engine a Scale behind it, in place; {BatchNorm: Scale}.

    The top keeps its name, so that nothing else in the net changes. Layers of one name (one for TRAIN, one for TEST)
    get Scales of one name, since they share their weights by it.
    """
    layers, made = [], dict[str, str]()
    taken = {layer.get_str("name") for layer in net.get_messages("layer")}
    for layer in net.get_messages("layer"):
        layers.append(layer)
        if layer.get_str("type") != "BatchNorm" or not engine_of(layer, net).startswith("MKL"):
            continue
        settings, name = layer.get_message("batch_norm_param"), layer.get_str("name")
        gamma = settings.get_bool("use_weight_bias")
        if gamma:
            made.setdefault(name, _unique(f"{name}_scale", taken))
            layers.append(_scale(layer, settings, made[name]))
            note(f'layer "{name}" (BatchNorm): gamma and beta become layer "{made[name]}" (Scale)')
        _drop_engine(layer, settings, net)
    net.set("layer", layers)
    return made


def merge(net: Message, note: Note) -> dict[str, str]:
    """In a modern NetParameter of intel or extended, put every Scale that follows a BatchNorm into it (five blobs,
    engine MKL2017); {BatchNorm: Scale}. A pair stays as it is where something else reads the value between them."""
    layers, merged, gone = list(net.get_messages("layer")), dict[str, str](), set[int]()
    for index, norm in enumerate(layers):
        if norm.get_str("type") != "BatchNorm" or engine_of(norm, net).startswith("MKL"):
            continue
        after = next((i for i in range(index + 1, len(layers)) if _top(norm) in layers[i].get_strs("bottom")), None)
        if after is None or not _fits(norm, layers[after], layers[after + 1 :]):
            continue
        scale, name = layers[after], norm.get_str("name")
        if merged.get(name, scale.get_str("name")) != scale.get_str("name"):
            continue
        merged[name] = scale.get_str("name")
        _join(norm, scale)
        gone.add(after)
        note(f'layer "{merged[name]}" (Scale) goes into layer "{name}" (BatchNorm, engine MKL2017)')
    net.set("layer", [layer for index, layer in enumerate(layers) if index not in gone])
    return merged


def give_bias(net: Message, note: Note) -> set[str]:
    """In a modern NetParameter, give every Scale without bias that follows a BatchNorm a bias of zeros, which is not
    learnt; their names. Intel Caffe dies when it folds such a Scale."""
    makers, given = dict[str, str](), set[str]()
    for layer in net.get_messages("layer"):
        bottoms, name = layer.get_strs("bottom"), layer.get_str("name")
        alone = layer.get_str("type") == "Scale" and len(bottoms) == 1 and makers.get(bottoms[0]) == "BatchNorm"
        if alone and not layer.get_message("scale_param").get_bool("bias_term"):
            settings = layer.get_message("scale_param") if layer.has("scale_param") else layer.new("scale_param")
            settings.set("bias_term", True)
            settings.clear("bias_filler")
            while len(layer.get_messages("param")) < 1:
                layer.new("param")
            fixed = layer.new("param")
            fixed.set("lr_mult", 0.0)
            fixed.set("decay_mult", 0.0)
            given.add(name)
            note(f'layer "{name}" (Scale): gets a bias of zeros, without which Intel Caffe crashes')
        makers.update(dict.fromkeys(layer.get_strs("top"), layer.get_str("type")))
    return given


def _scale(norm: Message, settings: Message, name: str) -> Message:
    scale = Message(norm.spec, norm.source, norm.line)
    scale.set("name", name)
    scale.set("type", "Scale")
    scale.set("bottom", norm.get("top"))
    scale.set("top", norm.get("top"))
    for rule in ("include", "exclude", "loss_weight"):
        scale.set(rule, norm.get(rule))
    norm.clear("loss_weight")
    if norm.has("phase"):
        scale.set("phase", norm.get("phase"))
    parameter = scale.new("scale_param")
    parameter.set("bias_term", settings.get_bool("bias_term"))
    for filler in ("filler", "bias_filler"):
        if settings.has(filler):
            parameter.set(filler, settings.get_message(filler))
    entries = norm.get_messages("param")
    norm.set("param", entries[:STATISTICS])
    scale.set("param", entries[STATISTICS:])
    return scale


def _drop_engine(norm: Message, settings: Message, net: Message) -> None:
    """Turn a BatchNorm of an MKL engine into one of the CAFFE engine. Those use global statistics in the TEST phase
    whatever use_global_stats says."""
    for name in WEIGHTED:
        settings.clear(name)
    if settings.has("use_global_stats") and not settings.get_bool("use_global_stats"):
        settings.clear("use_global_stats")
    norm.clear("engine")
    if net.get_str("engine"):
        norm.set("engine", "CAFFE")
    if not settings.names():
        norm.clear("batch_norm_param")


def _fits(norm: Message, scale: Message, behind: list[Message]) -> bool:
    """Whether `scale` is the Scale of `norm` and its only reader."""
    top, settings = _top(norm), scale.get_message("scale_param")
    if scale.get_str("type") != "Scale" or scale.get_strs("bottom") != (top,):
        return False
    if settings.get_int("axis") != 1 or settings.get_int("num_axes") != 1:
        return False
    norm_settings = norm.get_message("batch_norm_param")
    if norm_settings.has("use_global_stats") and not norm_settings.get_bool("use_global_stats"):
        return False  # the MKL engines would use global statistics in the TEST phase
    for rule in ("include", "exclude"):
        ours, theirs = norm.get_messages(rule), scale.get_messages(rule)
        if len(ours) != len(theirs) or not all(one.equals(other) for one, other in zip(ours, theirs, strict=True)):
            return False
    shared = any(entry.get_str("name") for entry in (*norm.get_messages("param"), *scale.get_messages("param")))
    in_place = _top(scale) == top
    return not shared and (in_place or not any(top in layer.get_strs("bottom") for layer in behind))


def _join(norm: Message, scale: Message) -> None:
    norm.set("top", scale.get("top"))
    norm.set("engine", "MKL2017")
    norm.set("loss_weight", scale.get("loss_weight"))
    settings = norm.get_message("batch_norm_param") if norm.has("batch_norm_param") else norm.new("batch_norm_param")
    parameter = scale.get_message("scale_param")
    settings.clear("engine")
    if not parameter.get_bool("bias_term"):
        settings.set("bias_term", False)
    for filler in ("filler", "bias_filler"):
        if parameter.has(filler):
            settings.set(filler, parameter.get_message(filler))
    entries = scale.get_messages("param")
    if entries:
        while len(norm.get_messages("param")) < STATISTICS:
            fixed = norm.new("param")
            fixed.set("lr_mult", 0.0)
            fixed.set("decay_mult", 0.0)
        norm.set("param", [*norm.get_messages("param")[:STATISTICS], *entries])


def _top(layer: Message) -> str:
    tops = layer.get_strs("top")
    return tops[0] if tops else ""


def _unique(wish: str, taken: set[str]) -> str:
    name, count = wish, 1
    while name in taken:
        count += 1
        name = f"{wish}_{count}"
    taken.add(name)
    return name
