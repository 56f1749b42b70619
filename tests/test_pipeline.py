"""Many scans in one call: the same bytes whatever runs beside what, order, failures, interruptions, deadlines."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from caffe_models.errors import NetError
from runtime import pipeline
from runtime.budget import Budget
from runtime.deadline import Deadline
from runtime.detect import Detector, Settings
from runtime.engines.base import EngineOptions
from runtime.network_input import STRIDE
from runtime.pipeline import detect_all
from runtime.speed import Sample
from train.phantom import make_phantom, write_phantom

Hook = Callable[[], None]


class Brightness:
    """Stands for a network: the 20 mm anchor of a cell is as likely as its 4 mm cube is bright. `hook` runs first."""

    name = "openvino"
    precision = "f32"
    notes: tuple[str, ...] = ()

    def keep_memory(self, on: bool) -> None:
        pass

    def release(self) -> None:
        """Asked for where this process has come to hold so much that the plan keeps no memory any more."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __call__(self, data: np.ndarray, coord: np.ndarray) -> np.ndarray:
        self._hook()
        cells = [extent // STRIDE for extent in data.shape[2:]]
        mean = data[0, 0].reshape(cells[0], 4, cells[1], 4, cells[2], 4).mean(axis=(1, 3, 5))
        head = np.zeros((1, 15, *cells), dtype=np.float32)
        head[0, [0, 5]] = -20
        head[0, 10] = 40 * (mean - 0.35)
        return head


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One phantom under three names."""
    folder = tmp_path_factory.mktemp("scans")
    phantom = make_phantom(
        11, size=130, spacing_mm=(2.7, 2.7, 2.5), step_mm=2.5, nodules=1, diameters_mm=(24.0,), reoriented=False
    )
    first = Path(write_phantom(phantom, folder))
    found = []
    for name in ("c", "a", "b"):
        found.append(folder / f"{name}.mhd")
        shutil.copy(first, found[-1])
    return found


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Detector]:
    def detector(cpus: int = 2, memory: int = 8 << 30, hook: Hook = lambda: None, pictures: bool = False) -> Detector:
        monkeypatch.setattr("runtime.detect.load_engine", lambda *_: Brightness(hook))
        model = tmp_path / "model.xml"
        model.write_text("stands for a model")
        made = Detector(model, Settings(Budget(cpus, memory, "test"), threshold=0.5, pictures=pictures))
        made.wait()
        return made

    return detector


@pytest.fixture
def read_ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the scans that were begun in the reader's thread."""
    seen: list[int] = []
    original = pipeline._Run._read_ahead

    def spy(run: pipeline._Run, number: int, threads: int) -> None:
        seen.append(number)
        original(run, number, threads)

    monkeypatch.setattr(pipeline._Run, "_read_ahead", spy)
    return seen


def test_same_bytes_and_order_with_and_without_overlap(
    scans: list[Path], make: Callable[..., Detector], read_ahead: list[int], tmp_path: Path
) -> None:
    together = detect_all(make(pictures=True), scans, tmp_path / "together")
    assert read_ahead == [0, 1, 2]
    read_ahead.clear()
    apart = detect_all(make(), scans, tmp_path / "apart", overlap=False)
    assert read_ahead == [0]
    # the first has nothing to go by; the next ones have what the scan before them took, also while that is written
    predicted = [r.plan["predicted_s"] for r in together.results]
    assert predicted[0] is None
    assert all(seconds is not None for seconds in predicted[1:])
    assert [r.seriesuid for r in together.results] == [r.seriesuid for r in apart.results] == ["c", "a", "b"]
    files = [(tmp_path / name / "submission.csv").read_bytes() for name in ("together", "apart")]
    assert files[0] == files[1]
    assert files[0].count(b"\n") > 3
    assert len(list((tmp_path / "together").glob("*_mask.png"))) == 3


@pytest.mark.parametrize("cpus", [1, 2])
def test_scans_one_by_one_on_one_core(
    cpus: int, scans: list[Path], make: Callable[..., Detector], read_ahead: list[int], tmp_path: Path
) -> None:
    detect_all(make(cpus=cpus), scans[:2], tmp_path)
    assert read_ahead == ([0] if cpus == 1 else [0, 1])


def test_short_memory_reads_nothing_ahead(
    scans: list[Path],
    make: Callable[..., Detector],
    read_ahead: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "AHEAD_SHARE", 1e4)  # as if the next scan were a thousand times as large
    outcome = detect_all(make(), scans[:2], tmp_path)
    assert [result.notes for result in outcome.results] == [
        ("the next scan was not read meanwhile: that takes more than 8.0 GiB",),
        (),
    ]
    assert read_ahead == [0]


def test_a_scan_that_fails_in_the_middle(scans: list[Path], make: Callable[..., Detector], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mhd"
    broken.write_text(scans[0].read_text().replace(".zraw", "-missing.zraw"))
    said: list[str] = []
    outcome = detect_all(make(), [scans[0], broken, scans[1]], tmp_path / "out", complain=said.append)
    assert [r.seriesuid for r in outcome.results] == ["c", "a"]
    ((source, _),) = outcome.failures
    assert source == str(broken)
    assert len(said) == 1


def test_an_interrupt_leaves_what_is_done(scans: list[Path], make: Callable[..., Detector], tmp_path: Path) -> None:
    calls: list[int] = []

    def hook() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    detector = make(hook=hook)
    with pytest.raises(KeyboardInterrupt):
        detect_all(detector, scans, tmp_path)
    rows = csv.DictReader((tmp_path / "submission.csv").open())
    assert {row["seriesuid"] for row in rows} == {"c", "a"}
    assert {path.stem for path in tmp_path.glob("*.json")} == {"c", "a"}


def test_a_model_that_cannot_be_loaded_ends_the_run(scans: list[Path], tmp_path: Path) -> None:
    from caffe_models.errors import NetError

    detector = Detector(tmp_path / "none.xml", Settings(Budget(2, 8 << 30, "test")))
    with pytest.raises(NetError, match="no such model file"):
        detect_all(detector, scans, tmp_path / "out")


class Clock:
    """Time that passes only when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("runtime.deadline.time.monotonic", found)
    return found


def test_scans_that_come_too_late_are_listed_and_the_csv_is_whole(
    scans: list[Path], make: Callable[..., Detector], clock: Clock, tmp_path: Path
) -> None:
    def hook() -> None:
        clock.now += 10

    said: list[str] = []
    detector = make(cpus=1, hook=hook, pictures=True)
    outcome = detect_all(detector, scans, tmp_path, deadline_s=25, say=said.append, complain=said.append)
    # 10 s the first; 2 more in 15 s: no more pictures; 10 s the second; 5 s are too little for the third
    assert [r.seriesuid for r in outcome.results] == ["c", "a"]
    assert outcome.unfinished == (str(scans[2]),)
    assert outcome.given_up[0] == "no more pictures: 2 more scans of about 11.0 s in 15 s"
    assert outcome.as_json()["unfinished"] == [str(scans[2])]
    assert [path.name for path in tmp_path.glob("*_mask.png")] == ["c_mask.png"]
    assert {row["seriesuid"] for row in csv.DictReader((tmp_path / "submission.csv").open())} == {"c", "a"}
    assert any("b.mhd: not searched: the deadline came first" in line for line in said)


def test_progress_says_how_long_the_rest_will_take(
    scans: list[Path], make: Callable[..., Detector], clock: Clock, tmp_path: Path
) -> None:
    def hook() -> None:
        clock.now += 100

    said: list[str] = []
    detect_all(make(cpus=1, hook=hook), scans, tmp_path, say=said.append)
    assert said == [f"[1/3] {scans[0]}", f"[2/3] {scans[1]}, 3 min left", f"[3/3] {scans[2]}, 100 s left"]


def test_enough_time_gives_nothing_up(clock: Clock) -> None:
    deadline = Deadline(100, 5)
    for done in range(1, 5):
        clock.now += 15
        deadline.scan_done(done)
    assert deadline.given_up == []
    assert not deadline.too_late()
    assert deadline.left_s == 40
    assert deadline.expected_s() == pytest.approx(16.5)


def test_pictures_go_before_margins(clock: Clock) -> None:
    deadline = Deadline(60, 9)
    for done in (1, 2):
        clock.now += 20
        deadline.scan_done(done)
    assert (deadline.pictures, deadline.half_margin) == (False, True)
    assert [text.split(":")[0] for text in deadline.given_up] == [
        "no more pictures",
        "windows with half the margin where there are several",
    ]
    assert deadline.too_late()


def test_a_faster_precision_is_the_last_thing_given_up(clock: Clock) -> None:
    deadline = Deadline(100, 9, pictures=False, several_windows=False, faster=("bf16", "int8"))
    clock.now += 15
    deadline.scan_done(1)  # 8 more of 16.5 s in 85 s: at 0.75 of that 99 s, at 0.75 of that again 74 s
    assert deadline.given_up == [
        "bf16 from here on, though not proven for this model: 8 more scans of about 16.5 s in 85 s",
        "int8 from here on, though not proven for this model: 8 more scans of about 16.5 s in 85 s",
    ]
    assert (deadline.taken, deadline.faster, deadline.half_margin) == ("int8", (), False)
    assert deadline.expected_s() == pytest.approx(16.5 * 0.75**2)
    clock.now += 8
    deadline.scan_done(2)
    assert deadline.expected_s() == pytest.approx(8.8)  # what the faster one took, not what was guessed


def test_what_is_enough_keeps_the_precision(clock: Clock) -> None:
    deadline = Deadline(100, 5, faster=("int8",))
    clock.now += 20
    deadline.scan_done(1)  # 4 more of 22 s in 80 s; without pictures 83.6 s, with half the margin 71 s
    assert (deadline.pictures, deadline.half_margin, deadline.taken) == (False, True, "")
    assert len(deadline.given_up) == 2


def test_what_earlier_runs_took_is_foreseen(clock: Clock) -> None:
    """4 scans of 30 s in 97 s; of 28.5 s without pictures. One window has no margin to halve."""
    deadline = Deadline(100, 4, several_windows=False, faster=("int8",))
    clock.now += 3  # reading the first one
    deadline.foresee(30)
    assert [text.split(":")[0] for text in deadline.given_up] == [
        "no more pictures",
        "int8 from here on, though not proven for this model",
    ]
    assert deadline.given_up[0].endswith(": 4 scans of about 30.0 s in 97 s")
    enough = Deadline(100, 3)
    enough.foresee(30)
    assert enough.given_up == []


@pytest.mark.parametrize("remembered", [True, False])
def test_one_scan_in_a_short_time_runs_in_the_faster_precision_if_the_machine_is_known(
    remembered: bool,
    scans: list[Path],
    make: Callable[..., Detector],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faster = tmp_path / "faster-int8.xml"
    faster.write_text("stands for another model")

    def load(*_: object) -> Brightness:
        engine = Brightness(lambda: None)
        engine.precision = "int8"
        return engine

    detector = make(cpus=1)
    detector.wait()
    monkeypatch.setattr("runtime.detect.load_engine", load)
    if remembered:
        detector._loaded.result().memory.add(Sample(64**3, 1e-3))
    detector.settings = replace(detector.settings, faster=(("int8", faster),))
    outcome = detect_all(detector, scans[:1], tmp_path / "out", deadline_s=20)
    assert [result.precision for result in outcome.results] == (["int8"] if remembered else ["f32"])
    assert any("1 scan of about" in text for text in outcome.given_up) is remembered


@pytest.mark.parametrize("there", [True, False])
def test_a_faster_precision_for_the_rest(
    there: bool,
    scans: list[Path],
    make: Callable[..., Detector],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10 s a scan, 25 s for three; in int8 2 s, so that all three are searched."""

    def slow() -> None:
        clock.now += 10

    def quick() -> None:
        clock.now += 2

    detector = make(cpus=1, hook=slow)
    faster = tmp_path / "faster-int8.xml"
    if there:
        faster.write_text("stands for another model")

    def load(name: str, model: Path, options: EngineOptions) -> Brightness:
        if not model.is_file():
            raise NetError(f"{model}: no such model file")
        engine = Brightness(quick)
        engine.precision = "int8"
        return engine

    monkeypatch.setattr("runtime.detect.load_engine", load)
    detector.settings = replace(detector.settings, precision_why="a reason", faster=(("int8", faster),))
    outcome = detect_all(detector, scans, tmp_path / "out", deadline_s=25)
    first, *rest = outcome.results
    assert (
        outcome.given_up[0]
        == "int8 from here on, though not proven for this model: 2 more scans of about 11.0 s in 15 s"
    )
    assert (first.precision, first.notes) == ("f32", ("a reason",))
    if there:
        assert outcome.unfinished == ()
        assert [result.precision for result in rest] == ["int8", "int8"]
        note = "int8: taken for the deadline, though not proven for this model"
        assert [result.notes for result in rest] == [(note,), (note,)]
        assert len({result.model_sha256 for result in outcome.results}) == 2
    else:
        assert outcome.given_up[1] == f"int8 could not be taken: {faster}: no such model file"
        assert [result.precision for result in rest] == ["f32"]
        assert outcome.unfinished == (str(scans[2]),)


def test_with_overlap_each_scan_says_what_it_ran_in(
    scans: list[Path], make: Callable[..., Detector], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second scan is in the network when the first is done, and is written when the third runs in int8."""
    runs: list[pipeline._Run] = []
    original = pipeline._Run._read_ahead

    def spy(run: pipeline._Run, number: int, threads: int) -> None:
        runs.append(run)
        original(run, number, threads)

    def slow() -> None:
        clock.now += 10
        if runs[-1]._ahead is not None:
            runs[-1]._ahead[1].exception()  # waits: a scan that is slow to read would have the first one settled before

    monkeypatch.setattr(pipeline._Run, "_read_ahead", spy)
    detector = make(hook=slow)
    faster = tmp_path / "faster-int8.xml"
    faster.write_text("stands for another model")

    def load(*_: object) -> Brightness:
        engine = Brightness(slow)
        engine.precision = "int8"
        return engine

    monkeypatch.setattr("runtime.detect.load_engine", load)
    detector.settings = replace(detector.settings, faster=(("int8", faster),))
    outcome = detect_all(detector, scans, tmp_path / "out", deadline_s=38)
    assert [result.precision for result in outcome.results] == ["f32", "f32", "int8"]
    saved = [json.loads((tmp_path / "out" / f"{name}.json").read_text())["precision"] for name in ("c", "a", "b")]
    assert saved == ["f32", "f32", "int8"]


def test_what_takes_long_to_import_waits_until_it_is_needed() -> None:
    """Half of the time to the first window once went into libraries that most scans never need."""
    slow = ("scipy", "pydicom", "SimpleITK", "matplotlib", "onnx", "openvino", "torch", "rich")
    code = f"import sys, runtime.detect, runtime.pipeline; print([m for m in {slow!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_are_bounded_before_numpy_is_loaded() -> None:
    code = "import sys, runtime.budget, runtime.cores, runtime.deadline, commands.scans; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
