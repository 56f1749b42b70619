"""`rpn3d detect` as a whole process keeps to `--memory`, and says the least that would do where it cannot."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_chest import write_chest

from bench.held import Usage, run_held
from convert.build import built_ir
from runtime.budget import give_back_free_memory, resident_bytes
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


KEPT_AND_GIVEN_BACK = f"""
import resource
import numpy as np
from runtime.budget import freed_memory_kept, resident_bytes

def new_pages(blocks):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        np.ones({64 * MIB}, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = resident_bytes()
with freed_memory_kept() as kept:
    new_pages(1)
    print(int(kept), new_pages(10), resident_bytes() - before)
print(resident_bytes() - before, new_pages(10), resident_bytes() - before)
"""


def test_freed_memory_is_kept_while_that_is_asked_for() -> None:
    """In a process of its own: in one that has run a thousand tests the heap may have room for the blocks."""
    done = subprocess.run([sys.executable, "-c", KEPT_AND_GIVEN_BACK], cwd=ROOT, capture_output=True, check=True)
    within, after = (list(map(int, line.split())) for line in done.stdout.splitlines())
    kept, pages, held = within
    assert kept
    assert pages < 100
    assert held > 60 * MIB
    held, pages, held_then = after
    assert max(held, held_then) < 20 * MIB
    assert pages > 10 * 64 * MIB // (2 << 20), "one by one again: at least a huge page for each 2 MiB"


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
