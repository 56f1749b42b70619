"""docs/convert-your-caffe-net.md: every command and every program on the page runs and prints what the page shows."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "convert-your-caffe-net.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """(kind, text) of the page's code blocks, in order."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page)]


def comparable(text: str) -> list[str]:
    """Lines without trailing blanks; what rounding makes different from machine to machine is left out."""
    text = re.sub(r"largest difference \S+ of (\S+) at (\S+), \S+ \(", r"largest difference * of \1 at \2, * (", text)
    return [line.rstrip() for line in text.strip().splitlines()]


def check(found: str, shown: str, what: str) -> None:
    assert comparable(found) == comparable(shown), f"{what} prints:\n{found}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the two files of the page's beginning, and `rpn3d` on the path."""
    case = ROOT / "tests" / "golden" / "nets" / "bn5"
    (tmp_path / "net.prototxt").write_bytes((case / "deploy.prototxt").read_bytes())
    (tmp_path / "net.caffemodel").write_bytes((case / "weights.caffemodel").read_bytes())
    program = tmp_path / "bin" / "rpn3d"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rpn3d "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    paths = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, f"{command} ends with {done.returncode}:\n{done.stdout}"
    return done.stdout


def test_the_page_does_what_it_says(folder: Path) -> None:
    found = blocks(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _ in found].count("console") >= 6
    assert [kind for kind, _ in found].count("python") == 1
    for index, (kind, text) in enumerate(found):
        if kind == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                check(run(["sh", "-c", command], folder), shown, command)
        if kind == "python":
            assert len(text.strip().splitlines()) <= 10
            after, shown = found[index + 1]
            assert after == "text"
            check(run([sys.executable, "-c", text], folder), shown, "the program")


def test_the_commands_that_are_not_run_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", "".join(text for kind, text in blocks(page) if kind == "sh")))
    known = run([sys.executable, "-m", "rpn3d", "caffe", "run", "--help"], ROOT)
    assert options - {"--constraint"} <= set(re.findall(r"--[a-z-]+", known))


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_the_picture_is_of_the_net_as_it_is(tmp_path: Path) -> None:
    from caffe_models.draw import draw_net

    draw_net(ROOT / "prototxt" / "rpn3d" / "deploy.prototxt", tmp_path / "net.svg")

    def words(svg: Path) -> list[str]:
        return re.findall(r">([^<>\n]+)</text>", svg.read_text(encoding="utf-8"))

    kept = ROOT / "docs" / "rpn3d_net.svg"
    assert words(kept) == words(tmp_path / "net.svg")  # else: rpn3d caffe draw prototxt/rpn3d/deploy.prototxt -o ...
    assert kept.stat().st_size < 300_000
