"""A solver prototxt, read and checked, and the net it names."""

from dataclasses import dataclass
from pathlib import Path

from caffe_models.errors import PrototxtError
from caffe_models.layer import knows
from caffe_models.lr_policy import POLICIES, LrPolicy
from caffe_models.message import Message
from caffe_models.net import Net
from caffe_models.update_rules import RULES, RuleSettings

NET_FIELDS = ("net", "train_net", "net_param", "train_net_param")
_OLD_TYPES = {name.upper(): name for name in RULES}  # solver_type: NESTEROV and so on


@dataclass(frozen=True)
class SolverSettings:
    """Caffe's SolverParameter, as far as training needs it. The names are Caffe's."""

    type: str
    policy: LrPolicy
    rule: RuleSettings
    weight_decay: float
    regularization_type: str
    clip_gradients: float
    iter_size: int
    max_iter: int
    average_loss: int
    display: int
    snapshot: int
    snapshot_prefix: str
    snapshot_after_train: bool
    snapshot_format: str
    random_seed: int


def read_settings(message: Message) -> SolverSettings:
    """Settings from a SolverParameter.

    Raises:
        PrototxtError: what Caffe refuses, what makes it crash (step without stepsize), what would teach nothing
            (no base_lr); names file and line.
    """
    kind = _kind(message)
    policy = _policy(message)
    momentum, rms_decay = message.get_float("momentum"), message.get_float("rms_decay")
    if kind in ("AdaGrad", "RMSProp") and momentum and message.spec.dialect != "intel":
        raise _error(message, "momentum", f"type {kind} knows no momentum, found {momentum:g}; remove it")
    if not 0 <= rms_decay < 1:
        raise _error(message, "rms_decay", f"rms_decay is {rms_decay:g}; allowed: 0 to less than 1")
    regularization = message.get_str("regularization_type")
    if regularization not in ("L1", "L2"):
        raise _error(message, "regularization_type", f'regularization_type "{regularization}"; allowed: L1, L2')
    for name in ("iter_size", "average_loss"):
        if message.get_int(name) < 1:
            raise _error(message, name, f"{name} is {message.get_int(name)}; allowed: 1 or more")
    if knows(message, "disabled_update") and message.has("disabled_update"):
        raise _error(message, "disabled_update", "disabled_update is not supported; give the layers lr_mult: 0")
    rule = RuleSettings(momentum, message.get_float("momentum2"), rms_decay, message.get_float("delta"))
    return SolverSettings(
        type=kind,
        policy=policy,
        rule=rule,
        weight_decay=message.get_float("weight_decay"),
        regularization_type=regularization,
        clip_gradients=message.get_float("clip_gradients"),
        iter_size=message.get_int("iter_size"),
        max_iter=message.get_int("max_iter"),
        average_loss=message.get_int("average_loss"),
        display=message.get_int("display"),
        snapshot=message.get_int("snapshot"),
        snapshot_prefix=message.get_str("snapshot_prefix") or Path(message.source).stem,
        snapshot_after_train=message.get_bool("snapshot_after_train"),
        snapshot_format=message.get_str("snapshot_format"),
        random_seed=message.get_int("random_seed"),
    )


def beside(message: Message, name: str) -> Path:
    """A file named in the solver: beside it if it is there, else in the working folder."""
    near = Path(message.source).parent / name
    return near if near.exists() or not Path(name).exists() else Path(name)


def read_net(message: Message, dialect: str | None) -> Net:
    """The net that the solver names or holds, in the TRAIN phase and with the level and stages of `train_state`."""
    field = _net_field(message)
    state = message.get_message("train_state")
    level, stages = state.get_int("level"), state.get_strs("stage")
    if field.endswith("_param"):
        return Net.from_message(message.get_message(field), "TRAIN", dialect, None, level, stages)
    path = beside(message, message.get_str(field))
    if not path.exists():
        raise PrototxtError(f"{message.where(field)}: {field}: {path} is not there; paths are relative to the solver")
    return Net.from_prototxt(path, "TRAIN", dialect, None, level, stages)


def _net_field(message: Message) -> str:
    """Which field of NET_FIELDS holds the net to train. Raises PrototxtError unless there is exactly one."""
    given = [name for name in NET_FIELDS if message.has(name)]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise _error(message, given[-1] if given else "", f"found {found}; give exactly one of {', '.join(NET_FIELDS)}")
    return given[0]


def _kind(message: Message) -> str:
    if message.has("solver_type") and not message.has("type"):
        return _OLD_TYPES[message.get_str("solver_type")]
    kind = message.get_str("type")
    if kind not in RULES:
        raise _error(message, "type", f'unknown solver type "{kind}" (known types: {", ".join(sorted(RULES))})')
    return kind


def _policy(message: Message) -> LrPolicy:
    name = message.get_str("lr_policy")
    if name not in POLICIES:
        what = f'unknown lr_policy "{name}"' if name else "lr_policy is missing"
        raise _error(message, "lr_policy", f"{what} (known: {', '.join(POLICIES)})")
    if not message.has("base_lr"):
        raise _error(message, "base_lr", "base_lr is missing; without it nothing is learnt")
    stepsize = message.get_int("stepsize")
    if name == "step" and stepsize < 1:
        raise _error(message, "stepsize", f'lr_policy "step" needs a stepsize of 1 or more, found {stepsize}')
    if name == "poly" and message.get_int("max_iter") < 1:
        raise _error(message, "max_iter", 'lr_policy "poly" needs a max_iter of 1 or more')
    return LrPolicy(
        name=name,
        base_lr=message.get_float("base_lr"),
        gamma=message.get_float("gamma"),
        power=message.get_float("power"),
        stepsize=stepsize,
        stepvalue=message.get_ints("stepvalue"),
        plateau_winsize=message.get_ints("plateau_winsize") if knows(message, "plateau_winsize") else (),
        max_iter=message.get_int("max_iter"),
    )


def _error(message: Message, field: str, text: str) -> PrototxtError:
    return PrototxtError(f"{message.where(field)}: {text}")
