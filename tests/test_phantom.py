"""Phantoms: the same seed gives the same scan; what the annotations say is there is there; files are whole."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from runtime.mark_files import read_annotations
from runtime.volume import read_volume
from train import phantom_files
from train.phantom import Phantom, make_phantom
from train.phantom_files import PhantomError, as_stored, write_phantom, write_phantoms
from train.phantom_make import random_orientation
from train.phantom_nodules import random_count, random_diameter, random_kind
from train.phantom_vessels import grow

QUICK: dict[str, Any] = {"size": 80, "spacing_mm": (4.0, 4.0, 3.0), "step_mm": 4.0}
SPACING: dict[str, Any] = {"size": 128, "spacing_mm": (2.6, 2.6, 2.5), "step_mm": 2.5}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(11, nodules=4, diameters_mm=(24.0, 18.0, 14.0, 12.0), **SPACING, reoriented=False)


def test_same_seed_same_bytes() -> None:
    one, two, other = (make_phantom(seed, **QUICK) for seed in (3, 3, 4))
    assert one.volume.hu.tobytes() == two.volume.hu.tobytes()
    assert one.nodules == two.nodules
    assert one.volume.grid == two.volume.grid
    assert one.volume.file_grid == two.volume.file_grid
    assert one.volume.seriesuid != other.volume.seriesuid
    assert one.volume.hu.tobytes() != other.volume.hu.tobytes()


def test_tissues_have_plausible_hu(phantom: Phantom) -> None:
    hu, lungs = phantom.volume.hu, phantom.lungs
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert hu.max() > 350  # cortex
    assert -920 < np.median(hu[lungs]) < -740
    middle = hu[hu.shape[0] // 2]
    body = middle > -300
    assert 0.1 < ((middle > -130) & (middle < -60)).sum() / body.sum() < 0.7  # fat
    assert 0.15 < ((middle > 20) & (middle < 120)).sum() / body.sum() < 0.85  # muscle, blood
    assert np.median(hu[:, 0]) < -950  # air around


def test_two_lungs_of_different_size(phantom: Phantom) -> None:
    # x runs to the patient's left: the right lung is in the lower half
    x = phantom.volume.grid.to_voxel(phantom.volume.grid.to_world((0, 0, 64)))[2]
    columns = phantom.lungs.sum(axis=(0, 1))
    right, left = columns[: int(x)].sum(), columns[int(x) :].sum()
    litres = np.array([right, left]) * phantom.volume.grid.voxel_ml / 1000
    assert (litres > 0.8).all()
    assert litres.sum() < 9
    assert abs(right - left) > 0.01 * (right + left)


def test_six_of_ten_nodules_are_small() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([random_diameter(rng) for _ in range(4000)])
    assert 0.57 < (sizes < 10).mean() < 0.63
    assert sizes.min() >= 3
    assert 27 < sizes.max() <= 30
    counts = [random_count(rng) for _ in range(500)]
    assert min(counts) == 0
    assert max(counts) == 12
    assert {random_kind(rng, 4.0) for _ in range(200)} == {"solid", "calcified"}


def contrast(hu: NDArray[Any], place: NDArray[Any], radius: NDArray[Any]) -> float:
    """Median HU in the ball of a third of `radius` (voxels) less that of the lung in the shell from 1.5 to 2.5."""
    index = np.indices(hu.shape).reshape(3, -1).T
    r = np.sqrt((((index - place) / radius) ** 2).sum(axis=1))
    values = hu.ravel()
    shell = values[(r > 1.5) & (r < 2.5)]
    return float(np.median(values[r < np.sort(r)[4] + 0.35]) - np.median(shell[shell < -500]))


def test_annotations_are_lunas_columns_then_the_type(tmp_path: Path) -> None:
    nodule = {"x_mm": 1, "y_mm": 2, "z_mm": 3.5, "diameter_mm": 6, "kind": "part-solid,juxtapleural"}
    (tmp_path / "p.mhd").touch()
    (tmp_path / "p.nodules.json").write_text(json.dumps({"nodules": [nodule]}))
    table = phantom_files.write_annotations(tmp_path)
    assert table.read_text().splitlines() == [
        "seriesuid,coordX,coordY,coordZ,diameter_mm,type",
        "p,1.0000,2.0000,3.5000,6.0000,part-solid;juxtapleural",
    ]
    read = read_annotations(table)
    assert (read.xyz_mm.tolist(), read.value.tolist(), read.types) == ([[1, 2, 3.5]], [6], ("part-solid;juxtapleural",))


@pytest.mark.parametrize("seed", range(5))
def test_a_nodule_is_where_its_annotation_says_through_the_file(seed: int, tmp_path: Path) -> None:
    made = make_phantom(seed, nodules=3, diameters_mm=(22.0, 16.0, 12.0), **SPACING)
    assert len(made.nodules) >= 2
    volume = read_volume(write_phantom(made, tmp_path))
    assert np.array_equal(volume.hu, made.volume.hu)
    rows = list(csv.DictReader(phantom_files.write_annotations(tmp_path).open()))
    assert len(rows) == len(made.nodules)
    for row, nodule in zip(rows, made.nodules, strict=True):
        assert row["seriesuid"] == volume.seriesuid
        assert float(row["diameter_mm"]) == pytest.approx(nodule.diameter_mm, abs=1e-3)
        at = volume.grid.to_voxel([float(row[k]) for k in ("coordX", "coordY", "coordZ")])
        radius = nodule.diameter_mm / 2 / np.asarray(volume.grid.spacing_mm[::-1])
        box = tuple(slice(max(0, int(c - 3 * r)), int(c + 3 * r) + 2) for c, r in zip(at, radius, strict=True))
        corner = np.array([s.start for s in box])
        here = contrast(volume.hu[box], at - corner, radius)
        assert here > (60 if "glass" in nodule.kind or "part" in nodule.kind else 250), nodule
        assert made.lungs[tuple(np.rint(at).astype(int))]


def test_every_way_a_file_can_store_a_scan(phantom: Phantom, tmp_path: Path) -> None:
    """The same patient, stored in 48 ways, is the same patient when it is read."""
    from dataclasses import replace
    from itertools import permutations, product

    small = replace(phantom.volume, hu=np.ascontiguousarray(phantom.volume.hu[40:52, 40:56, 40:60]))
    grid = replace(phantom.volume.grid, shape=small.hu.shape)
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            turned = grid.moved((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
            volume = replace(small, grid=grid, file_grid=turned)
            stored = as_stored(replace(phantom, volume=volume))
            assert stored.shape == turned.shape
            permutation, back = turned.to_canonical()
            again = np.flip(stored.transpose(permutation), tuple(a for a in range(3) if back[a]))
            assert np.array_equal(again, small.hu)


def test_orientations_and_spacings_vary() -> None:
    rng = np.random.default_rng(0)
    ways = [random_orientation(rng) for _ in range(300)]
    assert 0.6 < sum(w == ((0, 1, 2), (False, False, False)) for w in ways) / 300 < 0.85
    assert {w[0] for w in ways} == {(0, 1, 2), (1, 0, 2), (2, 0, 1)}
    grids = [make_phantom(seed, size=16, step_mm=10.0, nodules=0).volume.grid for seed in range(8)]
    assert len({g.spacing_mm[2] for g in grids}) > 2
    assert all(0.6 <= g.spacing_mm[2] <= 3.0 for g in grids)
    assert all(0.55 * 32 <= g.spacing_mm[0] <= 0.95 * 32 for g in grids)


def test_nodules_do_not_touch() -> None:
    made = make_phantom(6, nodules=10, size=128, spacing_mm=(2.8, 2.8, 3.0), step_mm=2.5)
    assert len(made.nodules) >= 6
    for i, a in enumerate(made.nodules):
        for b in made.nodules[:i]:
            gap = np.linalg.norm([a.x_mm - b.x_mm, a.y_mm - b.y_mm, a.z_mm - b.z_mm])
            assert gap > (a.diameter_mm + b.diameter_mm) / 2


def test_writing_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"size": 40, "spacing_mm": (9.0, 9.0, 6.0), "step_mm": 8.0, "diameters_mm": (24.0,)}
    real = SimpleITK.WriteImage
    calls = []

    def dies_at_second(image: SimpleITK.Image, name: str, **rest: bool) -> None:
        calls.append(name)
        real(image, name, **rest)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SimpleITK, "WriteImage", dies_at_second)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, 3, seed=5, **options)
    headers = sorted(tmp_path.glob("*.mhd"))
    assert len(headers) == 1
    uids = {row["seriesuid"] for row in csv.DictReader((tmp_path / "annotations.csv").open())}
    assert uids <= {headers[0].stem}
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    before = headers[0].stat().st_mtime_ns
    messages: list[str] = []
    write_phantoms(tmp_path, 3, seed=5, progress=messages.append, **options)
    assert len(calls) == 4  # the first was kept, two were made
    assert "already" in messages[0]
    assert headers[0].stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.mhd"))) == len(list(tmp_path.glob("*.zraw"))) == 3
    for header in tmp_path.glob("*.mhd"):
        assert f"ElementDataFile = {header.stem}.zraw" in header.read_text()
        assert read_volume(header).seriesuid == header.stem


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(PhantomError, match="count is 0"):
        write_phantoms(tmp_path, 0)
    (tmp_path / "1.2.mhd").write_text("")
    (tmp_path / "1.2.nodules.json").write_text("{}")
    with pytest.raises(PhantomError, match=r"1\.2\.nodules\.json"):
        write_phantoms(tmp_path, 1, size=32, step_mm=8.0)


def test_a_tree_reaches_every_point_and_tapers() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-50, 50, (200, 3))
    tree = grow(rng, np.zeros(3), [points], 0.5, 3.0)
    tips = tree.end[tree.tips == 1]
    assert sorted(map(tuple, tips.round(6))) == sorted(map(tuple, points.round(6)))
    children = np.flatnonzero(tree.parent >= 0)
    assert (tree.radius[children] <= tree.radius[tree.parent[children]]).all()
    # Murray: the cubes of the radii of two daughters add up to their mother's
    total = np.zeros(len(tree.parent))
    np.add.at(total, tree.parent[children], tree.radius[children] ** 3)
    inner = tree.tips > 1
    np.testing.assert_allclose(total[inner], tree.radius[inner] ** 3, rtol=1e-9)
