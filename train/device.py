"""Where a net is trained: on the CPU, or on a GPU that PyTorch's CUDA knows."""

from pathlib import Path

from caffe_models.errors import Rpn3dError
from caffe_models.net import Net
from caffe_models.solver_nets import read_net
from caffe_models.text_format import read_text

DEVICES = ("auto", "cpu", "cuda")


def choose_device(wanted: str, processes: int = 1) -> str:
    """cpu or cuda: as wanted; auto: a GPU where there is one and a single process trains.

    Raises:
        Rpn3dError: no such device, no GPU here, or several processes for one.
    """
    import torch

    if wanted not in DEVICES:
        raise Rpn3dError(f'--device "{wanted}" is not known; allowed: {", ".join(DEVICES)}')
    if wanted == "cpu" or (wanted == "auto" and (processes > 1 or not torch.cuda.is_available())):
        return "cpu"
    if not torch.cuda.is_available():
        raise Rpn3dError(
            f"--device cuda: PyTorch {torch.__version__} sees no GPU; install a build with CUDA and its driver, or "
            "train with --device cpu"
        )
    if processes > 1:
        raise Rpn3dError(f"--processes {processes} share the batch on CPUs alone; give --device cpu or one process")
    return "cuda"


def net_on(device: str, solver: Path, seed: int) -> Net:
    """A solver's train net, filled by its fillers, on a device."""
    net = read_net(read_text(solver, "SolverParameter"), None)
    net.fill(seed)
    return net.to_torch(device, channels_last=True)
