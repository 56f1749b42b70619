"""Preparing training data: stopped, killed and resumed; annotations that change; one report of what is wrong."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan_files import write_scan
from small_chest import GRID, LUNGS_MM, chest, write_chest
from typer.testing import CliRunner

from rpn3d import app
from runtime.volume import read_volume
from train import prepare_jobs
from train.dataset import IGNORE, TARGET, DatasetError, PreparedScan, load, load_folder
from train.nodule_library import InsertError
from train.phantom import make_phantom
from train.prepare import FAILURES, Sources, StoppedError, lung_volume, prepare_all

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
SMALL: dict[str, Any] = {"size": 96, "spacing_mm": (3.7, 3.7, 4.0), "step_mm": 3.7, "reoriented": False}
LEFT, RIGHT = LUNGS_MM


def row(seriesuid: str, place: tuple[float, float, float], diameter: float) -> str:
    return f"{seriesuid},{place[0]},{place[1]},{place[2]},{diameter}\n"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two scans and their annotations, laid out as LUNA16 is."""
    root = tmp_path / "LUNA16"
    for k, uid in enumerate(("1.3.1", "1.3.2")):
        write_chest(root / f"subset{k}" / f"{uid}.mhd", seed=k)
    (root / "CSVS").mkdir()
    (root / "CSVS" / "annotations.csv").write_text(HEADER + row("1.3.1", LEFT, 8) + row("1.3.2", RIGHT, 12))
    return root


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Two balls of soft tissue in lung, called as LIDC's nodules are."""
    index = np.indices((31, 31, 31)) - 15
    distance = np.sqrt((index**2).sum(axis=0))
    mask = np.stack([distance < 4, distance < 7])
    u8 = np.where(mask, 170, 48).astype(np.uint8)
    diameters = (6 * mask.sum(axis=(1, 2, 3)) / np.pi) ** (1 / 3)
    path = tmp_path / "cubes.npz"
    np.savez(path, u8=u8, mask=mask, diameter_mm=diameters, name=np.array(["0_nod1_ann0", "7_nod2_ann1"]))
    return path


def run(sources: Sources, out: Path) -> tuple[dict[str, PreparedScan], list[str]]:
    """The prepared scans by name, and what was said."""
    said: list[str] = []
    return {scan.seriesuid: scan for scan in load_folder(prepare_all(sources, out, said.append))}, said


def targets(scan: PreparedScan) -> list[tuple[float, ...]]:
    """World (x, y, z) and diameter of what is to be found."""
    assert scan.grid is not None
    rows = scan.nodules[scan.nodules[:, 4] == TARGET]
    return [(*np.round(scan.grid.to_world(r[:3]), 1).tolist(), float(r[3])) for r in rows]


