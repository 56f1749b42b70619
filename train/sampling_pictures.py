"""What a training run is shown, as pictures: sizes of nodules and targets, and a contact sheet of crops.

The crops come from the very source that training draws from, so that what is seen is what is trained on.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from caffe_models.atomic import replacing
from runtime.network_input import STRIDE
from train.crops import Choice, CropSource
from train.dataset import IGNORE, TARGET, PreparedScan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CROPS = 200
SHEET_ROWS, SHEET_COLUMNS = 4, 6
SMALL_MM = 10.0
FRAMES = {"nodule": "tab:green", "random": "tab:gray", "hard": "tab:orange"}


@dataclass(frozen=True)
class Shown:
    """One crop as training gets it.

    Attributes:
        voxels: (z, y, x) grey levels.
        nodules: (n, 5) rows of `CropBatch.nodules` without padding.
        before: diameters of its targets in the scan, in the order of `targets`.
        choice: why it was drawn.
    """

    voxels: NDArray[np.float32]
    nodules: NDArray[np.float32]
    before: NDArray[np.float32]
    choice: Choice

    @property
    def targets(self) -> NDArray[np.float32]:
        """Rows of the nodules that the network is asked for."""
        return np.asarray(self.nodules[self.nodules[:, 4] == TARGET])


@dataclass(frozen=True)
class SamplingReport:
    """What was drawn: the pictures' paths and the shares that the summary states."""

    crops: int
    edge: int
    with_target: float
    small: float
    random: float
    hard: float
    pictures: tuple[Path, ...]

    def __str__(self) -> str:
        hard = f", {self.hard:.0%} round a false positive" if self.hard else ""
        return (
            f"{self.crops} crops of {self.edge} voxels: {self.with_target:.0%} hold a target, {self.small:.0%} of the "
            f"targets are under {SMALL_MM:g} mm, {self.random:.0%} of the crops are drawn anywhere{hard}"
        )


