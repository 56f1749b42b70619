"""A training run that was killed at any moment, whose disk was full, or that was told to stop, loses nothing."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_training

import commands.train
import rpn3d
import train.prepare
from caffe_models.errors import Rpn3dError
from train.dataset import load_folder, save
from train.level import LOG_NAME
from train.run import RunSettings, TrainingStopped, only_run
from train.run import train as train_all
from train.snapshots import Snapshots
from train.step_log import StepLog

SETTINGS = RunSettings(seed=3, autocast=False, threads=1, tensorboard=False)


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    return tiny_training.write(tmp_path / "nets")


def run(solver: Path, out: Path, say: Callable[[str], None] = lambda _: None, **settings: Any) -> Path:
    return train_all([solver], [tiny_training.scan()], out, RunSettings(**{**vars(SETTINGS), **settings}), say)


def test_a_run_killed_at_any_moment_ends_as_one_that_never_stopped(
    solver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three snapshots and their pairs of files; the log ends in half a line as well."""
    whole = tmp_path / "whole"
    with tiny_training.copied_before_each_renaming(whole, tmp_path / "copies", monkeypatch) as copies:
        run(solver, whole)
    assert len(copies) == 12  # each file is renamed twice: by its writer, then by the pair's
    wanted = tiny_training.results(whole)
    assert [line["iteration"] for line in wanted["crop16/log.jsonl"]] == list(range(6))
    for copy in copies:
        assert any(path.name.startswith(".rpn3d_16_iter_") for path in (copy / "crop16").iterdir())
        with (copy / "crop16" / LOG_NAME).open("a") as log:
            log.write('{"iteration": 5, "lo')
        run(solver, copy)
        assert tiny_training.results(copy) == wanted, copy


def test_what_is_not_a_temporary_file_of_ours_stays(solver: Path, tmp_path: Path) -> None:
    """Old snapshots go, and what a kill left; nothing else."""
    level = tmp_path / "out" / "crop16"
    level.mkdir(parents=True)
    mine = ["rpn3d_16_iter_1.caffemodel.bak", "other_iter_1.caffemodel", ".hidden.caffemodel", ".notes-abc.json"]
    for name in [*mine, ".rpn3d_16_iter_2-abc_e12x.caffemodel"]:
        (level / name).write_text("mine")
    run(solver, tmp_path / "out", keep=2)
    left = {path.name for path in level.iterdir()}
    kept = {f"rpn3d_16_iter_{n}.{end}" for n in (4, 6) for end in ("caffemodel", "solverstate")}
    assert left == {*mine, *kept, LOG_NAME}


def test_broken_snapshots_push_out_no_whole_one(solver: Path, tmp_path: Path) -> None:
    """Iterations 4 and 6 are damaged: the run goes on from 2 and must not take the damaged ones for the last two."""
    run(solver, tmp_path, keep=0, iterations=6)
    level = tmp_path / "crop16"
    for n in (4, 6):
        (level / f"rpn3d_16_iter_{n}.solverstate").write_bytes(b"cut off")
    said: list[str] = []
    run(solver, tmp_path, said.append, keep=2, iterations=3)
    assert sum(line.startswith("passed over: ") for line in said) == 2
    assert Snapshots(level, "rpn3d_16").has(2)
    assert Snapshots(level, "rpn3d_16").has(3)


def test_a_run_killed_before_its_first_snapshot_starts_its_log_anew(solver: Path, tmp_path: Path) -> None:
    (tmp_path / "crop16").mkdir()
    (tmp_path / "crop16" / LOG_NAME).write_text('{"iteration": 0, "losses": {}}\n{"iteration": 1, "lo')
    run(solver, tmp_path)
    assert [line["iteration"] for line in tiny_training.results(tmp_path)["crop16/log.jsonl"]] == list(range(6))