def written(folder: Path) -> dict[str, int]:
    """When each array was written, to see that none is made twice."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/*.npy")}


def test_scans_are_prepared_once_and_nodules_lie_in_place(scans: Path, tmp_path: Path) -> None:
    found, said = run(Sources(scans=(scans,)), tmp_path / "out")
    assert targets(found["1.3.1"]) == [(*LEFT, 8)]
    assert targets(found["1.3.2"]) == [(*RIGHT, 12)]
    assert all(scan.mining for scan in found.values())
    assert [line.split(",")[0] for line in said if line.startswith("prepared ")] == [
        "prepared 1/2: 1.3.1",
        "prepared 2/2: 1.3.2",
    ]
    assert said[-1] == f"2 prepared scans with 2 nodules to find in {tmp_path / 'out'}"
    before = written(tmp_path / "out")
    again, said = run(Sources(scans=(scans,)), tmp_path / "out")
    assert written(tmp_path / "out") == before
    assert list(again) == list(found)
    assert not any(line.startswith("prepared ") for line in said)


def test_changed_annotations_arrive_without_new_voxels(scans: Path, library: Path, tmp_path: Path) -> None:
    sources = Sources(scans=(scans,), nodules=library, copies=1, per_copy=2)
    found, _ = run(sources, tmp_path / "out")
    assert sorted(found) == ["1.3.1", "1.3.1+0", "1.3.2", "1.3.2+0"]
    inserted = [one for one in targets(found["1.3.1+0"]) if one[3] != 8]
    assert len(inserted) == 2
    before = written(tmp_path / "out")
    (scans / "CSVS" / "annotations.csv").write_text(HEADER + row("1.3.1", RIGHT, 9.5))
    again, _ = run(sources, tmp_path / "out")
    assert targets(again["1.3.1"]) == [(*RIGHT, 9.5)]
    assert targets(again["1.3.1+0"]) == [*inserted, (*RIGHT, 9.5)]
    assert targets(again["1.3.2"]) == []
    assert written(tmp_path / "out") == before


def test_a_scan_whose_voxels_changed_is_prepared_anew_and_its_copies_with_it(
    scans: Path, library: Path, tmp_path: Path
) -> None:
    sources = Sources(scans=(scans,), nodules=library, copies=1, per_copy=1)
    run(sources, tmp_path / "out")
    write_chest(scans / "subset0" / "1.3.1.mhd", seed=7)
    _, said = run(sources, tmp_path / "out")
    assert [line.split(": ")[1].split(",")[0] for line in said if line.startswith("prepared ")] == ["1.3.1", "1.3.1+0"]


def test_a_nodule_left_out_is_in_no_copy(scans: Path, library: Path, tmp_path: Path) -> None:
    sources = Sources(scans=(scans / "subset0",), nodules=library, copies=1, per_copy=6)
    both, _ = run(sources, tmp_path / "out")
    one, said = run(replace(sources, leave_out=("7_nod2_ann1",)), tmp_path / "out")
    assert any(line.startswith("prepared 1/1: 1.3.1+0") for line in said)  # the copy that held both is made anew
    # the small ball is 8 mm, the large one 14 mm; they are scaled by 1.1 at most
    assert max(d for *_, d in targets(both["1.3.1+0"])) > 8.8 > max(d for *_, d in targets(one["1.3.1+0"]))
    with pytest.raises(InsertError, match=r'holds no nodule "0_nod1_ann1" to leave out; nearest: 0_nod1_ann0'):
        run(replace(sources, leave_out=("0_nod1_ann1",)), tmp_path / "out")


def test_one_report_names_everything_wrong(scans: Path, tmp_path: Path) -> None:
    (scans / "CSVS" / "annotations.csv").write_text(
        HEADER
        + row("1.3.1", LEFT, 8)
        + row("1.3.1", LEFT, 8)  # line 3
        + row("1.3.1", (0, 0, LEFT[2]), 5)  # between the lungs
        + row("1.3.1", (9000, 0, 0), 5)
        + row("1.3.2", RIGHT, 0)
        + row("1.3.9", RIGHT, 6)
    )
    (scans / "CSVS" / "annotations_excluded.csv").write_text(
        HEADER + row("1.3.2", (9000, 0, 0), -1) + row("1.3.2", LEFT, -1)
    )
    found, said = run(Sources(scans=(scans,)), tmp_path / "out")
    with (tmp_path / "out" / "annotations_report.csv").open() as stream:
        rows = [(r["problem"], r["where"], r["seriesuid"], r["done"]) for r in csv.DictReader(stream)]
    assert rows == [
        ("repeats a row", "annotations.csv:3", "1.3.1", "left out"),
        ("outside the lung mask", "annotations.csv:4", "1.3.1", "ignored"),
        ("outside the scan", "annotations.csv:5", "1.3.1", "left out"),
        ("diameter not above 0", "annotations.csv:6", "1.3.2", "ignored"),
        ("excluded, outside the scan", "annotations_excluded.csv:2", "1.3.2", "left out"),
        ("of a series not among the scans", "annotations.csv:7", "1.3.9", "left out"),
    ]
    assert sum(line.startswith("annotations: 1 ") for line in said) == 6
    assert targets(found["1.3.1"]) == [(*LEFT, 8)]
    assert found["1.3.2"].nodules[:, 4].tolist() == [IGNORE, IGNORE]


def test_a_scan_that_fails_is_named_and_the_rest_goes_on(scans: Path, tmp_path: Path) -> None:
    write_scan(scans / "subset0" / "1.3.0.mhd", np.full(GRID.shape, 40, np.int16), GRID)
    with (scans / "CSVS" / "annotations.csv").open("a") as stream:
        stream.write(row("1.3.0", LEFT, 5))
    found, said = run(Sources(scans=(scans,)), tmp_path / "out")
    assert list(found) == ["1.3.1", "1.3.2"]
    assert any(line.startswith("not prepared: 1.3.0: ") for line in said)
    assert any("of a scan that was not prepared" in line for line in said)
    assert (tmp_path / "out" / FAILURES).read_text().startswith("1.3.0: ")
    write_chest(scans / "subset0" / "1.3.0.mhd", seed=5)
    found, _ = run(Sources(scans=(scans,)), tmp_path / "out")
    assert list(found) == ["1.3.0", "1.3.1", "1.3.2"]
    assert not (tmp_path / "out" / FAILURES).exists()


def test_a_defect_on_one_scan_costs_only_that_scan(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_volume

    def sometimes(source: Any, threads: int) -> Any:
        if source.seriesuid == "1.3.1":
            raise ZeroDivisionError("as a defect would")
        return read(source, threads)

    monkeypatch.setattr(prepare_jobs, "read_volume", sometimes)
    found, said = run(Sources(scans=(scans,)), tmp_path / "out")
    assert list(found) == ["1.3.2"]
    assert "not prepared: 1.3.1: ZeroDivisionError: as a defect would" in said
    assert "Traceback" in (tmp_path / "out" / FAILURES).read_text()


def test_a_full_disk_stops_with_what_is_ready_kept(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = np.save, []

    def full(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 5:  # the second array of the second scan
            raise OSError(28, "No space left on device")
        save(*args)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(Sources(scans=(scans,)), tmp_path / "out")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["1.3.1"]
    _, said = run(Sources(scans=(scans,)), tmp_path / "out")
    assert [line.split(",")[0] for line in said if line.startswith("prepared ")] == ["prepared 1/1: 1.3.2"]


def test_ctrl_c_says_how_to_go_on(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(line: str) -> None:
        if line.startswith("prepared 1/2"):
            monkeypatch.setattr(prepare_jobs, "read_volume", lambda *_: signal.raise_signal(signal.SIGINT))

    with pytest.raises(StoppedError, match=r"stopped; 1 of 2 scans to prepare are ready .* the same command goes on"):
        prepare_all(Sources(scans=(scans,)), tmp_path / "out", stop)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from train.prepare import Sources, StoppedError, prepare_all
if __name__ == "__main__":
    sources = Sources(scans=(Path(sys.argv[1]),), phantoms=1, workers=2)
    try:
        prepare_all(sources, sys.argv[2], lambda text: print(text, flush=True))
    except StoppedError as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_several_processes_end_at_once_and_leave_no_half_scan(
    how: signal.Signals, scans: Path, root: Path, tmp_path: Path
) -> None:
    """The phantom takes long: it is being made when the others are ready and the signal comes."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, script, scans, out],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("prepared 2/3"):
            break
    if how == signal.SIGINT:
        os.killpg(running.pid, how)  # as a terminal does: every process gets it
    else:
        running.kill()
    # the end of the output comes only when the other processes have let go of it
    _, errors = running.communicate(timeout=60)
    if how == signal.SIGINT:
        assert errors.startswith("stopped; 2 of 3 scans to prepare are ready in ")
        assert "Traceback" not in errors
        assert running.returncode == 1
    for path in out.glob("[!.]*/scan.json"):
        assert load_arrays(path.parent)
    found, said = run(Sources(scans=(scans,)), out)
    assert list(found) == ["1.3.1", "1.3.2"]
    assert not any(line.startswith("prepared ") for line in said)
    assert not list(out.glob(".making-*"))


