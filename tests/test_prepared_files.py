"""Prepared scans on disk: mapped, whole or not at all, damage named."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from runtime.grid import Grid
from train import prepared_files
from train.prepared_files import (
    base_of,
    folder_name,
    load,
    load_folder,
    remove_leftovers,
    replacing_folder,
    save,
    write_index,
)
from train.prepared_scan import TARGET, DatasetError, PreparedScan

GRID = Grid((7, 8, 9), (1.0, 1.0, 1.0), (-3.5, 2.0, 10.25))


def scan(seriesuid: str = "1.2.3") -> PreparedScan:
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 255, GRID.shape).astype(np.uint8)
    nodules = np.array([[1, 2, 3.3, 4, TARGET]], np.float32)
    return PreparedScan(seriesuid, voxels, rng.random(GRID.shape) > 0.5, nodules, False, GRID)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    first = scan()
    assert save(first, tmp_path) == tmp_path / "1.2.3"
    (again,) = load_folder(tmp_path)
    assert (again.seriesuid, again.mining, again.grid, again.shape) == ("1.2.3", False, GRID, GRID.shape)
    for name in ("voxels", "lung", "nodules"):
        assert np.array_equal(getattr(again, name), getattr(first, name)), name
    assert [again.voxels.dtype.name, again.lung.dtype.name] == ["uint8", "bool"]
    everywhere = np.argwhere(np.ones(GRID.shape, bool))
    assert np.array_equal(again.in_lung(everywhere), first.lung.ravel())
    assert np.array_equal(first.in_lung(everywhere), first.lung.ravel())


def test_an_open_scan_holds_neither_voxels_nor_files(tmp_path: Path) -> None:
    save(scan(), tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    scans = [load(tmp_path / "1.2.3") for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(pickle.dumps(scans[0])) < 3000
    voxels = scans[0].voxels
    assert isinstance(voxels.base, np.memmap)
    assert not voxels.flags.writeable


def test_random_voxels_are_those_of_the_lung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_files, "LUNG_SAMPLE", 100)
    first = scan()
    save(first, tmp_path)
    stored = load(tmp_path / "1.2.3")
    rng = np.random.default_rng(1)
    for one, most in ((first, first.lung.sum()), (stored, 100)):
        drawn = np.array([one.random_lung_voxel(rng) for _ in range(3000)])
        assert first.lung[tuple(drawn.astype(int).T)].all()
        assert len(np.unique(drawn, axis=0)) == most
        assert np.allclose(drawn.mean(axis=0), np.argwhere(first.lung).mean(axis=0), atol=0.6)


def test_a_scan_without_lung_says_so() -> None:
    empty = PreparedScan(
        "s", np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), bool), np.zeros((0, 5), np.float32), True
    )
    with pytest.raises(DatasetError, match="s: its lung mask is empty"):
        empty.random_lung_voxel(np.random.default_rng(0))


def test_a_broken_or_missing_scan_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no prepared scan"):
        load_folder(tmp_path)
    (tmp_path / "old.npz").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="of an older version; prepare again"):
        load_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"old\.npz: a prepared scan of an older version"):
        load(tmp_path / "old.npz")
    path = save(scan(), tmp_path)
    voxels = (path / "voxels.npy").read_bytes()
    (path / "voxels.npy").write_bytes(voxels[:-1])
    with pytest.raises(DatasetError, match=r"voxels\.npy: not a whole array"):
        load(path)
    (path / "voxels.npy").write_bytes(voxels)
    for name in ("scan.json", "nodules.json"):
        text = (path / name).read_text()
        (path / name).write_text(text[:30])
        with pytest.raises(DatasetError, match=rf"{name}: .*prepare it again"):
            load(path)
        (path / name).write_text(text)
    head = json.loads((path / "scan.json").read_text())
    (path / "scan.json").write_text(json.dumps(head | {"format": 0}))
    with pytest.raises(DatasetError, match="prepared by another version"):
        load(path)


def test_only_the_scans_of_the_last_preparing_are_trained_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(scan(name), tmp_path)
    assert [one.seriesuid for one in load_folder(tmp_path)] == ["a", "b", "c"]
    write_index(tmp_path, ["c", "a"])
    assert [one.seriesuid for one in load_folder(tmp_path)] == ["c", "a"]
    write_index(tmp_path, ["d"])
    with pytest.raises(DatasetError, match=r"d/scan\.json"):
        load_folder(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = save(scan(), tmp_path)
    making = replacing_folder(path)
    (making.__enter__() / "voxels.npy").write_bytes(b"half")
    assert making.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert [one.name for one in tmp_path.iterdir()] == ["1.2.3"]
    load(path)
    (tmp_path / ".making-xyz").mkdir()  # as a kill leaves it
    (tmp_path / ".making-xyz" / "scan.json").write_text("{")
    assert len(load_folder(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["1.2.3"]


def test_names_of_copies_and_of_unusual_scans() -> None:
    assert (folder_name("1.2.3"), folder_name("1.2.3+12"), base_of("1.2.3+12")) == ("1.2.3", "1.2.3+12", "1.2.3")
    odd = folder_name("a/b c")
    assert "/" not in odd
    assert folder_name("a/b c+3") == f"{odd}+3"
    assert (base_of("a+b"), base_of("+3")) == ("a+b", "+3")
