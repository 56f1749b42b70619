"""Hard mining: what a model gets wrong on the scans it is trained on.

The model of one level scores the prepared scans as detection does (windows, decoding, NMS); its false positives and the
nodules it ranks low are what the next level draws its crops from. The team of Tianchi 2017 trained in three such levels
and reported +0.05 FROC for the second and +0.02 for the third.

A mining is a folder: `mining.json` says which model it is of, `<seriesuid>.csv` holds one scan, written whole, so that
a stopped mining goes on where it was.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_models.atomic import replacing
from caffe_models.rpn import boxes
from caffe_models.rpn.anchors import ANCHORS_VOXEL
from runtime.budget import Budget
from runtime.candidates import LEAST_LOGIT, Candidates, decode, nms
from runtime.engines.base import Engine
from runtime.findings import sigmoid
from runtime.outputs import safe_name
from runtime.plan import DEFAULT_MARGIN, plan_windows
from runtime.tiling import run_windows
from train.dataset import TARGET, DatasetError, PreparedScan

MOST_FALSE = 60
"""False positives kept of one scan: the highest."""

APART_IOU = 0.02
"""A mark that overlaps a nodule this much is neither right nor wrong in training (`targets.TargetRule`)."""

WHOLE = slice(None)
PART_MARGIN = 16
"""Voxels round the slices that are mined, fewer than detection takes: at their edge a mark or two may differ."""

COLUMNS = ("kind", "z", "y", "x", "diameter", "probability")
FALSE_POSITIVE, NODULE = "false_positive", "nodule"


@dataclass(frozen=True)
class Hard:
    """What a model makes of one prepared scan.

    Attributes:
        seriesuid: the scan.
        false_positives: (n, 5) float32: z, y, x, diameter in its voxels, probability; the highest first. None are
            taken from a scan that is not fully annotated.
        nodules: (m, 5) float32: z, y, x, diameter of each target, and the probability of its best mark, 0 if it has
            none. A mark hits as in LUNA16: within the radius.
    """

    seriesuid: str
    false_positives: NDArray[np.float32]
    nodules: NDArray[np.float32]


def score(
    scan: PreparedScan,
    engine: Engine,
    budget: Budget,
    part: slice = WHOLE,
    *,
    anchors: Sequence[float] = ANCHORS_VOXEL,
) -> Candidates:
    """What the detector marks in a prepared scan, or in `part` of its slices, in its voxels.

    Raises:
        Rpn3dError: the memory allowed is too small for any window.
    """
    lung, margin = scan.lung, DEFAULT_MARGIN
    if part != WHOLE:
        whole, lung, margin = lung, np.zeros_like(lung), PART_MARGIN
        lung[part] = whole[part]
    memory, cpus = budget.memory_bytes, budget.cpus
    plan = plan_windows(scan.shape, lung, memory, engine.precision, cpus, engine=engine.name, margin_voxel=margin)
    return nms(decode(run_windows(scan, plan, engine), LEAST_LOGIT, lung=lung, anchors=anchors))


def some_slices(scan: PreparedScan, share: float, seed: int) -> slice:
    """A stack of slices that holds `share` of the scan's height, at a place drawn from the seed and the scan's name."""
    depth = scan.shape[0]
    height = max(1, round(share * depth))
    if height >= depth:
        return WHOLE
    start = int(np.random.default_rng((seed, *scan.seriesuid.encode())).integers(depth - height + 1))
    return slice(start, start + height)


def judge(scan: PreparedScan, marks: Candidates, part: slice = WHOLE) -> Hard:
    """Tell the marks of a scan apart: hits, false positives, and places that count neither way.

    Args:
        part: the slices that were scored; nodules elsewhere are left out.
    """
    centre, diameter = marks.centre_voxel.astype(np.float64), marks.diameter_voxel.astype(np.float64)
    probability = sigmoid(marks.logit)
    rows = scan.nodules.astype(np.float64)
    distance = np.linalg.norm(centre[:, None] - rows[None, :, :3], axis=2)
    hits = distance <= rows[:, 3] / 2
    start, stop, _ = part.indices(scan.shape[0])
    targets = (rows[:, 4] == TARGET) & (rows[:, 0] >= start) & (rows[:, 0] < stop)
    best = np.where(hits, probability[:, None], 0.0).max(axis=0, initial=0.0)
    nodules = np.column_stack([rows[targets, :4], best[targets]])
    apart = ~hits.any(axis=1)
    if len(rows):
        apart &= (boxes.iou(centre, diameter, rows[:, :3], rows[:, 3]) < APART_IOU).all(axis=1)
    false = np.column_stack([centre, diameter, probability])[apart & scan.mining]
    false = false[np.argsort(-false[:, 4], kind="stable")][:MOST_FALSE]
    return Hard(scan.seriesuid, false.astype(np.float32), nodules.astype(np.float32))


def mine(
    scans: Sequence[PreparedScan],
    engine: Engine,
    model_sha256: str,
    budget: Budget,
    folder: Path,
    say: Callable[[str], None],
    *,
    share: float = 1.0,
    seed: int = 1,
) -> Path:
    """Mine all scans into `folder`; those that were mined with this model before are not mined again.

    Args:
        share: of each scan's slices, at a place drawn from `seed`. Of a third of every scan a level learns more than of
            the whole of every third one, in the same time.

    Raises:
        DatasetError: the folder holds the mining of another model.
        Rpn3dError: the memory allowed is too small for any window.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = folder / "mining.json"
    known = {"model_sha256": model_sha256, "precision": engine.precision, "share": share, "seed": seed}
    if head.is_file() and (other := _read_head(head)) != known:
        differ = ", ".join(key for key in known if other.get(key) != known[key])
        raise DatasetError(f"{folder}: was mined with another {differ}; give another folder")
    with replacing(head) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    for number, scan in enumerate(scans, 1):
        path = folder / f"{safe_name(scan.seriesuid)}.csv"
        if path.is_file():
            continue
        part = some_slices(scan, share, seed)
        hard = judge(scan, score(scan, engine, budget, part), part)
        save(hard, path)
        low = int((hard.nodules[:, 4] < 0.5).sum())
        say(
            f"mined {number} of {len(scans)}, {scan.seriesuid}: {len(hard.false_positives)} false positives, "
            f"{low} of {len(hard.nodules)} nodules below 0.5"
        )
    return folder


