"""`rpn3d detect` as a whole process keeps to `--memory`, and says the least that would do where it cannot."""

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from small_chest import write_chest

from bench.held import Usage, run_held
from convert.build import built_ir
from runtime.budget import freed_memory_kept, give_back_free_memory, resident_bytes
from runtime.find_scans import find_scans
from runtime.scan_stages import prepare

MIB = 1 << 20
ENOUGH_BYTES = 240 * MIB
"""More than the least, so that there are few windows and little work for the net."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chest(tmp_path_factory.mktemp("chest") / "chest.mha")


@pytest.fixture(scope="module")
def model() -> Path:
    net, weights = ROOT / "prototxt/rpn3d/deploy.prototxt", ROOT / "caffe_models/rpn3d.caffemodel"
    return built_ir(net, weights, "f32", lambda _: None)


def test_without_pictures_the_voxels_are_let_go(scan: Path) -> None:
    (source,) = find_scans([scan])
    with_pictures, without = prepare(source, 1).volume, prepare(source, 1, pictures=False).volume
    assert without.hu.size == 0
    assert without.size_bytes == with_pictures.size_bytes == with_pictures.hu.nbytes
    assert (without.grid, without.seriesuid) == (with_pictures.grid, with_pictures.seriesuid)


def test_freed_memory_goes_back_to_the_system() -> None:
    held = [b"x" * 100_000 for _ in range(1000)]
    before = resident_bytes()
    held = held[-1:]  # the last one, so that the heap does not shrink by itself
    give_back_free_memory()
    assert before - resident_bytes() > 60 * MIB


def new_pages(blocks: int) -> int:
    """Pages that the system gave anew while a large block was taken, written to and freed so many times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        np.ones(64 * MIB, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_while_that_is_asked_for() -> None:
    before = resident_bytes()
    with freed_memory_kept() as kept:
        assert kept
        new_pages(1)
        assert new_pages(10) < 1000
        assert resident_bytes() - before > 60 * MIB
    assert resident_bytes() - before < 20 * MIB
    assert new_pages(10) > 10 * 64 * MIB // (2 << 20), "one by one again: at least a huge page for each 2 MiB"


def detect(scan: Path, out: Path, model: Path, memory_bytes: int) -> Usage:
    command = [sys.executable, "-m", "rpn3d", "detect", str(scan), "-o", str(out), "--memory", str(memory_bytes)]
    return run_held([*command, "--precision", "f32", "--model", str(model), "--no-pictures"])


def test_the_whole_process_stays_below_its_memory(scan: Path, model: Path, tmp_path: Path) -> None:
    refused = detect(scan, tmp_path / "refused", model, 200 * MIB)
    said = re.search(r"memory of 200 MiB is too little .* need (\d+) MiB at least", refused.said)
    assert said is not None, refused.said
    assert refused.code == 2
    allowed = int(said[1]) * MIB + ENOUGH_BYTES
    usage = detect(scan, tmp_path, model, allowed)
    assert usage.code == 0, usage.said
    plan = json.loads((tmp_path / "chest.json").read_text())["plan"]
    assert plan["windows"] > 1
    assert not plan["others"][0]["fits"]  # memory is why
    assert 0.75 * plan["predicted_peak_bytes"] < usage.peak_rss_bytes < allowed
