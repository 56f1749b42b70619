"""Preparing training data: annotated scans, lungs that nobody annotated, inserted nodules, phantoms; resumable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import prepare
from train.dataset import TARGET, DatasetError, load
from train.phantom import make_phantom, write_phantoms
from train.prepare import Sources, lung_volume, prepare_all

SMALL: dict[str, Any] = {"size": 160, "spacing_mm": (2.2, 2.2, 2.5), "step_mm": 2.5, "reoriented": False}


def test_annotated_scans_and_phantoms_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = tmp_path / "scans"
    annotations = write_phantoms(scans, 1, 11, nodules=2, diameters_mm=(20.0, 24.0), **SMALL)
    monkeypatch.setattr(prepare, "make_phantom", lambda seed: make_phantom(seed, nodules=1, **SMALL))
    monkeypatch.setattr(prepare, "ProcessPoolExecutor", lambda max_workers: InThisProcess())
    sources = Sources(scans=(scans,), annotations=annotations, phantoms=1, phantom_seed=12)
    said: list[str] = []
    out = prepare_all(sources, tmp_path / "out", said.append)
    found = {path.stem: load(path) for path in out.glob("*.npz")}
    assert len(found) == 2
    for scan in found.values():
        assert scan.mining
        for row in scan.nodules[scan.nodules[:, 4] == TARGET]:
            z, y, x = np.round(row[:3]).astype(int)
            assert scan.lung[z, y, x]
    real = next(scan for name, scan in found.items() if not name.startswith("phantom-"))
    assert sorted(np.round(real.nodules[:, 3])) == [20, 24]
    said.clear()
    prepare_all(sources, tmp_path / "out", said.append)
    assert said == []


class InThisProcess:
    """Stands for a process pool, so that the small phantom of the test is used."""

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


def test_lungs_nobody_annotated_are_never_mined(tmp_path: Path) -> None:
    made = make_phantom(11, nodules=0, size=128, spacing_mm=(2.8, 2.8, 2.8), step_mm=2.8, reoriented=False)
    edge = np.repeat(np.repeat(np.repeat(made.volume.hu, 3, 0), 3, 1), 3, 2)[::1]
    u8 = np.clip((edge.astype(np.float32) + 1200) * 255 / 1800, 0, 255).astype(np.uint8)
    path = tmp_path / "lungs.npz"
    np.savez(
        path,
        u8=u8,
        origin_mm=np.zeros(3),
        direction=np.eye(3).ravel(),
        tumours=np.array([[10.0, 20.0, 30.0, 40.0]]),
    )
    volume, masses = lung_volume(path)
    assert volume.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert (masses[0].z_mm, masses[0].diameter_mm) == (30.0, 40.0)
    out = prepare_all(Sources(backgrounds=(path,)), tmp_path / "out", lambda _: None)
    assert not load(out / "lungs.npz").mining


def test_scans_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="without annotations"):
        prepare_all(Sources(scans=(tmp_path,)), tmp_path / "out", lambda _: None)


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing to train on"):
        prepare_all(Sources(), tmp_path / "out", lambda _: None)


def test_a_file_that_is_no_lung_volume_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(DatasetError, match=r"x\.npz: not a 1 mm lung volume"):
        lung_volume(tmp_path / "x.npz")
