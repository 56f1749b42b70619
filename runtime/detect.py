"""One scan in, ranked findings out.

    file -> Volume -> LungMask -> WorkingVolume -> Plan -> engine -> HeadOutput -> Candidates -> Findings -> files

A `Detector` holds one engine and takes scan after scan through it; `pipeline.detect_all` takes a whole set, one scan's
reading beside another's network.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.budget import Budget, give_back_free_memory, peak_resident_bytes
from runtime.engines.base import Engine, EngineOptions, load_engine
from runtime.explain import explain, plan_content
from runtime.find_scans import ScanSource
from runtime.findings import MAX_PER_SCAN
from runtime.outputs import ResultFolder, ScanResult, file_sha256, versions
from runtime.plan import DEFAULT_MARGIN, Plan, plan_windows
from runtime.scan_stages import Prepared, draw, findings_of, prepare
from runtime.speed import Sample, Speed, SpeedMemory
from runtime.tiling import HeadOutput, run_windows


@dataclass(frozen=True)
class Settings:
    """How to detect.

    Attributes:
        budget: cores and memory that may be used.
        engine, precision: see `runtime.engines.base`.
        precision_why: why the model is of this precision; "" where the user asked for it.
        faster: precision and model of each that is faster but not proven, the fastest last: for a deadline.
        threshold: the least probability that is reported.
        max_per_scan: at most this many findings a scan.
        pictures: whether to draw the findings and the mask.
        weights: the .caffemodel, for the torch engine.
        cache_folder: where the engine may keep compiled models.
        explain: takes the lines that explain each scan's plan, before the network runs.
    """

    budget: Budget
    engine: str = "openvino"
    precision: str = "auto"
    threshold: float = 0.1
    max_per_scan: int = MAX_PER_SCAN
    pictures: bool = True
    weights: Path | None = None
    cache_folder: Path | None = None
    explain: Callable[[str], None] | None = None
    precision_why: str = ""
    faster: tuple[tuple[str, Path], ...] = ()

    def search_content(self) -> dict[str, float]:
        """What decides which findings are reported, for `ScanResult.search`."""
        return {"threshold": self.threshold, "max_per_scan": self.max_per_scan}


def model_sha256(model: Path) -> str:
    """SHA-256 of a model's file; of an IR that of its .bin, which holds the weights."""
    weights = model.with_suffix(".bin")
    return file_sha256(weights if weights.is_file() else model)


@dataclass(frozen=True)
class Loaded:
    """An engine, the SHA-256 of its model, and how fast it is."""

    engine: Engine
    model_sha256: str
    memory: SpeedMemory


@dataclass(frozen=True)
class Ran:
    """What the network gave for one scan.

    Attributes:
        head: see `HeadOutput`.
        beside: whether another scan was read or drawn meanwhile.
        speed: what was known of the engine before.
    """

    head: HeadOutput
    beside: bool
    speed: Speed


