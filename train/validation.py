"""Validation: what the weights of the moment find on whole scans that are not trained on, by LUNA16's measure."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError
from caffe_models.net import Net
from caffe_models.rpn.anchors import ANCHORS_VOXEL
from caffe_models.weights import Weights
from convert.to_onnx import net_to_onnx, save_onnx
from runtime.budget import Budget
from runtime.candidates import Candidates
from runtime.engines.base import Engine, EngineOptions, load_engine
from runtime.findings import sigmoid
from runtime.froc import RATES, FrocResult, evaluate_marks
from runtime.mark_files import Marks, joined
from train.dataset import IGNORE, TARGET, PreparedScan
from train.mine import score

SHARE = 0.05
"""Of a level's time, about, that validations take unless told how often they come."""


@dataclass(frozen=True)
class Validation:
    """On what, and how often.

    Attributes:
        scans: prepared scans that are not trained on; their nodules together are what must be found.
        deploy: prototxt of the net as detection runs it; weights pass to it by layer name.
        every: iterations between two validations; each level ends with one as well. 0: only then; None: so many that
            all of them take about `SHARE` of the time.
        budget: cores and memory that one may take.
        precision: f32 or bf16, where the processor has it.
        anchors: of the net, in voxels.

    Raises:
        Rpn3dError: no scan, or no nodule in any: nothing to measure.
    """

    scans: tuple[PreparedScan, ...]
    deploy: Path
    every: int | None
    budget: Budget
    precision: str = "f32"
    anchors: tuple[float, ...] = ANCHORS_VOXEL

    def __post_init__(self) -> None:
        if not any((scan.nodules[:, 4] == TARGET).any() for scan in self.scans):
            raise Rpn3dError(
                f"validation: the {len(self.scans)} scans given hold no nodule to find; give scans with annotations"
            )

    def interval(self, voxels: int) -> int:
        """Iterations between two validations where one goes through so many voxels, forward and twice that backward."""
        if self.every is not None:
            return self.every
        return math.ceil(sum(math.prod(scan.shape) for scan in self.scans) / (3 * voxels * SHARE))

    @property
    def names(self) -> list[str]:
        """Of the scans."""
        return sorted(scan.seriesuid for scan in self.scans)


@dataclass(frozen=True)
class Score:
    """What came of it; `seconds` it took."""

    froc: FrocResult
    seconds: float

    @property
    def cpm(self) -> float:
        """Mean sensitivity at the seven rates of LUNA16."""
        return self.froc.cpm

    def figures(self) -> dict[str, float]:
        """CPM and the sensitivity at each rate, by name."""
        at = {f"sensitivity_at_{rate:g}": value for rate, value in zip(RATES, self.froc.sensitivities, strict=True)}
        return {"cpm": self.cpm, **at}


def validate(weights: Weights, validation: Validation, stopped: Callable[[], bool] = lambda: False) -> Score | None:
    """Run these weights over the scans as detection does, with OpenVINO.

    Args:
        weights: of the trained net, by layer.
        stopped: asked before each scan.

    Returns:
        None if it was stopped.

    Raises:
        WeightsError: the weights do not fit the deploy net.
        Rpn3dError: the memory allowed is too small for any window.
    """
    start = time.perf_counter()
    engine = engine_of(weights, validation.deploy, validation.precision, validation.budget.cpus)
    found: list[Candidates] = []
    for scan in validation.scans:
        if stopped():
            return None
        found.append(score(scan, engine, validation.budget, anchors=validation.anchors))
        engine.release()
    return Score(froc_of(validation.scans, found), time.perf_counter() - start)


def froc_of(scans: Sequence[PreparedScan], found: Sequence[Candidates]) -> FrocResult:
    """The official evaluation of marks in prepared scans: their voxels are millimetres."""
    marks = [
        _marks(scan, one.centre_voxel, sigmoid(one.logit).astype(np.float64))
        for scan, one in zip(scans, found, strict=True)
    ]
    rows = {kind: [scan.nodules[scan.nodules[:, 4] == kind] for scan in scans] for kind in (TARGET, IGNORE)}
    nodules, ignored = (
        joined([_marks(scan, own[:, :3], own[:, 3]) for scan, own in zip(scans, rows[kind], strict=True)], "validation")
        for kind in (TARGET, IGNORE)
    )
    return evaluate_marks(joined(marks, "validation"), nodules, ignored, [scan.seriesuid for scan in scans])


def draw_froc(froc: FrocResult) -> NDArray[np.uint8]:
    """The curve, (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates = np.geomspace(RATES[0], RATES[-1], 200)
    axes.plot(rates, np.interp(rates, froc.fps_per_scan, froc.sensitivity))
    axes.plot(RATES, froc.sensitivities, "o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set_ylim(0, 1)
    axes.grid(True, alpha=0.3)
    axes.set_xlabel("false positives per scan")
    axes.set_ylabel("sensitivity")
    counts = froc.counts
    axes.set_title(f"CPM {froc.cpm:.3f}, {counts['nodules']} nodules in {counts['scans']} scans")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def engine_of(weights: Weights, deploy: Path, precision: str, cpus: int) -> Engine:
    """OpenVINO with these weights in the net of `deploy`, to which they pass by layer name.

    Raises:
        WeightsError: the weights do not fit the net.
    """
    net = Net.from_prototxt(deploy)
    wanted = {layer.spec.name for layer in net.layers}
    net.load({name: blobs for name, blobs in weights.items() if name in wanted}, str(deploy), strict=True)
    with tempfile.TemporaryDirectory(prefix="rpn3d-") as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(net_to_onnx(net), path)
        return load_engine("openvino", path, EngineOptions(precision=precision, threads=cpus))


def _marks(scan: PreparedScan, centres: NDArray[np.float32], values: NDArray[np.floating]) -> Marks:
    xyz = centres[:, ::-1].astype(np.float64)
    return Marks((scan.seriesuid,) * len(xyz), xyz, values.astype(np.float64), scan.seriesuid)
