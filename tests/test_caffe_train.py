"""`rpn3d caffe train`: feeds, log, tests, signals; a run that was killed or stopped ends as if it had not been."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT

from caffe_models.errors import NetError, Rpn3dError
from train.array_feed import ArrayFeed
from train.caffe_train import Trained, train_on_arrays
from train.step_log import StepLog, cut
from train.stop_signals import StopSignals

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "goal" type: "Input" top: "goal" input_param { shape { dim: 2 dim: 2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "goal" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 type: "Adam" snapshot_prefix: "snap"\n'
COUNT = 1500
SHAPES = {"data": (2, 3), "goal": (2, 2)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def arrays(count: int, *lead: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=(count, *lead, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def fill(folder: Path, text: str = "", count: int = 10, passes: int = 1) -> Path:
    """A folder to train in."""
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER + text)
    np.savez(folder / "feed.npz", **arrays(count, passes))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(fill(tmp_path / "here"))
    return Path()


def train(here: Path, **more: Any) -> Trained:
    return train_on_arrays(here / "solver.prototxt", here / "feed.npz", here / "log", **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "rpn3d", "caffe", "train", "solver.prototxt", "--feed", "feed.npz", "--log", "log"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "--cpus", "1", *options], cwd=folder, env=environment, text=True, stdout=-1, stderr=-1
    )


def wait_for(found: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "a minute has passed"
        time.sleep(0.002)


def newest(folder: Path) -> str:
    return max(folder.glob("[!.]*.solverstate"), key=lambda path: int(path.stem.rpartition("_")[2])).name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = fill(tmp_path_factory.mktemp("runs") / "whole", "snapshot: 100", COUNT)
    done = start(folder)
    out, err = done.communicate()
    assert (done.returncode, out) == (0, f"{COUNT} iterations, snap_iter_{COUNT}.solverstate\n"), err
    assert [line["iteration"] for line in lines(folder / "log")] == list(range(COUNT))
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_a_run_that_was_ended_ends_as_if_it_had_not_been(whole: Path, tmp_path: Path, number: int) -> None:
    """Killed somewhere after its third snapshot (or told to stop, when it writes one more), then resumed."""
    folder = fill(tmp_path / "run", "snapshot: 100", COUNT)
    process = start(folder)
    wait_for((folder / "snap_iter_300.solverstate").exists, process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    logged = lines(folder / "log")
    if number != signal.SIGKILL:
        assert newest(folder) == f"snap_iter_{len(logged)}.solverstate"
        assert f"{signal.Signals(number).name}: stopped after {len(logged)} iterations" in err
    assert 300 <= len(logged) < COUNT
    resumed = start(folder, "--snapshot", newest(folder), "--quiet")
    assert resumed.communicate() == ("", "")
    for end in ("caffemodel", "solverstate"):
        name = f"snap_iter_{COUNT}.{end}"
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert (folder / "log").read_text() == (whole / "log").read_text()


def raising(monkeypatch: pytest.MonkeyPatch, number: int, at: int) -> None:
    """The signal arrives while iteration `at` is logged."""
    write = StepLog.write

    def then_raise(log: StepLog, content: Any) -> None:
        write(log, content)
        if content["iteration"] == at:
            signal.raise_signal(number)

    monkeypatch.setattr(StepLog, "write", then_raise)


def test_ctrl_c_ends_a_run_with_a_snapshot_that_is_gone_on_from(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without snapshot_after_train: nobody wants to lose the work. A second Ctrl-C acts at once."""
    fill(Path.cwd(), "snapshot_after_train: false")
    before = signal.getsignal(signal.SIGINT)
    raising(monkeypatch, signal.SIGINT, 6)
    done = train(here)
    assert (done.stopped_by, done.snapshot) == (signal.SIGINT, Path("snap_iter_7.solverstate"))
    assert signal.getsignal(signal.SIGINT) is before
    assert train(here, snapshot=done.snapshot).solver.iteration == 10
    assert [line["iteration"] for line in lines(here / "log")] == list(range(10))
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.stop == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_sighup_has_a_snapshot_written_and_the_run_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(Path.cwd(), "snapshot_after_train: false")
    raising(monkeypatch, signal.SIGHUP, 3)
    done = train(here)
    assert (done.stopped_by, done.snapshot, done.solver.iteration) == (None, Path("snap_iter_4.solverstate"), 10)
    assert len(lines(here / "log")) == 10


