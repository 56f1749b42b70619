"""The stages of one scan as plain functions: file -> lungs at 1 mm -> (network) -> findings -> files.

Each takes what the one before made and adds its seconds to the scan's `Stopwatch`; none knows of other scans. What runs
beside what is `pipeline`'s business.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime import process_clock
from runtime.candidates import LEAST_LOGIT, decode, nms
from runtime.find_scans import ScanSource
from runtime.findings import Finding, to_findings
from runtime.lung_mask import LungMask, find_lungs
from runtime.outputs import ResultFolder
from runtime.tiling import HeadOutput
from runtime.volume import Volume, read_volume
from runtime.working_volume import WorkingVolume, make_working_volume


class Stopwatch:
    """Seconds by stage, in the order the stages were first entered.

    Attributes:
        seconds: on the clock.
        cpu_seconds: of all threads of the process, whatever they worked on: the stage's own only where nothing runs
            beside it.
        entered_s: age of the process when the stage was entered last; see `process_clock`.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.entered_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to stage `name`."""
        age_s = process_clock.age_s()
        if age_s is not None:
            self.entered_s[name] = age_s
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - cpu

    def in_process(self) -> dict[str, float]:
        """Where in the life of its process this scan was taken through, see `ScanResult.process`.

        To be called when all is done. The network is entered last for its first window.
        """
        found = {"pid": os.getpid(), "done_cpu_s": time.process_time()}
        if "network" in self.entered_s:
            found["first_window_s"] = self.entered_s["network"]
        age_s = process_clock.age_s()
        return found if age_s is None else {**found, "done_s": age_s}


@dataclass(frozen=True)
class Prepared:
    """A scan that is ready for the network; the volume has its voxels only where pictures are to be drawn."""

    volume: Volume
    lungs: LungMask
    working: WorkingVolume
    watch: Stopwatch = field(default_factory=Stopwatch)


def prepare(source: ScanSource, threads: int, pictures: bool = True) -> Prepared:
    """Read the scan, find the lungs, resample their box.

    Args:
        source: the scan; threads: to compute with.
        pictures: whether any will be drawn; if not, the scan's own voxels are let go, for the network to have more.

    Raises:
        ScanError: the scan cannot be read, or holds no lungs.
    """
    watch = Stopwatch()
    with watch.stage("read"):
        volume = read_volume(source, threads)
    with watch.stage("mask"):
        lungs = find_lungs(volume, threads)
    with watch.stage("resample"):
        working = make_working_volume(volume, lungs, threads=threads)
    return Prepared(volume if pictures else volume.without_voxels(), lungs, working, watch)


def findings_of(scan: Prepared, head: HeadOutput, threshold: float, max_per_scan: int) -> tuple[Finding, ...]:
    """What the network's output says: decoded, doubles removed, ranked, in the patient's millimetres."""
    with scan.watch.stage("decode"):
        # whatever the threshold: those below it have a say where the others are
        marks = decode(head, LEAST_LOGIT, lung=scan.working.lung)
        candidates = nms(marks, max_kept=max_per_scan)
        return to_findings(candidates, scan.working.grid, scan.volume, threshold=threshold, max_per_scan=max_per_scan)


def draw(scan: Prepared, findings: tuple[Finding, ...], results: ResultFolder) -> None:
    """The pictures of findings and mask.

    Raises:
        OSError: they cannot be written.
    """
    from runtime.pictures import draw_findings, draw_mask

    with scan.watch.stage("pictures"):
        draw_findings(results.file(scan.volume.seriesuid, "_findings.png"), scan.volume, findings)
        draw_mask(results.file(scan.volume.seriesuid, "_mask.png"), scan.volume, scan.lungs)