def test_a_full_disk_at_a_snapshot_leaves_the_one_before(solver: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(solver, out, iterations=2)
    before = tiny_training.results(out)
    with tiny_training.full_disk(10_000), pytest.raises(Rpn3dError) as caught:
        run(solver, out)
    assert str(caught.value).startswith(f"{out}/crop16/rpn3d_16_iter_4.solverstate: the snapshot cannot be written (")
    assert "that of iteration 2 is whole" in str(caught.value)
    after = tiny_training.results(out)
    assert after.keys() == before.keys()
    assert {name: after[name] for name in after if name != f"crop16/{LOG_NAME}"} == {
        name: before[name] for name in before if name != f"crop16/{LOG_NAME}"
    }
    run(solver, out)
    run(solver, tmp_path / "whole")
    assert tiny_training.results(out) == tiny_training.results(tmp_path / "whole")


def test_a_full_disk_at_the_log_names_it(solver: Path, tmp_path: Path) -> None:
    with (
        tiny_training.full_disk(40),
        pytest.raises(Rpn3dError, match=r"crop16/log\.jsonl: cannot be written \(.*goes on from the la"),
    ):
        run(solver, tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_ends_the_run_after_the_iteration_with_a_snapshot(
    solver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """Through the command: it says how to go on, exits with 128 + the signal's number, and does go on."""
    out = tmp_path / "out"
    save(tiny_training.scan(), out / "prepared")
    monkeypatch.setattr(train.prepare, "prepare_all", lambda sources, folder, say, bar: folder)
    monkeypatch.setattr(commands.train, "NET", solver.with_name("deploy.prototxt"))
    write = StepLog.write

    def then_raise(log: StepLog, content: Any) -> None:
        write(log, content)
        if content["iteration"] == 2:
            signal.raise_signal(number)

    command = [
        "rpn3d",
        "train",
        "-o",
        str(out),
        "--phantoms",
        "0",
        "--crops",
        "16",
        "--levels",
        "1",
        "--no-bf16",
        "--seed",
        "3",
        "--validate-on",
        "0",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--cpus", "1"])
    with monkeypatch.context() as patch:
        patch.setattr(StepLog, "write", then_raise)
        with pytest.raises(SystemExit) as ended:
            rpn3d.main()
    assert ended.value.code == 128 + number
    said = capsys.readouterr().err
    assert f"{signal.Signals(number).name}: stopped after iteration 3 of crop16" in said
    assert "run the same command again to go on" in said
    assert Snapshots(out / "crop16", "rpn3d_16").has(3)
    with pytest.raises(SystemExit) as ended:
        rpn3d.main()
    assert ended.value.code in (0, None)
    train_all([solver], load_folder(out / "prepared"), tmp_path / "whole", SETTINGS, lambda _: None)
    wanted = tiny_training.results(tmp_path / "whole")
    assert tiny_training.results(out)["crop16/log.jsonl"] == wanted["crop16/log.jsonl"]
    assert (
        tiny_training.results(out)["crop16/rpn3d_16_iter_6.caffemodel"] == wanted["crop16/rpn3d_16_iter_6.caffemodel"]
    )


def test_sighup_has_a_snapshot_written_and_the_run_goes_on(
    solver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StepLog.write

    def then_raise(log: StepLog, content: Any) -> None:
        write(log, content)
        if content["iteration"] == 2:
            signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(StepLog, "write", then_raise)
    assert run(solver, tmp_path, keep=0).name == "rpn3d_16_iter_6.caffemodel"
    assert Snapshots(tmp_path / "crop16", "rpn3d_16").has(3)


def test_a_loss_that_is_no_number_ends_the_run_before_it_gets_into_a_snapshot(solver: Path, tmp_path: Path) -> None:
    solver.write_text(
        solver.read_text().replace("base_lr: 0.05", "base_lr: 1e30").replace("snapshot: 2", "snapshot: 1")
    )
    with pytest.raises(Rpn3dError, match=r"crop16, iteration \d: the loss is .*training has diverged .*lower base_lr"):
        run(solver, tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        only_run(tmp_path),
        pytest.raises(Rpn3dError, match=f"process {os.getpid()} trains there already"),
        only_run(tmp_path),
    ):
        pass
    with only_run(tmp_path):
        pass


def test_a_stopped_run_carries_the_signals_number() -> None:
    assert TrainingStopped(15, "x").number == 15
