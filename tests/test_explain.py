"""A plan in words and in JSON, and the speed it is priced with."""

import json
from pathlib import Path

import numpy as np
import pytest

from runtime import speed
from runtime.budget import Budget
from runtime.engine_memory import engine_bytes
from runtime.engines.base import load_engine
from runtime.explain import explain, plan_content
from runtime.plan import plan_windows


def test_words_and_json_say_the_same() -> None:
    shape = (160, 160, 160)
    lung = np.ones(shape, dtype=bool)
    memory = engine_bytes(130 * 160 * 160, "int8") + lung.size
    plan = plan_windows(shape, lung, memory, "int8", held_bytes=0)
    budget = Budget(2, memory, "2 cores by the affinity mask, as much memory as was asked for")
    text = "\n".join(explain(plan, budget, "openvino", "int8", ("a note",), 1e-6))
    content = plan_content(plan, 1e-6)
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


def test_speed_is_measured_once_and_remembered(onnx_file: Path, tmp_path: Path) -> None:
    engine = load_engine("openvino", onnx_file)
    first = speed.seconds_per_voxel(engine, 1, "0" * 64, tmp_path)
    assert 0 < first < 1e-4
    assert speed.seconds_per_voxel(engine, 1, "0" * 64, tmp_path) == first
    assert list(json.loads((tmp_path / "speed.json").read_text()).values()) == [first]
    (tmp_path / "speed.json").write_text("broken")
    assert speed.seconds_per_voxel(engine, 1, "0" * 64, tmp_path) > 0


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    from small_onnx import write_small_detector

    return write_small_detector(tmp_path / "small.onnx")
