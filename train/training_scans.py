"""The scans of a run: prepared, told apart into those that are trained on and those that are held out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from train import prepare
from train.dataset import TARGET, PreparedScan, load_folder
from train.prepare import Sources
from train.splits import HoldOut, split_for_run

if TYPE_CHECKING:
    from train.distributed import ProcessShare

PHANTOM_SEED = 500
"""Of the first synthetic CT to validate on; those that are trained on begin at 1000."""

Split = tuple[list[PreparedScan], list[PreparedScan]]


def training_scans(
    sources: Sources,
    out: Path,
    hold_out: HoldOut | None,
    patients: Mapping[str, str] | None,
    say: Callable[[str], None],
    *,
    keep: bool = True,
    bar: bool = False,
    share: "ProcessShare | None" = None,
) -> Split:
    """Those to train on, and those held out. Of several processes one prepares, and the others wait for it.

    Args:
        keep: write the split; see `split_for_run`.
        share: this process's place among those that torchrun started.

    Raises:
        DatasetError, StoppedError and others: see `prepare.prepare_all` and `split_for_run`.
    """
    if share is not None and not share.leads:
        share.wait()
        return split_for_run(load_folder(out / "prepared"), hold_out, patients, sources.seed, out, say, keep=False)
    scans = load_folder(prepare.prepare_all(sources, out / "prepared", say, bar=bar))
    found = split_for_run(scans, hold_out, patients, sources.seed, out, say, keep=keep)
    if share is not None:
        share.wait()
    return found


def held_out(
    scans: Sequence[PreparedScan],
    count: int,
    sources: Sources,
    out: Path,
    say: Callable[[str], None],
    *,
    bar: bool = False,
) -> tuple[PreparedScan, ...]:
    """`count` scans to validate on while training: of those held out, chosen by their names' hashes among those with
    nodules first; where none is held out, synthetic CTs that are not trained on, prepared into `OUT/validation`.
    """
    if not count:
        say("no scan is tried while training (--validate-on 0): no best model is kept")
        return ()
    if not scans:
        others = Sources(phantoms=count, phantom_seed=PHANTOM_SEED, workers=sources.workers)
        return tuple(load_folder(prepare.prepare_all(others, out / "validation", say, bar=bar)))

    def rank(scan: PreparedScan) -> tuple[bool, bytes]:
        return not (scan.nodules[:, 4] == TARGET).any(), hashlib.sha256(scan.seriesuid.encode()).digest()

    return tuple(sorted((scan for scan in scans if scan.mining), key=rank)[:count])
