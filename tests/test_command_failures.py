"""Every Caffe command given what it cannot use: exit code 2, one line that names the file, nothing written.

The command line runs in this process, as `main` does; a traceback would fail the test.
"""

import gzip
import io
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import rpn3d
from caffe_models.weights import SolverState, write_caffemodel, write_solverstate

NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
layer { name: "r" type: "ReLU" bottom: "c" top: "out" }
"""
TRAIN = NET + (
    'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 dim: 6 } } }\n'
    'layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "out" bottom: "t" top: "l" }\n'
)
SOLVER = 'net: "train.prototxt"\nbase_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU snapshot_prefix: "snap"\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one good and many bad files of each kind, which is the working folder too."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("train.prototxt").write_text(TRAIN)
    Path("solver.prototxt").write_text(SOLVER)
    rng = np.random.default_rng(0)
    blobs = [rng.normal(size=(2, 1, 3, 3, 3)).astype(np.float32), np.zeros(2, np.float32)]
    write_caffemodel("good.caffemodel", {"c": blobs}, "small", {"c": "Convolution"})
    history = [np.zeros_like(blob) for blob in blobs]
    write_solverstate("good.solverstate", SolverState(1, "good.caffemodel", 0, history))
    np.savez("in.npz", data=np.ones((1, 1, 6, 6, 6), np.float32))
    np.savez("feed.npz", data=np.ones((2, 1, 1, 1, 6, 6, 6), np.float32), t=np.ones((2, 1, 1, 2, 6, 6, 6), np.float32))
    model = Path("good.caffemodel").read_bytes()
    Path("folder").mkdir()
    Path("empty").write_bytes(b"")
    Path("cut").write_bytes(model[: len(model) // 2])
    Path("noise").write_bytes(np.random.default_rng(1).bytes(5000))
    Path("gzip").write_bytes(gzip.compress(model))
    Path("lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    Path("page").write_text("<!DOCTYPE html><html><body>404</body></html>")
    Path("utf16").write_text(NET, encoding="utf-16")
    Path("pickle").write_bytes(b"\x80\x02}q\x00.")
    Path("onnx").write_bytes(b"\x08\x08\x12\x05rpn3d:\x10\n\x05\n\x01a\x12\x00\x12\x01gZ\x04\n\x02in")
    Path("zip").write_bytes(Path("in.npz").read_bytes())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """Exit code and the lines on standard error of `rpn3d WORDS`."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rpn3d", *words])
        code = 0
        try:
            rpn3d.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return code, capsys.readouterr().err.splitlines()


def run_net(
    net: str = "net.prototxt", weights: str = "good.caffemodel", inputs: str = "in.npz", *more: str
) -> list[str]:
    return ["caffe", "run", net, weights, "--inputs", inputs, "--outputs", "out.npz", *more]


def convert(net: str = "net.prototxt", weights: str = "good.caffemodel", out: str = "out.xml") -> list[str]:
    return ["convert", net, weights, "-o", out, "--no-parity"]


def train(solver: str = "solver.prototxt", feed: str = "feed.npz", *more: str) -> list[str]:
    return ["caffe", "train", solver, "--feed", feed, "--log", "out.jsonl", *more]


EVER_BAD = ("missing", "folder", "empty", "cut", "noise", "gzip", "lfs", "page", "utf16", "pickle", "onnx")
TEXT_BAD = (*EVER_BAD, "zip", "good.caffemodel", "good.solverstate")
ARGUMENTS: dict[str, tuple[Callable[[str], list[str]], tuple[str, ...]]] = {
    "run: net": (lambda bad: run_net(net=bad), (*TEXT_BAD, "solver.prototxt")),
    "run: weights": (lambda bad: run_net(weights=bad), (*EVER_BAD, "zip", "net.prototxt", "good.solverstate")),
    "run: inputs": (lambda bad: run_net(inputs=bad), (*EVER_BAD, "net.prototxt", "good.caffemodel")),
    "convert: net": (lambda bad: convert(net=bad), (*TEXT_BAD, "solver.prototxt")),
    "convert: weights": (lambda bad: convert(weights=bad), (*EVER_BAD, "zip", "net.prototxt", "good.solverstate")),
    "train: solver": (lambda bad: train(solver=bad), (*TEXT_BAD, "net.prototxt")),
    "train: feed": (lambda bad: train(feed=bad), (*EVER_BAD, "net.prototxt", "good.caffemodel")),
    "train: weights": (
        lambda bad: train("solver.prototxt", "feed.npz", "--weights", bad),
        (*EVER_BAD, "zip", "net.prototxt", "good.solverstate"),
    ),
    "train: snapshot": (
        lambda bad: train("solver.prototxt", "feed.npz", "--snapshot", bad),
        (*EVER_BAD, "zip", "net.prototxt", "good.caffemodel"),
    ),
    "inspect": (
        lambda bad: ["caffe", "inspect", bad],
        ("missing", "folder", "empty", "lfs", "page", "utf16", "solver.prototxt"),
    ),
}


@pytest.mark.parametrize(("argument", "bad"), [(key, bad) for key, (_, kinds) in ARGUMENTS.items() for bad in kinds])
def test_the_wrong_file(argument: str, bad: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in files.iterdir()}
    code, lines = run(capsys, *ARGUMENTS[argument][0](bad))
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"rpn3d: {bad}"), lines
    assert {path.name for path in files.iterdir()} == before