def load_arrays(path: Path) -> bool:
    return all(len(np.load(path / f"{name}.npy")) for name in ("voxels", "lung", "lung_sample"))


def test_two_runs_do_not_prepare_into_one_folder(scans: Path, tmp_path: Path) -> None:
    def second(line: str) -> None:
        with pytest.raises(DatasetError, match="another run is preparing there"):
            prepare_all(Sources(scans=(scans,)), tmp_path / "out", lambda _: None)

    prepare_all(Sources(scans=(scans / "subset0",)), tmp_path / "out", second)


def test_phantoms_have_the_nodules_asked_for_and_are_made_anew_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def small(seed: int, nodules: int | None = None) -> Any:
        asked.append(nodules)
        return make_phantom(seed, nodules=1, diameters_mm=(20.0,), **SMALL)

    monkeypatch.setattr(prepare_jobs, "make_phantom", small)
    sources = Sources(phantoms=1, phantom_seed=12, phantom_nodules=3)
    found, _ = run(sources, tmp_path / "out")
    (scan,) = found.values()
    assert (scan.seriesuid, scan.mining) == ("phantom-000012", True)
    assert [d for *_, d in targets(scan)] == pytest.approx([20.0], abs=0.01)
    run(sources, tmp_path / "out")
    run(Sources(phantoms=1, phantom_seed=12), tmp_path / "out")
    assert asked == [3, None]


