"""The nets of a solver: the one it trains, those it tests, and the weights they share.

Follows BVLC Caffe's `Solver::InitTrainNet`, `InitTestNets` and `Net::ShareTrainedLayersWith`.
"""

from collections.abc import Collection
from pathlib import Path

from caffe_models.errors import PrototxtError
from caffe_models.layer import knows
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.schema import message_spec
from caffe_models.text_format import read_text

NET_FIELDS = ("net", "train_net", "net_param", "train_net_param")


def beside(message: Message, name: str) -> Path:
    """A file named in the solver: beside it if it is there, else in the working folder."""
    near = Path(message.source).parent / name
    return near if near.exists() or not Path(name).exists() else Path(name)


def read_net(message: Message, dialect: str | None) -> Net:
    """The net that the solver names or holds, in the TRAIN phase and with the level and stages of `train_state`.

    Raises:
        PrototxtError: none or several nets are named, the file is missing, or the net is wrong; names file and line.
    """
    return _build(message, _train_field(message), 0, message.get_message("train_state"), "TRAIN", dialect)


def read_test_nets(message: Message, dialect: str | None) -> list[Net]:
    """The nets that the solver tests, in the TEST phase, in Caffe's order: `test_net_param`, `test_net`, and then the
    training net's text for every `test_iter` that is left; each with its `test_state`.

    Raises:
        PrototxtError: as `read_net`.
    """
    own = [(name, index) for name in ("test_net_param", "test_net") for index in range(len(message.get(name)))]
    chosen = own + [(_train_field(message), 0)] * (len(message.get_ints("test_iter")) - len(own))
    states = message.get_messages("test_state") or (_new_state(message),) * len(chosen)
    return [
        _build(message, field, index, state, "TEST", dialect)
        for (field, index), state in zip(chosen, states, strict=True)
    ]


def check_tests(message: Message) -> None:
    """Raises PrototxtError unless `test_iter`, `test_net`, `test_state`, `test_interval` go together as Caffe asks."""
    count = len(message.get_ints("test_iter"))
    own = len(message.get("test_net")) + len(message.get("test_net_param"))
    generic = message.has("net") or message.has("net_param")
    if count < own or (count > own and not generic):
        text = f"{count} test_iter for {own} test nets; allowed: one for each" + (" or more" if generic else "")
        raise PrototxtError(f"{message.where('test_iter')}: {text}")
    states = len(message.get("test_state"))
    if states not in (0, count):
        raise PrototxtError(f"{message.where('test_state')}: {states} test_state for {count} test nets; give one each")
    for index, value in enumerate(message.get_ints("test_iter")):
        if value < 1:
            raise PrototxtError(f"{message.where('test_iter', index)}: test_iter is {value}; allowed: 1 or more")
    if count and message.get_int("test_interval") < 1:
        found = message.get_int("test_interval")
        raise PrototxtError(
            f"{message.where('test_interval')}: test_interval is {found}; with test_iter it must be 1 or more"
        )


def share_weights(test: Net, trained: Net) -> None:
    """Make the layers of `test` hold the very blobs of the layers of that name in `trained`; its others keep theirs.

    Both nets are on torch.

    Raises:
        PrototxtError: a layer of that name has another number of blobs or other shapes.
    """
    held = {layer.spec.name: layer for layer in trained.layers}
    for layer in test.layers:
        other = held.get(layer.spec.name)
        if other is None or not (layer.blobs or other.blobs):
            continue
        mine, theirs = ([tuple(blob.shape) for blob in one.blobs] for one in (layer, other))
        if mine != theirs:
            raise layer.spec.error(
                f"has blobs of shapes {mine} in the test net and {theirs} in the net that is trained; shared by name, "
                "they must be equal"
            )
        layer.blobs[:] = other.blobs


def _new_state(message: Message) -> Message:
    return Message(message_spec("NetState", message.spec.dialect))


def _train_field(message: Message) -> str:
    """Which field of NET_FIELDS holds the net to train. Raises PrototxtError unless there is exactly one."""
    given = [name for name in NET_FIELDS if message.has(name)]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        where = message.where(given[-1] if given else "")
        raise PrototxtError(f"{where}: found {found}; give exactly one of {', '.join(NET_FIELDS)}")
    return given[0]


def _build(message: Message, field: str, index: int, state: Message, phase: str, dialect: str | None) -> Net:
    """A net of the solver; of its state the phase asked for counts least, then what the net says, then `state`."""
    repeated = message.field(field).repeated
    value = message.get(field)[index] if repeated else message.get(field)
    if isinstance(value, Message):
        net = value
    else:
        path = beside(message, str(value))
        if not path.exists():
            where = message.where(field, index)
            raise PrototxtError(f"{where}: {field}: {path} is not there; paths are relative to the solver")
        net = read_text(path, "NetParameter", dialect)
    own = net.get_message("state")
    for said in (own, state):
        phase = said.get_str("phase") if said.has("phase") else phase
    level = state.get_int("level") if state.has("level") else own.get_int("level")
    stages: Collection[str] = state.get_strs("stage")
    if knows(message, "engine") and message.has("engine") and knows(net, "engine"):
        net.set("engine", message.get_str("engine"))  # Intel and Extended Caffe: the solver's word counts
    return Net.from_message(net, phase, dialect, None, level, stages)
