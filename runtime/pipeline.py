"""Many scans, one model: while the network runs on one scan the next is read and masked, and the one before is drawn
and written.

Reading takes one thread beside the network's; so does drawing. All of them share the cores of the budget (the command
line holds the process to them, see `cores`), which are then never idle while one thread of a stage works alone. It is
done where there are two cores or more, and where memory allows: a plan of several windows means that memory is short,
and then, as on one core, one scan is finished before the next is begun. Results are the same either way.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from caffe_models.errors import Rpn3dError
from runtime.budget import format_memory
from runtime.deadline import Deadline
from runtime.detect import Detector, Ran
from runtime.duration import format_duration
from runtime.errors import ScanError
from runtime.find_scans import ScanSource, find_scans
from runtime.outputs import ResultFolder, ScanResult, as_content
from runtime.plan import DEFAULT_MARGIN, Plan
from runtime.quiet import uncaptured
from runtime.report_table import print_report
from runtime.scan_stages import Prepared, prepare

AHEAD_SHARE = 3.0
"""Memory of reading a scan ahead, in sizes of the scan before it: its voxels, the lungs, buffers, and one not yet
written."""

Say = Callable[[str], None]
Failed = Callable[[str, str], None]
"""Takes a scan and why it failed, in one line."""


@dataclass(frozen=True)
class Outcome:
    """What became of all scans of one call.

    Attributes:
        results: in the order of the work.
        failures: (scan, one line).
        unfinished: scans that were not begun because of the deadline.
        given_up: one sentence for each thing given up for the deadline.
    """

    results: tuple[ScanResult, ...]
    failures: tuple[tuple[str, str], ...]
    unfinished: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "results": [as_content(result) for result in self.results],
            "failures": [{"source": source, "error": error} for source, error in self.failures],
            "unfinished": list(self.unfinished),
            "given_up": list(self.given_up),
        }


def detect_all(
    detector: Detector,
    paths: Sequence[str | Path | ScanSource],
    out: str | Path | ResultFolder,
    *,
    report: TextIO | None = None,
    say: Say = lambda text: None,
    complain: Say = lambda text: None,
    failed: Failed = lambda source, error: None,
    deadline_s: float = float("inf"),
    overlap: bool = True,
) -> Outcome:
    """Detect in every scan found under `paths`; a scan that fails is named, and the others still run.

    A scan's files and the CSV of all scans so far are written as soon as it is done, so that an interrupted run leaves
    them whole.

    Args:
        detector: the model.
        paths: files, DICOM folders, or folders of scans; or scans that were found already.
        out: folder for the results.
        report: where the ranked lists are printed as they come; None: nowhere.
        say: takes one line of progress at a time.
        complain: takes one line for each scan that failed.
        failed: takes the same as a pair, before `complain`.
        deadline_s: seconds for all of them, from now; see `deadline`.
        overlap: whether to work on several scans at a time where cores and memory allow it.

    Raises:
        NetError: the model cannot be loaded.
    """
    folder = out if isinstance(out, ResultFolder) else ResultFolder(out)
    failures: list[tuple[str, str]] = []

    def tell(how: Say, text: str) -> None:
        with uncaptured():
            how(text)

    def fail(source: object, error: Rpn3dError) -> None:
        failures.append((str(source), str(error)))
        failed(*failures[-1])
        tell(complain, f"rpn3d: {error}")

    sources = find_all(paths, fail)
    settings = detector.settings
    faster = tuple(name for name, _ in settings.faster)
    deadline = Deadline(deadline_s, len(sources), pictures=settings.pictures, faster=faster)
    run = _Run(detector, sources, folder, deadline, overlap)
    results: list[ScanResult] = []

    def collect(source: ScanSource, future: "Future[ScanResult]") -> None:
        try:
            result = future.result()
        except Rpn3dError as error:
            fail(source.path, error)
            return
        results.append(result)
        if report is not None:
            print_report(result, stream=report)

    try:
        detector.wait()  # a model that cannot be loaded ends the run
        for number, source in enumerate(sources, 1):
            if number > 1 and run.deadline.too_late():
                run.settle(collect)
                break
            rest_s = run.deadline.rest_s(number - 1)
            left = "" if rest_s is None else f", {format_duration(rest_s)} left"
            tell(say, f"[{number}/{len(sources)}] {source}{left}")
            before = len(run.deadline.given_up)
            run.one(number - 1, collect)
            for text in run.deadline.given_up[before:]:
                tell(say, f"rpn3d: for the deadline: {text}")
        run.settle(collect)
    finally:
        run.close()
    folder.write_csv()
    unfinished = tuple(str(source) for source in sources[run.begun :])
    for source_name in unfinished:
        tell(complain, f"rpn3d: {source_name}: not searched: the deadline came first")
    return Outcome(tuple(results), tuple(failures), unfinished, tuple(run.deadline.given_up))


def find_all(paths: Sequence[str | Path | ScanSource], fail: Callable[[object, Rpn3dError], None]) -> list[ScanSource]:
    """The scans under all paths, each once; a path that names none goes to `fail`, with the reason."""
    sources: list[ScanSource] = []
    for path in paths:
        try:
            found = (path,) if isinstance(path, ScanSource) else find_scans([path])
            sources += [source for source in found if source not in sources]
        except ScanError as error:
            fail(path, error)
    return sources


Collect = Callable[[ScanSource, "Future[ScanResult]"], None]


class _Run:
    """The scans of one call on their way: at most one ahead of the network, and one behind it."""

    def __init__(
        self,
        detector: Detector,
        sources: Sequence[ScanSource],
        folder: ResultFolder,
        deadline: Deadline,
        overlap: bool,
    ) -> None:
        self._detector, self._sources, self._folder, self.deadline = detector, sources, folder, deadline
        self._cpus = detector.settings.budget.cpus
        self._overlap = overlap and self._cpus > 1
        self._reader = ThreadPoolExecutor(1, "rpn3d-read")
        self._writer = ThreadPoolExecutor(1, "rpn3d-write")
        self._ahead: tuple[int, Future[Prepared]] | None = None
        self._behind: tuple[int, Future[ScanResult]] | None = None
        self._taken = ""
        self.begun = 0
        if sources:
            self._read_ahead(0, self._cpus)  # the model is still being loaded

    def one(self, number: int, collect: Collect) -> None:
        """Take scan `number` through the network, and leave its drawing and writing to be settled."""
        self.begun = number + 1
        source = self._sources[number]
        try:
            scan = self._prepared(number, collect)
            self._take_faster()
            plan = self._plan(scan, collect)
            if number == 0 and self._foresee(plan):
                self._take_faster()
                plan = self._plan(scan, collect)
            detector = self._detector
            self.deadline.several_windows = len(plan.windows) > 1
            reads, notes = self._reads_next(number, scan, plan)
            beside = reads or self._behind is not None
            detector.explain(plan, beside)
            if reads:
                self._read_ahead(number + 1, 1)
            ran = detector.run(scan, plan, beside)
        except Rpn3dError as error:
            self.settle(collect)
            failed: Future[ScanResult] = Future()
            failed.set_exception(error)
            collect(source, failed)
            return
        self.settle(collect)
        notes += (f"margin of {plan.margin_voxel} voxels for the deadline",) * (plan.margin_voxel != DEFAULT_MARGIN)
        self._behind = number, self._writer.submit(self._finish, detector, scan, plan, ran, notes)
        if not self._overlap or self._ahead is None:
            self.settle(collect)

    def settle(self, collect: Collect) -> None:
        """Wait for the scan that is being drawn and written, and hand it to `collect`."""
        if self._behind is None:
            return
        number, future = self._behind
        self._behind = None
        future.exception()  # waits
        self.deadline.scan_done(number + 1)
        collect(self._sources[number], future)

    def close(self) -> None:
        """Begin nothing more, and let what is being written end."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=True)

    def _prepared(self, number: int, collect: Collect) -> Prepared:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != number:
            return prepare(self._sources[number], self._cpus, self._detector.settings.pictures)
        if not ahead[1].done():
            self.settle(collect)  # a scan that is slow to read holds up no result
        return ahead[1].result()

    def _foresee(self, plan: Plan) -> bool:
        """Whether something must be given up for the deadline before the first scan, by what was remembered."""
        if math.isinf(self.deadline.seconds):
            return False
        self.deadline.several_windows = len(plan.windows) > 1
        each_s = self._detector.remembered_s(plan, beside=self._overlap and len(self._sources) > 1)
        if each_s is not None:
            self.deadline.foresee(each_s)
        return bool(self.deadline.given_up)

    def _take_faster(self) -> None:
        """Take the precision that the deadline asks for; if that cannot be loaded the present one stays."""
        if self.deadline.taken == self._taken:
            return
        self._taken = self.deadline.taken
        try:
            self._detector = self._detector.instead(self._taken)
        except Rpn3dError as error:
            self.deadline.given_up.append(f"{self._taken} could not be taken: {error}")

    def _plan(self, scan: Prepared, collect: Collect) -> Plan:
        margin = DEFAULT_MARGIN // 2 if self.deadline.half_margin else DEFAULT_MARGIN
        several = len(self._sources) > 1
        if self._behind is not None:
            try:
                plan = self._detector.plan(scan, margin, more=several)
                if len(plan.windows) <= 1:
                    return plan
            except Rpn3dError:
                pass
            self.settle(collect)  # what it holds is then free
        return self._detector.plan(scan, margin, more=several)

    def _reads_next(self, number: int, scan: Prepared, plan: Plan) -> tuple[bool, tuple[str, ...]]:
        """Whether the next scan is read meanwhile: if there is one and memory allows it; else a note why not."""
        if not self._overlap or number + 1 == len(self._sources):
            return False, ()
        needed = plan.predicted_peak_bytes + int(AHEAD_SHARE * scan.volume.size_bytes)
        allowed = self._detector.settings.budget.memory_bytes
        if len(plan.windows) <= 1 and needed <= allowed:
            return True, ()
        return False, (f"the next scan was not read meanwhile: that takes more than {format_memory(allowed)}",)

    def _read_ahead(self, number: int, threads: int) -> None:
        pictures = self._detector.settings.pictures
        self._ahead = number, self._reader.submit(prepare, self._sources[number], threads, pictures)

    def _finish(self, detector: Detector, scan: Prepared, plan: Plan, ran: Ran, notes: tuple[str, ...]) -> ScanResult:
        pictures = detector.settings.pictures and self.deadline.pictures
        return detector.finish(scan, plan, ran, self._folder, pictures, notes)
