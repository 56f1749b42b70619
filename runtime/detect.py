"""One scan in, ranked findings out.

    file -> Volume -> LungMask -> WorkingVolume -> Plan -> engine -> HeadOutput -> Candidates -> Findings -> files

A `Detector` holds one engine and takes scan after scan through it; `pipeline.detect_all` takes a whole set, one scan's
reading beside another's network.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime.budget import Budget, give_back_free_memory, peak_resident_bytes
from runtime.engines.base import Engine, EngineOptions, load_engine
from runtime.explain import explain, plan_content
from runtime.find_scans import ScanSource
from runtime.findings import MAX_PER_SCAN
from runtime.outputs import ResultFolder, ScanResult, file_sha256, versions
from runtime.plan import DEFAULT_MARGIN, Plan, plan_windows
from runtime.scan_stages import Prepared, draw, findings_of, prepare
from runtime.speed import seconds_per_voxel
from runtime.tiling import HeadOutput, run_windows


@dataclass(frozen=True)
class Settings:
    """How to detect.

    Attributes:
        budget: cores and memory that may be used.
        engine, precision: see `runtime.engines.base`.
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
        self._seconds_per_voxel: float | None = None
        loader.shutdown(wait=False)

    def _load(self) -> tuple[Engine, str]:
        options = EngineOptions(
            precision=self.settings.precision,
            threads=self.settings.budget.cpus,
            weights=self.settings.weights,
            cache_folder=self.settings.cache_folder,
        )
        engine = load_engine(self.settings.engine, self.model, options)
        weights = self.model.with_suffix(".bin")
        return engine, file_sha256(weights if weights.is_file() else self.model)

    @property
    def engine(self) -> Engine:
        """The loaded engine.

        Raises:
            NetError: the model cannot be loaded, see `load_engine`.
        """
        return self._loaded.result()[0]

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

    def plan(self, scan: Prepared, margin_voxel: int = DEFAULT_MARGIN) -> Plan:
        """The windows of one scan, within the memory.

        Raises:
            Rpn3dError: the memory allowed is too small for any window.
        """
        with scan.watch.stage("network"):
            give_back_free_memory()  # else what reading and masking left counts as held
            return plan_windows(
                scan.working.voxels.shape,
                scan.working.lung,
                self.settings.budget.memory_bytes,
                self.engine.precision,
                self.settings.budget.cpus,
                engine=self.engine.name,
                margin_voxel=margin_voxel,
            )

    def explain(self, plan: Plan) -> None:
        """Tell `settings.explain` the plan; times are named after the engine's speed, which is measured at first."""
        settings = self.settings
        if settings.explain is None:
            return
        engine, model_sha256 = self._loaded.result()
        if self._seconds_per_voxel is None:
            self._seconds_per_voxel = seconds_per_voxel(
                engine, settings.budget.cpus, model_sha256, settings.cache_folder
            )
        for line in explain(
            plan, settings.budget, engine.name, engine.precision, engine.notes, self._seconds_per_voxel
        ):
            settings.explain(line)

    def run(self, scan: Prepared, plan: Plan) -> HeadOutput:
        """The network over the windows of one scan."""
        with scan.watch.stage("network"):
            return run_windows(scan.working, plan, self.engine)

    def finish(
        self,
        scan: Prepared,
        plan: Plan,
        head: HeadOutput,
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
        findings = findings_of(scan, head, settings.threshold, settings.max_per_scan)
        if pictures:
            draw(scan, findings, results)
        engine, model_sha256 = self._loaded.result()
        result = ScanResult(
            seriesuid=scan.volume.seriesuid,
            source=scan.volume.source,
            findings=findings,
            mask_volume_ml=scan.lungs.volume_ml,
            fallbacks=scan.lungs.fallbacks,
            notes=(*scan.volume.notes, *engine.notes, *notes),
            engine=engine.name,
            precision=engine.precision,
            model_sha256=model_sha256,
            plan=plan_content(plan, self._seconds_per_voxel),
            seconds=scan.watch.seconds,
            peak_memory_bytes=peak_resident_bytes(),
            cpus=settings.budget.cpus,
            versions=versions(),
            process=scan.watch.in_process(),
        )
        with scan.watch.stage("write"):
            results.add(result)
        return result