def test_scans_of_other_sources_are_kept_and_not_used(scans: Path, tmp_path: Path) -> None:
    run(Sources(scans=(scans,)), tmp_path / "out")
    found, said = run(Sources(scans=(scans / "subset0",)), tmp_path / "out")
    assert list(found) == ["1.3.1"]
    assert said[-1] == "1 other prepared scans there are not of these sources and are not used"
    assert load(tmp_path / "out" / "1.3.2").seriesuid == "1.3.2"


def test_lungs_nobody_annotated_are_never_mined(tmp_path: Path) -> None:
    u8 = np.clip((np.kron(chest(), np.ones((4, 4, 4))) + 1200) * 255 / 1800, 0, 255).astype(np.uint8)
    path = tmp_path / "lungs.npz"
    mass = np.array([[80.0, 100.0, 98.0, 40.0]])
    np.savez(path, u8=u8, origin_mm=np.zeros(3), direction=np.eye(3).ravel(), tumours=mass)
    volume, masses = lung_volume(path)
    assert volume.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert (masses[0].z_mm, masses[0].diameter_mm) == (98.0, 40.0)
    found, _ = run(Sources(backgrounds=(path,)), tmp_path / "out")
    assert not found["lungs"].mining
    assert found["lungs"].nodules[:, 3:].tolist() == [[40, IGNORE]]


def test_a_scan_given_twice_is_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"two scans of one name"):
        run(Sources(scans=(scans,), backgrounds=(scans / "subset0",)), tmp_path / "out")


def test_the_command_trains_on_what_is_not_held_out(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.run

    given: list[str] = []

    def trained(solvers: object, training: Sequence[PreparedScan], out: Path, *rest: object, **others: object) -> Path:
        given.extend(scan.seriesuid for scan in training)
        return out

    monkeypatch.setattr(train.run, "train", trained)
    (tmp_path / "held.csv").write_text("1.3.1\n")
    words = ["train", "-o", tmp_path / "out", "--phantoms", "0", "--scans", scans, "--cpus", "1", "--levels", "1"]
    done = CliRunner().invoke(app, [*map(str, words), "--validation", str(tmp_path / "held.csv")])
    assert done.exit_code == 0, done.output
    assert given == ["1.3.2"]
    assert "held out" in done.output
    assert (tmp_path / "out" / "split.csv").read_text().splitlines()[1:] == [
        "1.3.2,1.3.2,training",
        "1.3.1,1.3.1,validation",
    ]


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing to train on"):
        run(Sources(), tmp_path / "out")


def test_a_file_that_is_no_lung_volume_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(DatasetError, match=r"x\.npz: not a 1 mm lung volume"):
        lung_volume(tmp_path / "x.npz")