def test_the_log_and_progress_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(Path.cwd(), "display: 4 max_iter: 12 iter_size: 2", 10, 2)
    done = train(here, quiet=False)
    assert [set(line) for line in lines(here / "log")] == [{"iteration", "lr", "losses"}] * 10
    assert done.snapshot == Path("snap_iter_10.solverstate")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "feed.npz: holds 10 of max_iter 12 iterations; the run ends with them"
    assert [line.split(":")[0] for line in said[1:]] == ["iteration 4/10", "iteration 8/10", "iteration 10/10"]
    assert " lr 0.01, " in said[1]
    assert said[1].endswith(" left")


def test_on_a_terminal_there_is_a_bar_with_the_time_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    written = []
    for quiet in (False, True):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        train(here, quiet=quiet)
        written.append(terminal.getvalue())
    assert "10/10" in written[0]
    assert "loss " in written[0]
    assert "0:00:0" in written[0]
    assert written[1] == ""


def test_the_log_may_be_standard_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_on_arrays(here / "solver.prototxt", here / "feed.npz", Path("-"))
    written = capsys.readouterr()
    assert [json.loads(line)["iteration"] for line in written.out.splitlines()] == list(range(10))
    assert written.err == ""
    assert not Path("-").exists()


def test_a_last_snapshot_is_written_once_and_only_if_wanted(here: Path) -> None:
    fill(Path.cwd(), "snapshot: 5 snapshot_after_train: false")
    assert train(here).snapshot == Path("snap_iter_10.solverstate")
    fill(Path.cwd(), "snapshot_after_train: false max_iter: 7")
    assert train(here).snapshot is None
    assert sorted(path.name for path in here.glob("*.solverstate")) == [
        "snap_iter_10.solverstate",
        "snap_iter_5.solverstate",
    ]
    fill(Path.cwd(), "max_iter: 5")
    assert train(here, snapshot=here / "snap_iter_5.solverstate").snapshot is None  # nothing was left to do


def test_the_seed_may_be_given(here: Path) -> None:
    logs = []
    for seed in (1, 1, 2):
        train(here, seed=seed)
        logs.append((here / "log").read_text())
    assert logs[0] == logs[1] != logs[2]


def test_test_nets_are_run_when_caffe_would(here: Path) -> None:
    """Before iterations 0, 4 and 8 and after the last if it is due; two nets, the second of one pass."""
    fill(Path.cwd(), "test_iter: 2 test_iter: 1 test_interval: 5 test_compute_loss: true snapshot: 5")
    np.savez(here / "test.npz", **arrays(3))
    tests = [here / "test.npz"] * 2
    train(here, test_feeds=tests)
    log = lines(here / "log")
    tested = [line for line in log if "test" in line]
    assert [(line["iteration"], line["test_net"]) for line in tested] == [(n, k) for n in (0, 5, 10) for k in (0, 1)]
    assert all(set(line["test"]) == {"loss"} and line["test_loss"] == line["test"]["loss"] for line in tested)
    assert tested[0]["test"] != tested[1]["test"]
    whole = (here / "log").read_text()
    train(here, test_feeds=tests, snapshot=here / "snap_iter_5.solverstate")
    assert (here / "log").read_text() == whole
    train(here)
    assert lines(here / "log") == [line for line in log if "test" not in line]


def test_missing_test_feeds_are_mentioned_and_wrong_ones_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Path.cwd(), "test_iter: 2 test_interval: 5")
    train(here, quiet=False)
    assert "there is no test feed: 1 test nets are left out" in capsys.readouterr().err
    np.savez(here / "test.npz", **arrays(1))
    with pytest.raises(NetError, match=r"test.npz: holds 1 passes, test_iter is 2"):
        train(here, test_feeds=[here / "test.npz"])
    with pytest.raises(NetError, match="2 test feeds for 1 test nets"):
        train(here, test_feeds=[here / "test.npz"] * 2)


def test_a_loss_that_is_no_number_is_null_in_the_log_and_said_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 1e30 lr_policy: "fixed" display: 100\n')
    train(here, quiet=False)
    assert lines(here / "log")[-1]["losses"] == {"loss": None}
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert "the loss is" in said
    assert "lower base_lr" in said


