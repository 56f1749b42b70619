"""Prepare what training draws from: annotated scans, lungs to put nodules into, phantoms, copies with nodules put in.

Each prepared scan is a folder that appears whole. What is there already and made from the same is not made again, so
preparing can be stopped at any moment and goes on where it was. Annotations are placed anew each time, which takes
no voxels: what changed in an annotation file is in the next run.
"""

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from caffe_models.atomic import replacing
from runtime.errors import ScanError
from train.annotation_report import of_other_scans, summary, write_report
from train.dataset import Annotations, merge_tables
from train.job_pool import Failure, JobProgress, Say, run_jobs
from train.nodule_library import load_nodules, without
from train.placing import Problem, place
from train.prepare_jobs import CopyJob, Job, LungJob, PhantomJob, ScanJob, file_print, lung_volume, phantom_name
from train.prepared_files import (
    folder_name,
    load,
    open_scan,
    read_head,
    remove_leftovers,
    write_index,
    write_nodules,
)
from train.prepared_scan import TARGET, DatasetError
from train.training_folders import TrainingSet, find_training_set, fingerprint, scans_in, seriesuid_of

__all__ = ["Sources", "StoppedError", "lung_volume", "phantom_name", "prepare_all"]

J = TypeVar("J", bound=Job)
FAILURES = "not_prepared.txt"


class StoppedError(DatasetError):
    """Preparing was interrupted by Ctrl-C; what was prepared stays."""


@dataclass(frozen=True)
class Sources:
    """Where training data comes from.

    Attributes:
        scans: fully annotated scans (files, folders, a LUNA16 or Tianchi folder): their false positives are real ones.
        annotations, excluded: LUNA16-style CSVs for them, in place of those found in or beside the folders; places of
            the second are ignored.
        backgrounds: scans, or 1 mm lungs (.npz), that nobody annotated: lungs to put nodules into; hard negatives
            are never chosen from them.
        nodules: library of real nodules to put into scans and backgrounds.
        leave_out: names of nodules in it that are not used.
        copies: how many copies with inserted nodules of each of those.
        per_copy: nodules put into each copy.
        phantoms: how many synthetic CTs; phantom_seed: the first one's seed; phantom_nodules: nodules that each is to
            hold, None: as `rpn3d phantom` draws them, 0 to 12. More of them make a crop worth more.
        workers: processes to prepare in.
        seed: of the insertions.
    """

    scans: tuple[Path, ...] = ()
    annotations: tuple[Path, ...] = ()
    excluded: tuple[Path, ...] = ()
    backgrounds: tuple[Path, ...] = ()
    nodules: Path | None = None
    leave_out: tuple[str, ...] = ()
    copies: int = 6
    per_copy: int = 16
    phantoms: int = 0
    phantom_seed: int = 1000
    phantom_nodules: int | None = None
    workers: int = 1
    seed: int = 1


@dataclass(frozen=True)
class _Plan:
    """All jobs, done or not; copies come after what they are copies of."""

    annotated: tuple[Job, ...]
    others: tuple[Job, ...]
    copies: tuple[CopyJob, ...]
    targets: Annotations
    ignored: Annotations

    @property
    def bases(self) -> tuple[Job, ...]:
        return (*self.annotated, *self.others)

    @property
    def all(self) -> tuple[Job, ...]:
        return (*self.bases, *self.copies)