def test_good_files_work(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the tests above would prove nothing."""
    assert run(capsys, *run_net()) == (0, [])
    assert run(capsys, *convert())[0] == 0
    assert run(capsys, *train())[0] == 0
    assert {"out.npz", "out.xml", "out.bin", "out.jsonl"} <= {path.name for path in files.iterdir()}


def test_line_ends_and_byte_order_marks_are_no_mistake(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "dos").write_bytes(b"\xef\xbb\xbf" + NET.replace("\n", "\r\n").encode())
    assert run(capsys, *run_net("dos")) == (0, [])


def test_a_net_of_training_data_says_what_to_write(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = 'layer { name: "data" type: "Data" top: "data" data_param { source: "train_lmdb" backend: LMDB } }'
    (files / "x").write_text(NET.replace(NET.splitlines()[1], data))
    code, lines = run(capsys, *run_net("x"))
    assert code == 2
    assert lines == [line for line in lines if line.startswith('rpn3d: x:2: layer "data" (Data): reads a LevelDB')]
    assert 'type: "Input" top: "data"' in lines[0]


def test_a_solver_where_a_net_is_needed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "looks like the solver's text, the net's is needed" in run(capsys, *run_net("solver.prototxt"))[1][0]
    assert "looks like the net's text, the solver's is needed" in run(capsys, *train("net.prototxt"))[1][0]


def npz(**arrays: np.ndarray) -> None:
    np.savez("bad.npz", **arrays)  # type: ignore[arg-type]


def object_array() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch out.npz",)

    np.savez("bad.npz", data=np.array([Evil()], dtype=object))


def header(text: str) -> None:
    """An .npz whose array has this header and nothing behind it."""
    made = io.BytesIO()
    made.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    with zipfile.ZipFile("bad.npz", "w") as archive:
        archive.writestr("data.npy", made.getvalue())


ONES = np.ones((1, 1, 6, 6, 6), np.float32)
INPUTS: dict[str, tuple[Callable[[], None], str]] = {
    "another name": (lambda: npz(date=ONES), "has no array for input data; it holds date"),
    "nothing": (lambda: npz(), "has no array for input data; it holds nothing"),
    "channels": (lambda: npz(data=np.ones((1, 2, 6, 6, 6))), r"data has shape \(1, 2, 6, 6, 6\); allowed: .*, 1, any"),
    "axes": (lambda: npz(data=np.ones((1, 1, 6, 6))), r"data has shape \(1, 1, 6, 6\); allowed: "),
    "no values": (lambda: npz(data=np.ones((1, 1, 0, 6, 6))), r"data has shape \(1, 1, 0, 6, 6\); allowed: "),
    "texts": (lambda: npz(data=np.array(["a"])), "data is an array of <U1; numbers are needed"),
    "complex": (lambda: npz(data=ONES * 1j), "data is an array of complex"),
    "objects": (object_array, "data is an array of object; numbers are needed"),
    "not a number": (lambda: npz(data=ONES * np.nan), "data has 216 values that are not finite"),
    "beyond float32": (lambda: npz(data=ONES.astype(np.float64) * 1e300), "data has 216 values that are not finite"),
    "terabytes": (
        lambda: header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 9999999, 9999, 999)}\n"),
        r"(memory|values)",
    ),
    "terabytes in one axis": (
        lambda: header("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999,)}\n"),
        r"data has shape \(999999999999999,\); allowed",
    ),
    "a header that is code": (lambda: header("__import__('os').system('touch out.npz')\n"), "cannot be read as .npz"),
    "a header without end": (lambda: header("(" * 9000 + "\n"), "cannot be read as .npz"),
    "cut short": (
        lambda: header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 6, 6, 6)}\n"),
        "cannot be read as .npz",
    ),
}


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_do_not_fit(case: str, engine: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, says = INPUTS[case]
    make()
    code, lines = run(capsys, *run_net("net.prototxt", "good.caffemodel", "bad.npz", "--engine", engine))
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("rpn3d: bad.npz: ") or case == "terabytes"
    assert re.search(says, lines[0]), lines[0]
    assert not (files / "out.npz").exists()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_numbers_of_other_kinds_and_sizes_are_taken(
    engine: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("other.npz", data=np.ones((1, 1, 8, 7, 9), np.int16), more=np.zeros(3))
    assert run(capsys, *run_net("net.prototxt", "good.caffemodel", "other.npz", "--engine", engine)) == (0, [])
    with np.load("out.npz") as found:
        assert found["out"].shape == (1, 2, 8, 7, 9)


OUTPUTS = {
    "suffix of run": [*run_net()[:-1], "out.txt"],
    "run into a folder": [*run_net()[:-1], "folder.npz"],
    "suffix of convert": convert(out="out.bin"),
    "convert into a file's folder": convert(out="net.prototxt/out.xml"),
    "run into a file's folder": [*run_net()[:-1], "net.prototxt/out.npz"],
    "log into a file's folder": [*train()[:-1], "net.prototxt/out.jsonl"],
    "blob that is not there": [*run_net(), "--blobs", "nothing"],
    "engine that is not there": [*run_net(), "--engine", "caffe"],
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_that_cannot_be(case: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "folder.npz").mkdir()
    before = {path.name for path in files.iterdir()}
    code, lines = run(capsys, *OUTPUTS[case])
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("rpn3d: ")
    assert {path.name for path in files.iterdir()} == before


@pytest.mark.parametrize(
    "command", [run_net(), convert(out="out.onnx"), convert(), [*train(), "--quiet"]], ids=lambda words: words[1]
)
def test_a_full_disk(command: list[str], files: Path) -> None:
    """No file may grow beyond 100 bytes, which the system answers as it does a full disk."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); sys.path.insert(0, sys.argv.pop(1)); "
        "sys.dont_write_bytecode = True; import rpn3d; rpn3d.main()"
    )
    before = {path.name for path in files.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), *command], capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert lines[0].startswith("rpn3d: ")
    assert {path.name for path in files.iterdir()} - {"out.jsonl"} == before