def save(hard: Hard, path: Path) -> None:
    """Write one scan's examples, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for kind, rows in ((FALSE_POSITIVE, hard.false_positives), (NODULE, hard.nodules)):
            writer.writerows([kind, *(f"{value:.4f}" for value in row)] for row in rows.tolist())


def load(folder: Path, scans: Sequence[PreparedScan]) -> list[Hard]:
    """What was mined of these scans; scans that were not mined are left out.

    Raises:
        DatasetError: the folder is no mining, or one of its files is damaged.
    """
    _read_head(folder / "mining.json")
    found = []
    for scan in scans:
        path = folder / f"{safe_name(scan.seriesuid)}.csv"
        if path.is_file():
            rows = {FALSE_POSITIVE: [], NODULE: []}  # type: dict[str, list[list[float]]]
            for kind, values in _rows(path):
                rows[kind].append(values)
            arrays = [np.asarray(rows[kind], np.float32).reshape(-1, 5) for kind in (FALSE_POSITIVE, NODULE)]
            found.append(Hard(scan.seriesuid, *arrays))
    if not found:
        raise DatasetError(f"{folder}: none of the {len(scans)} scans to train on was mined here")
    return found


def summary(mined: Sequence[Hard]) -> list[str]:
    """What was mined, for a terminal."""
    false = sum(len(one.false_positives) for one in mined)
    nodules = np.concatenate([one.nodules[:, 4] for one in mined])
    return [
        f"{false} false positives of {len(mined)} scans, {int((nodules < 0.5).sum())} of {len(nodules)} nodules below "
        f"0.5, {int((nodules == 0).sum())} without a mark"
    ]


def _rows(path: Path) -> Iterator[tuple[str, list[float]]]:
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        if tuple(next(reader, ())) != COLUMNS:
            raise DatasetError(f"{path}:1: the columns are not {','.join(COLUMNS)}; remove the file and mine again")
        for number, row in enumerate(reader, 2):
            try:
                kind, *texts = row
                values = [float(text) for text in texts]
                if kind not in (FALSE_POSITIVE, NODULE) or len(values) != 5 or not np.isfinite(values).all():
                    raise ValueError
            except ValueError as error:
                raise DatasetError(f"{path}:{number}: not an example; remove the file and mine again") from error
            yield kind, values


def _read_head(path: Path) -> Mapping[str, object]:
    try:
        content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not the head of a mining ({error}); make one with `rpn3d mine`") from error
    return content
