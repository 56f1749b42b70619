"""A solver prototxt in another dialect: the same training, or a clear refusal."""

from pathlib import Path

from caffe_models.errors import PrototxtError
from caffe_models.message import Message
from caffe_models.solver_nets import NET_FIELDS
from caffe_models.solver_settings import read_settings
from caffe_models.text_format import parse_text, read_text, write_text
from caffe_models.translate_fields import Carrier


def is_solver(path: Path) -> bool:
    """Whether a prototxt reads as a solver and not as a net; False where it reads as neither."""
    try:
        read_text(path, "SolverParameter")
    except PrototxtError:
        return False
    try:
        read_text(path, "NetParameter")
    except PrototxtError:
        return True
    return False


def translate_solver(solver: Message, target: str) -> tuple[Message, str, tuple[str, ...]]:
    """A SolverParameter in the dialect `target`: the message, its text, and what is written differently.

    Raises:
        PrototxtError: a field or a learning rate policy that `target` does not have, a net inside the solver.
    """
    changes = list[str]()
    for field in NET_FIELDS:
        if field.endswith("_param") and solver.has(field):
            raise PrototxtError(
                f"{solver.where(field)}: {field}: put the net into a file of its own and translate that"
            )
    if target == "bvlc" and solver.get_str("lr_policy") == "plateau":
        where = solver.where("lr_policy")
        raise PrototxtError(f'{where}: lr_policy "plateau" cannot be written for bvlc; only intel and extended know it')
    old = solver.copy()
    if old.has("solver_type") and not old.has("type"):
        old.set("type", read_settings(old).type)
        old.clear("solver_type")
        changes.append(f'solver_type is written as type: "{old.get_str("type")}"')
    made = Carrier(solver.spec.dialect, target, changes=changes).message(old, "the solver")
    text = write_text(made)
    again = parse_text(text, "SolverParameter", target, f"{solver.source} in {target}")
    read_settings(again)  # what this dialect alone refuses, such as a momentum for RMSProp
    for field in ("net", "train_net", "test_net"):
        if made.has(field):
            names = made.get(field) if made.field(field).repeated else (made.get(field),)
            changes.append(f"{field} still names {', '.join(names)}: translate it too")
    return again, text, tuple(changes)