def show_sampling(source: CropSource, folder: Path, crops: int | None = None) -> SamplingReport:
    """Draw `crops` crops from `source` and write `sampling.png` and `crops.png` into `folder`.

    Args:
        source: what training draws from; its first batches are shown.
        folder: where the pictures go; it is made.
        crops: how many to draw; None: 200 of up to 64 voxels, as many voxels of larger ones.
    """
    edge = source.sampling.crop
    count = crops or min(CROPS, max(SHEET_ROWS * SHEET_COLUMNS, CROPS * 64**3 // edge**3))
    shown = list(_draw(source, count))
    after = np.concatenate([one.targets[:, 3] for one in shown])
    folder.mkdir(parents=True, exist_ok=True)
    pictures = (
        _write(draw_sizes(source, shown), folder / "sampling.png"),
        _write(draw_sheet(shown), folder / "crops.png"),
    )
    return SamplingReport(
        crops=count,
        edge=edge,
        with_target=float(np.mean([len(one.targets) > 0 for one in shown])),
        small=float(np.mean(after < SMALL_MM)) if len(after) else 0.0,
        random=float(np.mean([one.choice.kind == "random" for one in shown])),
        hard=float(np.mean([one.choice.kind == "hard" for one in shown])),
        pictures=pictures,
    )


def level_to_show(solvers: Sequence[Path]) -> Path:
    """The level of crop 64, whose crops are large enough to look at and soon drawn, or else the first."""
    return next((solver for solver in solvers if solver.stem == "solver_64"), solvers[0])


def show_level(solver: Path, scans: Sequence[PreparedScan], folder: Path, seed: int) -> SamplingReport:
    """`show_sampling` of the crops that `train.level.train_level` would train on.

    Raises:
        DatasetError, PrototxtError: data or a net that do not fit.
    """
    from caffe_models.solver_nets import read_net
    from caffe_models.text_format import read_text
    from train.level import sampling_of

    source = CropSource(scans, sampling_of(read_net(read_text(solver, "SolverParameter"), None)), seed)
    try:
        return show_sampling(source, folder)
    finally:
        source.close()


def _draw(source: CropSource, count: int) -> Iterator[Shown]:
    """The first `count` crops of a source."""
    for k in range(count):
        iteration, place = divmod(k, source.sampling.batch)
        if place == 0:
            batch, choices = source.draw(iteration), source.chosen(iteration)
        rows = batch.nodules[place]
        rows = rows[rows[:, 4] >= IGNORE]
        before = diameters_in_scan(rows[rows[:, 4] == TARGET], batch.coord[place], source.scans[choices[place].scan])
        yield Shown(batch.data[place, 0] * 128 + 128, rows, before, choices[place])


def diameters_in_scan(
    targets: NDArray[np.float32], coord: NDArray[np.float32], scan: PreparedScan
) -> NDArray[np.float32]:
    """(n,) diameters before augmentation of a crop's target rows (n, 5).

    A crop's `coord` tells where in the scan each of its cells lies: the scan's target nearest to that place is it.
    """
    cells = (targets[:, :3].T - (STRIDE - 1) / 2) / STRIDE
    relative = np.stack([ndimage.map_coordinates(axis, cells, order=1, mode="nearest") for axis in coord], axis=1)
    places = (relative + 0.5) * np.array(scan.shape) - 0.5
    held = scan.nodules[scan.nodules[:, 4] == TARGET]
    distances = np.linalg.norm(places[:, None] - held[None, :, :3], axis=2)
    return np.asarray(held[distances.argmin(axis=1), 3] if len(targets) else np.zeros(0, np.float32))


def draw_sizes(source: CropSource, shown: list[Shown]) -> "Figure":
    """Three histograms of diameters: the data set's, and those of the targets drawn, before and after augmentation."""
    from matplotlib.figure import Figure

    rows = np.concatenate([scan.nodules for scan in source.scans])
    held = rows[rows[:, 4] == TARGET, 3]
    before = np.concatenate([one.before for one in shown])
    after = np.concatenate([one.targets[:, 3] for one in shown])
    drawn = f"targets in {len(shown)} crops of {source.sampling.crop} voxels"
    panels = [
        (f"data set: {len(source.scans)} scans", held),
        (f"{drawn}, before augmentation", before),
        (f"{drawn}, after augmentation", after),
    ]
    bins = np.arange(0, max(40.0, *(float(values.max(initial=0)) for _, values in panels)) + 2, 1.0)
    figure = Figure(figsize=(7, 7), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
        axes.hist(values, bins, color="tab:blue")
        axes.axvline(SMALL_MM, color="black", linestyle=":", linewidth=1)
        small, middle = (np.mean(values < SMALL_MM), np.median(values)) if len(values) else (0.0, 0.0)
        axes.set_title(f"{title}\n{len(values)} nodules, {small:.0%} under 10 mm, median {middle:.1f} mm", fontsize=9)
        axes.set_ylabel("nodules")
        axes.grid(alpha=0.3)
    axes.set_xlabel("diameter (mm; voxels of the crop)")
    return figure


def draw_sheet(shown: list[Shown]) -> "Figure":
    """A contact sheet: crops round nodules, and a few of each other kind, each in the slice through a target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHEET_COLUMNS * 2.1, SHEET_ROWS * 2.35), layout="constrained")
    panels = figure.subplots(SHEET_ROWS, SHEET_COLUMNS)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, one in zip(panels.flat, _choose(shown, SHEET_ROWS * SHEET_COLUMNS), strict=False):
        draw_crop(axes, one)
    figure.suptitle(
        "solid: target, dashed: ignored; frame green: drawn round a nodule, grey: anywhere, orange: false positive"
    )
    return figure


def _choose(shown: list[Shown], places: int) -> list[Shown]:
    """Crops for the sheet: up to a quarter of each kind but nodules, which fill the rest; random ones empty first."""
    by_kind = {kind: [one for one in shown if one.choice.kind == kind] for kind in FRAMES}
    others = by_kind["hard"][: places // 4]
    others += sorted(by_kind["random"], key=lambda one: len(one.targets))[: places // 4]
    return (by_kind["nodule"][: places - len(others)] + others)[:places]


def draw_crop(axes: "Axes", one: Shown) -> None:
    """The slice through the target nearest to the crop's middle, with circles as that slice cuts the nodules.

    Without a target it is the slice of the place that the crop was drawn round; a false positive gets a cross.
    """
    from matplotlib.patches import Circle

    middle = (one.voxels.shape[0] - 1) / 2
    rows = one.targets
    at = one.choice.target
    z = round(float(rows[np.abs(rows[:, :3] - middle).max(axis=1).argmin(), 0] if len(rows) else at[0]))
    axes.imshow(one.voxels[z], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if one.choice.kind == "hard" and abs(at[0] - z) < 3:
        axes.plot(at[2], at[1], "x", color=FRAMES["hard"], markersize=5)
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FRAMES[one.choice.kind], linewidth=2)
    sizes = []
    for row_z, y, x, diameter, kind in one.nodules.tolist():
        square = (diameter / 2) ** 2 - (row_z - z) ** 2
        if square <= 0:
            continue
        style, colour = ("solid", "yellow") if kind == TARGET else ("dashed", "cyan")
        axes.add_patch(Circle((x, y), square**0.5, fill=False, edgecolor=colour, linestyle=style, linewidth=1))
        if kind == TARGET:
            sizes.append(f"{diameter:.0f}")
    axes.set_title(f"{one.choice.kind}{': ' + ', '.join(sizes) + ' mm' if sizes else ''}", fontsize=8)


def _write(figure: "Figure", path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    with replacing(path) as temporary:
        temporary.write_bytes(picture.getvalue())
    return path