def edit(**new: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda held: {**held, **new}


NAN = arrays(10, 1)["data"]
NAN[7, 0, 1, 2] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: {"data": held["data"]}, "has no array for input goal; it holds data"),
        (edit(goal=np.zeros((9, 1, 2, 2))), "the arrays differ in the number of iterations: data 10, goal 9"),
        (edit(data=np.zeros((10, 2, 2, 3))), r"data has shape \(10, 2, 2, 3\); allowed: \(iterations, 1, 2, 3\)"),
        (edit(data=np.zeros((10, 1, 3, 2))), r"data has shape \(10, 1, 3, 2\); allowed: \(iterations, 1, 2, 3\)"),
        (edit(data=np.float32(3)), r"data has shape \(\); allowed"),
        (edit(data=np.full((10, 1, 2, 3), "x")), "data holds <U1; allowed: floats, integers, bool"),
        (edit(data=np.full((10, 1, 2, 3), None)), "data holds object; allowed"),
        (edit(data=NAN), r"data\[7, 0, 1, 2\] is nan; every number must be finite"),
        (edit(data=np.full((10, 1, 2, 3), 1e300)), r"data\[0, 0, 0, 0\] is inf; every number"),
        (lambda held: {name: array[:0] for name, array in held.items()}, "holds no iteration"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_before_the_first_step(
    here: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    np.savez(here / "feed.npz", **change(arrays(10, 1)))
    with pytest.raises(NetError, match=f"^feed.npz: {message}"):
        train(here)
    assert not (here / "log").exists()


def test_files_that_are_no_feed_are_refused(here: Path) -> None:
    good = (here / "feed.npz").read_bytes()
    bad = {"text": b"nothing", "empty": b"", "cut": good[: len(good) // 2]}
    flipped = bytearray(good)
    flipped[len(good) // 4] ^= 0xFF  # within the numbers: only the checksum tells
    for name, data in {**bad, "flipped": bytes(flipped)}.items():
        (here / "feed.npz").write_bytes(data)
        with pytest.raises(NetError, match=r"^feed.npz: (cannot be read as .npz|data.* is |.*ends before)"):
            train(here)
        assert not (here / "log").exists(), name
    with pytest.raises(NetError, match=r"^absent.npz: cannot be read as .npz"):
        train_on_arrays(here / "solver.prototxt", Path("absent.npz"), here / "log")


def test_weights_and_snapshot_exclude_each_other(here: Path) -> None:
    with pytest.raises(Rpn3dError, match="not both"):
        train(here, weights=Path("a"), snapshot=Path("b"))


def test_a_snapshot_folder_that_cannot_be_written_is_found_before_the_first_step(here: Path) -> None:
    (here / "taken").write_text("a file")
    (here / "solver.prototxt").write_text(SOLVER.replace('"snap"', '"taken/snap"'))
    with pytest.raises(OSError, match="taken"):
        train(here)
    assert not (here / "log").exists()


@pytest.mark.parametrize("kind", ["plain", "compressed", "fortran", "float64", "int8"])
def test_a_feed_gives_the_same_numbers_however_they_are_stored(tmp_path: Path, kind: str) -> None:
    whole = np.arange(5 * 2 * 3 * 4).reshape(5, 2, 3, 4) - 60
    dtype = {"float64": np.float64, "int8": np.int8}.get(kind, np.float32)
    stored = whole.astype(dtype, order="F" if kind == "fortran" else "C")
    path = tmp_path / "feed.npz"
    (np.savez_compressed if kind == "compressed" else np.savez)(path, x=stored, other=np.zeros(3))
    feed = ArrayFeed(path, {"x": (3, 4)}, (2,), "iterations")
    assert (feed.count, feed.unused) == (5, ("other",))
    for start in (0, 3):
        steps = list(feed.steps(start, 5))
        assert len(steps) == 5 - start
        for step, found in enumerate(steps, start):
            assert found["x"].dtype == np.float32
            assert found["x"].flags.writeable
            np.testing.assert_array_equal(found["x"], whole[step])


def test_a_large_feed_is_not_held_in_memory(tmp_path: Path) -> None:
    """Forty megabytes are read with less than eight in use."""
    import tracemalloc

    np.savez(tmp_path / "feed.npz", x=np.zeros((40, 1, 250_000), np.float32))
    feed = ArrayFeed(tmp_path / "feed.npz", {"x": (250_000,)}, (1,), "iterations")
    tracemalloc.start()
    feed.check(0, 40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_cutting_a_log_loses_nothing_but_what_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    kept = ['{"iteration": 0}', "a remark", '{"note": "mine"}', '{"iteration": 4, "test": {}}', "[1]", ""]
    later = ['{"iteration": 5}', '{"iteration": 6}']
    path.write_text("\n".join([*kept[:4], later[0], *kept[4:5], later[1], '{"iterat']))
    cut(path, 5)
    assert path.read_text().split("\n") == kept
    with StepLog(path, resume_at=5) as log:
        log.write({"iteration": 5, "losses": {"a": float("inf"), "b": [1.0, float("nan")]}})
    assert path.read_text().split("\n")[-2] == '{"iteration": 5, "losses": {"a": null, "b": [1.0, null]}}'
