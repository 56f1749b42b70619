"""Hostile files end soon, in little memory, in an error of ours; what is only large is read.

Every file of `hostile_files` is read in a process of its own (`hostile_reader`), whose time and memory are measured.
One second and 200 MB are meant; the bound here leaves room for a slow machine. `pytest -s` prints what was measured.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hostile_files import Hostile, all_files

FILES = all_files()
BOUND_S, BOUND_BYTES = 6.0, 200 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory by Linux's /proc")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each file, by its name."""
    folder = tmp_path_factory.mktemp("hostile")
    for index, file in enumerate(FILES):
        content = file.content.encode() if isinstance(file.content, str) else file.content
        (folder / f"file{index}").write_bytes(content)
    pairs = [(f"file{index}", file.reader) for index, file in enumerate(FILES)]
    (folder / "list.json").write_text(json.dumps(pairs))
    command = [sys.executable, str(ROOT / "tests" / "hostile_reader.py"), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(FILES), done.stderr
    for file, line in zip(FILES, lines, strict=True):
        print(f"{file.name:<42}{line['end']:<9}{line['seconds']:6.2f} s {line['bytes'] / 1e6:6.0f} MB")
    return {file.name: line for file, line in zip(FILES, lines, strict=True)}


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_ends_soon(file: Hostile, found: dict[str, dict[str, Any]]) -> None:
    result = found[file.name]
    assert result["end"] == ("refused" if file.says else "read"), result["text"]
    assert re.search(file.says, result["text"]), result["text"]
    assert "\n" not in result["text"]
    assert len(result["text"]) < 3000
    assert result["seconds"] < BOUND_S
    assert result["bytes"] < BOUND_BYTES


def test_names_are_unique() -> None:
    assert len({file.name for file in FILES}) == len(FILES) > 80
