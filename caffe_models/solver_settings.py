"""A solver prototxt, read and checked."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from caffe_models.errors import PrototxtError, warn
from caffe_models.layer import knows
from caffe_models.lr_policy import POLICIES, LrPolicy
from caffe_models.message import Message
from caffe_models.solver_nets import check_tests
from caffe_models.update_rules import RULES, RuleSettings

_NO_RATE = "the rate falls to 0"
_NEEDED: dict[str, dict[str, str]] = {
    "gamma": {"step": _NO_RATE, "exp": _NO_RATE, "multistep": _NO_RATE, "plateau": _NO_RATE},
    "stepvalue": {"multistep": "the rate never falls"},
    "plateau_winsize": {"plateau": "the rate never falls"},
}
"""Fields that Caffe does not miss: field -> policy -> what comes of it."""
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
    test_iter: tuple[int, ...] = ()
    """Forward passes for each test net; as many test nets as there are numbers."""
    test_interval: int = 0
    test_initialization: bool = True
    test_compute_loss: bool = False


def read_settings(message: Message) -> SolverSettings:
    """Settings from a SolverParameter.

    Raises:
        PrototxtError: what Caffe refuses, what makes it crash (step without stepsize), what would teach nothing
            (no base_lr); names file and line.
    """
    kind = _kind(message)
    policy = _policy(message)
    momentum, rms_decay = message.get_float("momentum"), message.get_float("rms_decay")
    _check_rule(message, kind)
    regularization = message.get_str("regularization_type")
    if regularization not in ("L1", "L2"):
        raise _error(message, "regularization_type", f'regularization_type "{regularization}"; allowed: L1, L2')
    for name, least in (("iter_size", 1), ("average_loss", 1), ("snapshot", 0), ("max_iter", 0), ("display", 0)):
        if message.get_int(name) < least:
            raise _error(message, name, f"{name} is {message.get_int(name)}; allowed: {least} or more")
    if knows(message, "disabled_update") and message.has("disabled_update"):
        raise _error(message, "disabled_update", "disabled_update is not supported; give the layers lr_mult: 0")
    if policy.name == "plateau" and message.get_int("average_loss") > 1:
        where = message.where("average_loss")
        warn(f'{where}: a snapshot does not hold the average_loss of lr_policy "plateau"; it starts anew on resume')
    check_tests(message)
    if message.has("test_interval") and not message.has("test_iter"):
        warn(f"{message.where('test_interval')}: test_interval without test_iter: nothing is tested")
    if message.get_bool("snapshot_diff"):
        warn(f"{message.where('snapshot_diff')}: snapshot_diff is passed over: snapshots hold no gradients")
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
        snapshot_prefix=_prefix(message),
        snapshot_after_train=message.get_bool("snapshot_after_train"),
        snapshot_format=message.get_str("snapshot_format"),
        random_seed=message.get_int("random_seed"),
        test_iter=message.get_ints("test_iter"),
        test_interval=message.get_int("test_interval"),
        test_initialization=message.get_bool("test_initialization"),
        test_compute_loss=message.get_bool("test_compute_loss"),
    )


def _prefix(message: Message) -> str:
    """As BVLC Caffe: without `snapshot_prefix` the solver's own path without its suffix; in a folder its name."""
    prefix, solver = message.get_str("snapshot_prefix"), Path(message.source)
    if not prefix:
        return str(solver.with_suffix(""))
    return str(Path(prefix) / solver.stem) if Path(prefix).is_dir() else prefix


def _check_rule(message: Message, kind: str) -> None:
    """Raises PrototxtError for numbers that the update rule cannot work with."""
    momentum, rms_decay = message.get_float("momentum"), message.get_float("rms_decay")
    if kind in ("AdaGrad", "RMSProp") and momentum and message.spec.dialect != "intel":
        raise _error(message, "momentum", f"type {kind} knows no momentum, found {momentum:g}; remove it")
    if kind == "RMSProp" and not 0 <= rms_decay < 1:
        raise _error(message, "rms_decay", f"rms_decay is {rms_decay:g}; allowed: 0 to less than 1")
    averages = {"Adam": ("momentum", "momentum2"), "AdaDelta": ("momentum",)}
    for name in averages.get(kind, ()):
        value = message.get_float(name)  # Caffe takes them and computes with NaN
        if not 0 <= value < 1:
            raise _error(message, name, f"{name} is {value:g}; for type {kind} allowed: 0 to less than 1")
    if kind in ("SGD", "Nesterov") and not 0 <= momentum < 1:
        warn(f"{message.where('momentum')}: momentum is {momentum:g}; outside 0 to less than 1 no training converges")


def _kind(message: Message) -> str:
    if message.has("solver_type") and message.has("type"):
        raise _error(message, "solver_type", "found type and the older solver_type; give one of them")
    if message.has("solver_type"):
        return _OLD_TYPES[message.get_str("solver_type")]
    kind = message.get_str("type")
    if kind not in RULES:
        raise _error(message, "type", f'unknown solver type "{kind}" (known types: {", ".join(sorted(RULES))})')
    return kind


def _policy(message: Message) -> LrPolicy:
    name = message.get_str("lr_policy")
    known = [one for one in POLICIES if one != "plateau" or knows(message, "plateau_winsize")]
    if name not in known:
        what = f'unknown lr_policy "{name}"' if name else "lr_policy is missing"
        raise _error(message, "lr_policy", f"{what} (known: {', '.join(known)})")
    if not message.has("base_lr"):
        raise _error(message, "base_lr", "base_lr is missing; without it nothing is learnt")
    stepsize = message.get_int("stepsize")
    bvlc = message.spec.dialect == "bvlc"
    if stepsize < 1 and (name == "step" or (name == "sigmoid" and bvlc)):
        raise _error(message, "stepsize", f'lr_policy "{name}" needs a stepsize of 1 or more, found {stepsize}')
    if name == "poly" and message.get_int("max_iter") < 1:
        raise _error(message, "max_iter", 'lr_policy "poly" needs a max_iter of 1 or more')
    gamma = message.get_float("gamma")
    if gamma < 0 and name not in ("fixed", "poly") and (bvlc or name != "sigmoid"):
        raise _error(message, "gamma", f'gamma is {gamma:g}; for lr_policy "{name}" allowed: 0 or more')
    for field, policies in _NEEDED.items():
        if name in policies and not message.has(field):
            warn(f'{message.where("lr_policy")}: lr_policy "{name}" without {field}: {policies[name]}')
    values = message.get_ints("stepvalue")
    if name == "multistep" and any(later <= one for one, later in pairwise(values)):
        warn(f"{message.where('stepvalue')}: the stepvalues {values} do not rise: at most one is taken an iteration")
    return LrPolicy(
        name=name,
        base_lr=message.get_float("base_lr"),
        gamma=gamma,
        power=message.get_float("power"),
        stepsize=stepsize,
        stepvalue=values,
        plateau_winsize=message.get_ints("plateau_winsize") if knows(message, "plateau_winsize") else (),
        max_iter=message.get_int("max_iter"),
    )


def _error(message: Message, field: str, text: str) -> PrototxtError:
    return PrototxtError(f"{message.where(field)}: {text}")