def prepare_all(sources: Sources, folder: str | Path, say: Say, *, bar: bool = False) -> Path:
    """Prepare everything into `folder`: what `train.prepared_files` says, `annotations_report.csv`, `not_prepared.txt`.

    A scan that cannot be prepared is said and left out, and tried again by the next call. Called from a script with
    more than one worker, the script needs Python's `if __name__ == "__main__":`.

    Args:
        sources: what to prepare.
        folder: where to.
        say: takes lines of progress and of what was found.
        bar: draw a bar on standard error instead of a line for each scan.

    Returns:
        The folder, for `load_folder`.

    Raises:
        StoppedError: Ctrl-C; the message says how to go on.
        DatasetError: nothing to train on, or an input that cannot be read.
        InsertError, MarksError, ScanError: a library, an annotation file or a folder that cannot be used.
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        remove_leftovers(target)
        old = len(list(target.glob("*.npz")))
        if old:
            say(f"{target}: {old} prepared scans of an older version (.npz) are not used; remove them")
        plan = _plan(sources, say)
        base_todo = _to_do(plan.bases, target)
        copies_todo = _to_do(plan.copies, target)
        with JobProgress(len(base_todo) + len(copies_todo), say, bar) as progress:
            try:
                failures = run_jobs(base_todo, target, sources.workers, progress)
                failed = {failure.seriesuid for failure in failures}
                problems = _place(plan, failed, target)
                possible = [job for job in copies_todo if job.base not in failed]
                progress.pass_over(len(copies_todo) - len(possible))
                failures += run_jobs(possible, target, sources.workers, progress)
            except KeyboardInterrupt:
                raise StoppedError(
                    f"stopped; {progress.done} of {progress.total} scans to prepare are ready in {target}; the same "
                    f"command goes on from there"
                ) from None
        failed |= {failure.seriesuid for failure in failures}
        _place_copies(plan, failed, target)
        _report(problems, failures, target, say)
        ready = [job for job in plan.all if job.seriesuid not in failed and getattr(job, "base", "") not in failed]
        if not ready:
            raise DatasetError(_nothing(failures))
        names = sorted(folder_name(job.seriesuid) for job in ready)
        write_index(target, names)
        _say_what_is_there(names, target, say)
    return target


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against a second run that prepares into it; a killed run holds nothing."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"{folder}: another run is preparing there; wait for it, or give another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield


def _plan(sources: Sources, say: Say) -> _Plan:
    found = TrainingSet((), (), (), ())
    if sources.scans:
        found = find_training_set(sources.scans, sources.annotations, sources.excluded)
        for note in found.notes:
            say(note)
    elif sources.annotations or sources.excluded:
        raise DatasetError("annotations were given without scans; add --scans")
    targets, ignored = merge_tables(found.annotations), merge_tables(found.excluded)
    annotated: list[Job] = [ScanJob(seriesuid_of(source), source, fingerprint(source)) for source in found.scans]
    backgrounds = list(_backgrounds(sources.backgrounds, say))
    seeds = range(sources.phantom_seed, sources.phantom_seed + sources.phantoms)
    phantoms = [PhantomJob(seed, sources.phantom_nodules) for seed in seeds]
    copies: list[CopyJob] = []
    if sources.nodules is not None:
        without(load_nodules(sources.nodules), sources.leave_out)  # what is wrong with it is said before hours of work
        library_print = file_print(sources.nodules)
        copies = [
            CopyJob(
                job.seriesuid, job.made_from, copy, sources.nodules, library_print, sources.leave_out,
                sources.per_copy, sources.seed,
            )
            for job in (*annotated, *backgrounds)
            for copy in range(sources.copies)
        ]  # fmt: skip
    elif sources.leave_out:
        raise DatasetError("nodules to leave out were given without a library; add --nodules cubes.npz")
    plan = _Plan(tuple(annotated), (*backgrounds, *phantoms), tuple(copies), targets, ignored)
    _each_once(plan.all)
    return plan


def _backgrounds(paths: Iterable[Path], say: Say) -> Iterator[Job]:
    for path in paths:
        if path.suffix == ".npz":
            yield LungJob(path, file_print(path))
            continue
        notes: list[str] = []
        for source in scans_in(path, notes):
            try:
                yield ScanJob(seriesuid_of(source), source, fingerprint(source))
            except ScanError as error:
                notes.append(f"left out: {error}")
        for note in notes:
            say(note)


def _each_once(jobs: Iterable[Job]) -> None:
    taken: dict[str, str] = {}
    for job in jobs:
        name = folder_name(job.seriesuid)
        if name in taken:
            raise DatasetError(
                f"{job.seriesuid} and {taken[name]}: two scans of one name; give each scan once, either as annotated "
                f"or as background"
            )
        taken[name] = job.seriesuid


def _to_do(jobs: Sequence[J], folder: Path) -> list[J]:
    return [job for job in jobs if not _is_made(job, folder / folder_name(job.seriesuid))]


def _is_made(job: Job, path: Path) -> bool:
    if not path.is_dir():
        return False
    try:
        head = read_head(path)
        open_scan(path, head, np.zeros((0, 5), np.float32), False)
    except DatasetError:  # of another version, or damaged: made anew
        return False
    return head.made_from == job.made_from


def _place(plan: _Plan, failed: set[str], folder: Path) -> list[Problem]:
    """Bring the annotations of all scans but copies up to date; what is wrong with them."""
    problems: list[Problem] = []
    annotated = {job.seriesuid for job in plan.annotated}
    for job in plan.bases:
        if job.seriesuid in failed:
            continue
        path = folder / folder_name(job.seriesuid)
        head = read_head(path)
        if head.grid is None:
            raise DatasetError(f"{path}: was not prepared from a scan; remove it")
        from_files = job.seriesuid in annotated
        targets = plan.targets.get(job.seriesuid, ()) if from_files else head.targets
        ignored = plan.ignored.get(job.seriesuid, ()) if from_files else head.ignored
        scan = open_scan(path, head, np.zeros((0, 5), np.float32), True)
        nodules, found = place(job.seriesuid, head.grid, scan.in_lung, targets, ignored, head.scan_grid)
        problems.extend(found)
        # only of a background nobody knows what there is to find
        write_nodules(path, nodules, mining=from_files or isinstance(job, PhantomJob))
    problems += of_other_scans(plan.targets, annotated, failed)
    problems += of_other_scans(plan.ignored, annotated, failed, "excluded, ")
    return problems


def _place_copies(plan: _Plan, failed: set[str], folder: Path) -> None:
    """A copy holds what its base holds, and what was put in."""
    for job in plan.copies:
        if job.base in failed or job.seriesuid in failed:
            continue
        path = folder / folder_name(job.seriesuid)
        base, inserted = load(folder / folder_name(job.base)), read_head(path).inserted
        rows = np.asarray(inserted, dtype=np.float32).reshape(-1, 5)
        nodules = np.concatenate([rows, base.nodules])
        write_nodules(path, nodules, base.mining)


def _report(problems: Sequence[Problem], failures: Sequence[Failure], folder: Path, say: Say) -> None:
    write_report(problems, folder)
    for line in summary(problems):
        say(line)
    path = folder / FAILURES
    path.unlink(missing_ok=True)
    if failures:
        with replacing(path) as temporary:
            lines = [f"{one.seriesuid}: {one.why}\n{one.trace}" for one in failures]
            temporary.write_text("".join(lines), encoding="utf-8")
        say(f"{len(failures)} scans could not be prepared and are left out: {path}; the next run tries them again")


def _nothing(failures: Sequence[Failure]) -> str:
    if failures:
        return f"nothing to train on: none of {len(failures)} scans could be prepared; the first: {failures[0].why}"
    return "nothing to train on: give annotated scans, or phantoms above 0"


def _say_what_is_there(names: Sequence[str], folder: Path, say: Say) -> None:
    nodules = sum(int((load(folder / name).nodules[:, 4] == TARGET).sum()) for name in names)
    say(f"{len(names)} prepared scans with {nodules} nodules to find in {folder}")
    others = {path.parent.name for path in folder.glob("[!.]*/scan.json")} - set(names)
    if others:
        say(f"{len(others)} other prepared scans there are not of these sources and are not used")
