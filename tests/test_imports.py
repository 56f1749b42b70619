"""The house rules that a reader can check by looking at imports, names and texts."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = {
    "prototxt": set[str](),
    "caffe_models": set[str](),
    "convert": {"caffe_models"},
    "runtime": {"caffe_models"},
    "train": {"caffe_models", "convert", "runtime"},
    "bench": {"prototxt", "caffe_models", "convert", "runtime", "train"},
    "commands": {"prototxt", "caffe_models", "convert", "runtime", "train", "bench"},
}
"""The column "may import": room -> the other rooms it may import."""

WITHOUT_TORCH = ("caffe_models", "runtime")
ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """First names of everything that is imported anywhere below `tree`; "." for relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = path.parts[0]
    found = set(imports(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    refused = (found & {*ROOMS, "rpn3d", "tests", "."}) - ROOMS[room] - {room}
    assert not refused, f"{path} imports {sorted(refused)}; {room} may import {sorted(ROOMS[room])}, absolutely"


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_a_machine_that_only_detects_needs_no_torch(room: str) -> None:
    names = [".".join(path.with_suffix("").parts) for path in MODULES if path.parts[0] == room]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("torch_engine")]
    load = f"for name in {names!r}: importlib.import_module(name)"
    code = f"import importlib, sys\n{load}\nassert 'torch' not in sys.modules, 'torch was loaded'"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_is_named_like_another() -> None:
    declared = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(encoding="utf-8"), re.DOTALL)
    assert declared is not None
    third = {name.replace("-", "_") for name in re.findall(r'"([\w-]+)"', declared[1])}
    taken = set(sys.stdlib_module_names) | third | {"torch", "onnxruntime", "nncf", "cc3d", "hypothesis", "pytest"}
    assert [str(path) for path in MODULES if path.stem in taken - {"__init__"}] == []


def test_no_text_names_a_folder_of_some_machine() -> None:
    pattern = re.compile(r"""(?:^|[\s"'=(:`])/(?:work|home|root|Users)/\w""", re.MULTILINE)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    found = []
    for name in listed.stdout.decode().splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix in {".npz", ".npy", ".png", ".caffemodel", ".onnx", ".bin"}:
            continue
        if pattern.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(name)
    assert found == []
