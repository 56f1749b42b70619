"""Scans that an earlier run has searched: their results lie in the folder, and would come out the same."""

import glob
from collections.abc import Sequence
from pathlib import Path

from runtime.detect import Settings, model_sha256
from runtime.find_scans import ScanSource
from runtime.outputs import ResultFolder, ScanResult, read_results, versions
from runtime.pipeline import find_all
from runtime.plan import DEFAULT_MARGIN


def take_up(
    paths: Sequence[str | Path], folder: ResultFolder, model: Path, settings: Settings
) -> tuple[list[str | Path | ScanSource], list[ScanResult]]:
    """What is left to be searched of `paths`, and the results that `folder` holds of the others, kept in its CSV.

    A path that names no scan is left: it is answered where scans are searched.

    Raises:
        OSError: the model cannot be read.
    """
    unfound: list[str | Path] = []
    sources = find_all(paths, lambda path, error: unfound.append(str(path)))
    before = searched_before(sources, folder, model, settings)
    for result in before.values():
        folder.keep(result)
    return [*(source for source in sources if source not in before), *unfound], list(before.values())


def searched_before(
    sources: Sequence[ScanSource], folder: ResultFolder, model: Path, settings: Settings
) -> dict[ScanSource, ScanResult]:
    """Those of `sources` that need not be searched again, with their results, in the order of `sources`.

    That is: by this version of rpn3d, with this model, precision, threshold and number of findings, with the margin
    that nothing was given up for, with pictures if they are asked for, and since the scan's files were last changed.
    Cores and memory may differ: they decide the windows, and so the last digits of a probability.

    Raises:
        OSError: the model cannot be read.
    """
    results = read_results(folder.path, skip_broken=True)
    if not results:
        return {}
    digest, version = model_sha256(model), versions()["rpn3d"]
    search = settings.search_content()

    def fits(result: ScanResult) -> bool:
        return (
            result.model_sha256 == digest
            and result.engine == settings.engine
            and settings.precision in ("auto", result.precision)
            and result.versions.get("rpn3d") == version
            and result.search == search
            and result.plan.get("margin_voxel") == DEFAULT_MARGIN
            and (not settings.pictures or folder.file(result.seriesuid, "_findings.png").is_file())
        )

    earlier = {Path(result.source).resolve(): result for result in results if fits(result)}
    found = {}
    for source in sources:
        result = earlier.get(Path(str(source)).resolve())
        if result is not None and _changed_s(source.path) <= folder.file(result.seriesuid).stat().st_mtime:
            found[source] = result
    return found


def _changed_s(path: Path) -> float:
    """When the newest file of a scan was written: of a DICOM folder's, or of a header and what bears its name."""
    files = path.iterdir() if path.is_dir() else path.parent.glob(f"{glob.escape(path.stem)}.*")
    return max((file.stat().st_mtime for file in files), default=path.stat().st_mtime)