class Detector:
    """A model, loaded once, and the chain that takes scans through it.

    The model is loaded in the background, so that the first scan can be read meanwhile; a model that cannot be loaded
    is told where `engine` is first asked for.
    """

    def __init__(self, model: str | Path, settings: Settings) -> None:
        self.settings = settings
        self.model = Path(model)
        loader = ThreadPoolExecutor(1, "rpn3d-load")
        self._loaded = loader.submit(self._load)
        self._keeps = False
        loader.shutdown(wait=False)

    def _load(self) -> Loaded:
        options = EngineOptions(
            precision=self.settings.precision,
            threads=self.settings.budget.cpus,
            weights=self.settings.weights,
            cache_folder=self.settings.cache_folder,
        )
        engine = load_engine(self.settings.engine, self.model, options)
        digest = model_sha256(self.model)
        memory = SpeedMemory(engine, self.settings.budget.cpus, digest, self.settings.cache_folder)
        return Loaded(engine, digest, memory)

    def instead(self, precision: str) -> "Detector":
        """A detector of the model in `precision`, one of `settings.faster`; loaded before it is given.

        Raises:
            NetError: it cannot be loaded.
        """
        made = Detector(
            dict(self.settings.faster)[precision],
            replace(
                self.settings, precision_why=f"{precision}: taken for the deadline, though not proven for this model"
            ),
        )
        made.wait()
        return made

    @property
    def engine(self) -> Engine:
        """The loaded engine.

        Raises:
            NetError: the model cannot be loaded, see `load_engine`.
        """
        return self._loaded.result().engine

    def wait(self) -> None:
        """Wait for the model, so that this counts to no scan.

        Raises:
            NetError: the model cannot be loaded.
        """
        self._loaded.result()

    def detect(self, source: ScanSource, results: ResultFolder) -> ScanResult:
        """Take one scan through the chain and write its pictures and JSON, and the folder's CSV.

        Raises:
            NetError: the model cannot be loaded.
            ScanError: the scan cannot be read, or holds no lungs.
            Rpn3dError: the memory allowed is too small for any window.
            OSError: the results cannot be written.
        """
        scan = prepare(source, self.settings.budget.cpus, self.settings.pictures)
        self.wait()
        plan = self.plan(scan)
        self.explain(plan)
        return self.finish(scan, plan, self.run(scan, plan), results, self.settings.pictures)

    def plan(self, scan: Prepared, margin_voxel: int = DEFAULT_MARGIN, *, more: bool = False) -> Plan:
        """The windows of one scan, within the memory.

        Args:
            scan: to be searched.
            margin_voxel: see `plan_windows`.
            more: whether it is one of several, for which the engine may keep its memory where there is room.

        Raises:
            Rpn3dError: the memory allowed is too small for any window.
        """
        with scan.watch.stage("network"):
            give_back_free_memory()  # else what reading and masking left counts as held
            plan = self._plan(scan, margin_voxel, more)
            if self._keeps and not plan.keeps_memory:
                self.engine.release()  # nor does what the engine kept
                plan = self._plan(scan, margin_voxel, False)
            self._keeps = plan.keeps_memory
            self.engine.keep_memory(self._keeps)
            return plan

    def _plan(self, scan: Prepared, margin_voxel: int, may_keep: bool) -> Plan:
        return plan_windows(
            scan.working.voxels.shape,
            scan.working.lung,
            self.settings.budget.memory_bytes,
            self.engine.precision,
            self.settings.budget.cpus,
            engine=self.engine.name,
            margin_voxel=margin_voxel,
            may_keep=may_keep,
        )

    def remembered_s(self, plan: Plan, beside: bool) -> float | None:
        """Seconds that these windows took in earlier scans, here or in earlier runs; None where nothing is known."""
        speed = self._loaded.result().memory.speed
        if not speed.samples or not plan.windows:
            return None
        return speed.predict(math.prod(plan.windows[0].size), len(plan.windows), beside)

    def explain(self, plan: Plan, beside: bool = False) -> None:
        """Tell `settings.explain` the plan, with the time it is predicted to take.

        The engine's speed is measured if nothing is known of it. `beside`: another scan is read or drawn meanwhile.
        """
        settings = self.settings
        if settings.explain is None:
            return
        loaded = self._loaded.result()
        speed = loaded.memory.known()
        notes = (*self._why, *loaded.engine.notes)
        for line in explain(plan, settings.budget, loaded.engine.name, loaded.engine.precision, notes, speed, beside):
            settings.explain(line)

    @property
    def _why(self) -> tuple[str, ...]:
        return (self.settings.precision_why,) * bool(self.settings.precision_why)

    def run(self, scan: Prepared, plan: Plan, beside: bool = False) -> Ran:
        """The network over the windows of one scan, and remember what they took; `beside` as for `explain`."""
        loaded = self._loaded.result()
        speed = loaded.memory.speed
        with scan.watch.stage("network"):
            start = time.perf_counter()
            head = run_windows(scan.working, plan, loaded.engine)
            taken = time.perf_counter() - start
        if plan.windows:
            voxels = math.prod(plan.windows[0].size)
            loaded.memory.add(Sample(voxels, taken / (voxels * len(plan.windows)), beside))
        return Ran(head, beside, speed)

    def finish(
        self,
        scan: Prepared,
        plan: Plan,
        ran: Ran,
        results: ResultFolder,
        pictures: bool,
        notes: tuple[str, ...] = (),
    ) -> ScanResult:
        """Decode the network's output, draw, and write the scan's files and the folder's CSV.

        Raises:
            ScanError: another scan of this folder has the same seriesuid.
            OSError: the results cannot be written.
        """
        settings = self.settings
        findings = findings_of(scan, ran.head, settings.threshold, settings.max_per_scan)
        if pictures:
            draw(scan, findings, results)
        loaded = self._loaded.result()
        engine = loaded.engine
        result = ScanResult(
            seriesuid=scan.volume.seriesuid,
            source=scan.volume.source,
            findings=findings,
            mask_volume_ml=scan.lungs.volume_ml,
            fallbacks=scan.lungs.fallbacks,
            notes=(*scan.volume.notes, *self._why, *engine.notes, *notes),
            engine=engine.name,
            precision=engine.precision,
            model_sha256=loaded.model_sha256,
            plan=plan_content(plan, ran.speed, ran.beside),
            seconds=scan.watch.seconds,
            peak_memory_bytes=peak_resident_bytes(),
            cpus=settings.budget.cpus,
            versions=versions(),
            search=settings.search_content(),
            process=scan.watch.in_process(),
        )
        with scan.watch.stage("write"):
            results.add(result)
        return result
