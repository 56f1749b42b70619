"""A plan in words and in JSON, and the speed it is priced with."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from runtime.budget import Budget
from runtime.engine_memory import engine_bytes
from runtime.engines.base import Engine, load_engine
from runtime.explain import explain, plan_content
from runtime.network_input import OUTSIDE
from runtime.plan import plan_windows
from runtime.speed import Sample, Speed, SpeedMemory, measure


def test_words_and_json_say_the_same() -> None:
    shape = (160, 160, 160)
    lung = np.ones(shape, dtype=bool)
    memory = engine_bytes(130 * 160 * 160, "int8") + lung.size
    plan = plan_windows(shape, lung, memory, "int8", held_bytes=0)
    budget = Budget(2, memory, "2 cores by the affinity mask, as much memory as was asked for")
    known = Speed((Sample(130 * 160 * 160, 1e-6),))
    text = "\n".join(explain(plan, budget, "openvino", "int8", ("a note",), known))
    content = plan_content(plan, known)
    assert budget.why in text
    assert "openvino int8; a note" in text
    assert plan.reason in text
    assert "instead of 1 x 160x160x160: 4.1 M voxels" in text
    assert "more memory than allowed" in text
    assert content["windows"] == len(plan.windows) > 1
    assert content["computed_voxels"] == content["windows"] * np.prod(content["window_voxel"])
    assert content["predicted_s"] == pytest.approx(content["computed_voxels"] * 1e-6, abs=0.01)
    assert content["others"][0]["fits"] is False
    json.dumps(content)


def memory(engine: Engine, folder: Path) -> SpeedMemory:
    return SpeedMemory(engine, 1, "0" * 64, folder)


def test_speed_is_measured_on_what_no_engine_can_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And told for lungs, which hold emptiness: nine tenths of the two seconds that the second window takes here."""
    monkeypatch.setattr("runtime.speed.time", SimpleNamespace(perf_counter=iter([1.0, 3.0]).__next__))

    class Watched:
        def __init__(self) -> None:
            self.given: list[np.ndarray] = []

        def __call__(self, data: np.ndarray, coord: np.ndarray) -> None:
            self.given.append(data)

        def release(self) -> None: ...

    engine = Watched()
    found = measure(engine)  # type: ignore[arg-type]
    assert found.each_s * found.voxels == pytest.approx(1.8)
    assert len(engine.given) == 2
    assert not any((data == OUTSIDE).any() for data in engine.given)


def test_speed_is_measured_once_and_remembered(onnx_file: Path, tmp_path: Path) -> None:
    engine = load_engine("openvino", onnx_file)
    first = memory(engine, tmp_path).known()
    (sample,) = first.samples
    assert 0 < sample.each_s < 1e-4
    assert memory(engine, tmp_path).known() == first
    memory(engine, tmp_path).add(Sample(10**7, 2e-6, True))
    assert memory(engine, tmp_path).speed.samples == (sample, Sample(10**7, 2e-6, True))
    for broken in ("broken", '{"some key": 3e-7}', json.dumps({key_of(tmp_path): 3e-7})):  # the last as 0.2.0 wrote it
        (tmp_path / "speed.json").write_text(broken)
        assert len(memory(engine, tmp_path).known().samples) == 1


def key_of(folder: Path) -> str:
    (key,) = json.loads((folder / "speed.json").read_text())
    return str(key)


def test_a_window_is_priced_by_the_last_of_its_kind() -> None:
    """Worked out by hand: 1 us a voxel measured on 96^3; whole lungs took 2 us, and 3 us beside a scan being read."""
    known = Speed((Sample(96**3, 1e-6),))
    assert known.predict(20_000_000) == pytest.approx(20)
    for each in (2.1e-6, 2e-6, 1.9e-6):
        known = known.with_sample(Sample(20_000_000, each))
    known = known.with_sample(Sample(20_000_000, 3e-6, beside=True))
    assert known.predict(16_000_000) == pytest.approx(32)
    assert known.predict(16_000_000, beside=True) == pytest.approx(48)
    assert known.predict(1_000_000, 3) == pytest.approx(3)  # of the size measured
    assert known.predict(1_000_000, 3, beside=True) == pytest.approx(3)  # of that size rather than of that company
    assert known.predict(5_000_000) == pytest.approx(10)  # nearer to 20 M than to 0.9 M
    for _ in range(5):  # the machine has become faster: what is older than the last five is forgotten
        known = known.with_sample(Sample(24_000_000, 1.5e-6))
    assert known.predict(16_000_000) == pytest.approx(24)
    assert len(known.samples) == 1 + 5 + 1
    with pytest.raises(ValueError, match="no window has been measured"):
        Speed().predict(1)


PREDICTED_TO_TAKEN = """
import statistics, sys, time
import numpy as np
from runtime.engines.base import Engine, load_engine
from runtime.speed import Sample, Speed

engine = load_engine("openvino", sys.argv[1])

def seconds(*size):
    # CPU time of one thread's work, which a busy machine changes less than the time on the clock
    data = np.full((1, 1, *size), 170, dtype=np.uint8)
    coord = np.zeros((1, 3, *(n // 4 for n in size)), dtype=np.float32)
    start = time.process_time()
    engine(data, coord)
    return time.process_time() - start

for _ in range(3):
    known = Speed()
    for _ in range(3):
        known = known.with_sample(Sample(96 * 96 * 128, seconds(96, 96, 128) / (96 * 96 * 128)))
    print(known.predict(96 * 112 * 128) / statistics.median(seconds(96, 112, 128) for _ in range(3)))
"""


def test_predicted_seconds_are_those_that_windows_then_take(onnx_file: Path) -> None:
    """Three scans, then a fourth of another size of the same kind: within 20 %, and at once in three tries.

    In a process of its own, as detection is: what thousands of tests did to the heap of theirs costs time by size.
    """
    command = [sys.executable, "-c", PREDICTED_TO_TAKEN, str(onnx_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ratios = [float(line) for line in done.stdout.split()]
    assert len(ratios) == 3
    assert any(0.8 < ratio < 1.2 for ratio in ratios), ratios


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    from small_onnx import write_small_detector

    return write_small_detector(tmp_path / "small.onnx")
