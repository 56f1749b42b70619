"""Which model a command runs: the file for a precision, and what `--precision auto` stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands.options import NET, WEIGHTS


@dataclass(frozen=True)
class ChosenModel:
    """A model to load.

    Attributes:
        file: the IR or ONNX file.
        precision: to ask the engine for.
        why: why this precision; "" where the user named it, or a single file that leaves no choice.
        faster: precision and file of each that is faster, but not proven, the fastest last.
    """

    file: Path
    precision: str
    why: str = ""
    faster: tuple[tuple[str, Path], ...] = ()


def chosen_model(
    model: Path | None,
    precision: str,
    engine: str = "openvino",
    *,
    weights: Path = WEIGHTS,
    say: Callable[[str], None] = lambda text: None,
) -> ChosenModel:
    """The model for what was named with --model and --precision.

    With "auto" the fastest precision that this processor runs well and that is proven for these weights, see
    `runtime.precision`.

    Args:
        model: see `convert.model_file.model_file`; weights: the model that is taken for None.
        engine: engines other than openvino have one file, and so no choice.
        say: told when something is built.

    Raises:
        NetError: nothing there that could be loaded.
        ProofError: the model's proof cannot be read.
    """
    from convert.model_file import model_file, precisions_there
    from runtime.precision import choose, cpu_flags
    from runtime.proof import read_proof

    def file(name: str) -> Path:
        return model_file(model, name, net=NET, weights=weights, say=say)

    proof_file, there = precisions_there(model, weights=weights)
    if precision != "auto" or engine != "openvino" or not there:
        return ChosenModel(file(precision), precision)
    proof = read_proof(proof_file) if proof_file is not None and proof_file.is_file() else None
    choice = choose(cpu_flags(), proof, there)
    # A bf16 file is loaded with "auto": the engine looks whether bf16 really works here, and says so if not.
    return ChosenModel(
        file(choice.precision),
        "auto",
        choice.why,
        tuple((name, file(name)) for name in choice.unproven),
    )
