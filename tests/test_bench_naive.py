"""The classic way, MONAI's way, and the arithmetic that holds ours against them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan_files import write_scan
from small_chest import chest
from small_onnx import write_small_detector

from bench.classic import Average, eager_network, pad, plan_tiles, preprocess, starts
from bench.classic_mask import binarise, classic_mask, eccentricity, split
from bench.monai_inferer import MonaiVolume, Predictor, plan_windows
from bench.naive import (
    BOXED,
    CLASSIC,
    MONAI,
    MONAI_NETWORK,
    NETWORK,
    PREPROCESSING,
    Task,
    bench_naive,
    extrapolate,
    rows_of,
    wanted_precisions,
    write_json,
)
from bench.naive_report import draw_naive, markdown, table
from caffe_models.errors import Rpn3dError
from caffe_models.weights import write_caffemodel
from commands.options import NET, WEIGHTS
from runtime.errors import ScanError
from runtime.find_scans import find_scan
from runtime.grid import Grid
from runtime.lung_mask import find_lungs
from runtime.network_input import coord_channels
from train.phantom import make_phantom

ONE = (1.0, 1.0, 1.0)


# ---- tiles --------------------------------------------------------------------------------------------------------
def test_where_tiles_begin_by_hand() -> None:
    assert starts(328, 128, 64) == (0, 64, 128, 192, 200)
    assert starts(256, 128, 64) == (0, 64, 128)
    assert starts(110, 64, 32) == (0, 32, 46)
    assert starts(100, 128, 64) == (0,)
    classic = plan_tiles((326, 330, 330))
    assert classic.padded == (328, 332, 332)
    assert len(classic.starts) == 5 * 5 * 5
    monai = plan_windows((248, 250, 420), 128)
    assert monai.padded == (248, 252, 420)
    assert len(monai.starts) == 3 * 3 * 5  # 0, 96, 120; 0, 96, 124; 0, 96, 192, 288, 292
    assert plan_tiles((90, 30, 128)).starts == ((0, 0, 0),)


@pytest.mark.parametrize("extent", [(50, 64, 33), (17, 100, 41), (128, 5, 96)])
def test_tiles_cover_every_voxel(extent: tuple[int, int, int]) -> None:
    tiles = plan_tiles(extent, 32, 16)
    count = np.zeros(tiles.padded, int)
    for z, y, x in tiles.starts:
        assert count[z : z + 32, y : y + 32, x : x + 32].shape == (32, 32, 32)
        count[z : z + 32, y : y + 32, x : x + 32] += 1
    assert count.min() == 1
    assert all(n >= old for n, old in zip(tiles.padded, extent, strict=True))


def test_tiles_that_are_timed_are_spread_over_all() -> None:
    tiles = plan_tiles((32, 32, 32 + 16 * 9), 32, 16)
    assert len(tiles.starts) == 10
    assert tiles.sample(3) == (0, 4, 9)
    assert tiles.sample(0) == tiles.sample(10) == tiles.sample(99) == tuple(range(10))


@pytest.mark.parametrize(("size", "step"), [(30, 16), (32, 18), (32, 36), (0, 16)])
def test_tiles_off_the_stride_or_with_gaps_are_refused(size: int, step: int) -> None:
    with pytest.raises(Rpn3dError, match=f"tiles of {size} voxels every {step}"):
        plan_tiles((64, 64, 64), size, step)


def test_averaging_gives_the_volume_back_where_the_network_does_nothing() -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (50, 37, 61)).astype(np.uint8)
    tiles = plan_tiles(voxels.shape, 32, 16)
    padded = pad(voxels, tiles.padded)
    average = Average(tiles, 2)
    for z, y, x in tiles.starts:
        tile = padded[z : z + 32 : 4, y : y + 32 : 4, x : x + 32 : 4].astype(np.float32)
        average.add((z, y, x), np.stack([tile, 2 * tile]))
    found = average.result()
    assert np.array_equal(found[0], padded[::4, ::4, ::4])
    assert np.array_equal(found[1], 2.0 * padded[::4, ::4, ::4])
    assert (padded[50:] == 170).all()


# ---- MONAI --------------------------------------------------------------------------------------------------------
def test_a_window_through_monai_is_our_net_on_it() -> None:
    voxels = np.random.default_rng(1).integers(0, 256, (32, 40, 56)).astype(np.uint8)
    network = eager_network(NET, WEIGHTS, 1)
    volume = MonaiVolume(voxels, network, 32)
    assert volume.windows.starts == ((0, 0, 0), (0, 0, 24), (0, 8, 0), (0, 8, 24))
    found = volume.window(3)
    data = np.ascontiguousarray(voxels[:, 8:40, 24:56])[None, None]
    assert np.array_equal(found, network(data, coord_channels((32, 40, 56), (0, 8, 24), (32, 32, 32))[None])[0])


def test_monai_lays_the_windows_that_we_count_and_averages_as_we_do() -> None:
    voxels = np.random.default_rng(2).integers(0, 256, (50, 32, 90)).astype(np.uint8)
    seen: list[tuple[float, ...]] = []

    def network(data: Any, coord: Any) -> Any:
        """The voxels, and how far from the tile's middle: differs where tiles overlap."""
        seen.append(tuple(float(c) for c in coord[0, :, 0, 0, 0]))
        ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (8, 8, 8))
        return np.stack([data[0, 0, ::4, ::4, ::4].astype(np.float32), ramp])[None]

    volume = MonaiVolume(voxels, network, 32)
    whole = volume.whole()
    tiles = plan_windows(voxels.shape, 32)
    assert seen == [
        tuple(float(c) for c in coord_channels((50, 32, 90), start, (32,) * 3)[:, 0, 0, 0]) for start in tiles.starts
    ]
    average = Average(tiles, 2)
    padded = pad(voxels, tiles.padded)
    for start in tiles.starts:
        tile = padded[tuple(slice(a, a + 32) for a in start)]
        average.add(start, network(tile[None, None], np.zeros((1, 3, 8, 8, 8)))[0])
    assert np.allclose(whole, average.result(), atol=1e-5)


def test_where_monai_says_a_patch_lies_is_where_its_coordinates_are() -> None:
    import torch

    found: list[Any] = []

    def network(data: Any, coord: Any) -> Any:
        found.append(coord)
        return np.zeros((1, 15, 4, 4, 4), np.float32)

    predictor = Predictor(network, (100, 80, 60), (8, 0, 4))
    predictor(torch.zeros(1, 1, 16, 16, 16), [[slice(0, 1), slice(None), slice(4, 20), slice(12, 28), slice(0, 16)]])
    assert np.array_equal(found[0][0], coord_channels((100, 80, 60), (12, 12, 4), (16, 16, 16)))


# ---- classic pre-processing ---------------------------------------------------------------------------------------
def test_eccentricity_of_blocks_by_hand() -> None:
    assert eccentricity(np.ones((3, 4), bool)) == pytest.approx(np.sqrt(1 - 9 / 16))
    assert eccentricity(np.ones((5, 5), bool)) == pytest.approx(0)
    assert eccentricity(np.ones((40, 1), bool)) == pytest.approx(np.sqrt(1 - 1 / 1600))


def test_air_without_small_and_drawn_out_pieces_and_without_the_padding() -> None:
    hu = np.full((2, 90, 90), 0, np.int16)
    hu[:, 20:40, 20:40] = -1000  # stays
    hu[:, 50:54, 50:54] = -1000  # 16 mm2
    hu[:, 70:74, 5:85] = -1000  # 4 x 80 pixels
    air = binarise(hu, ONE, -600)
    assert air[:, 25:35, 25:35].all()
    assert not air[:, 45:].any()
    hu[:, 40:50, 0:16] = -1000
    assert binarise(hu, ONE, -600)[0, 45, 1]
    y, x = np.ogrid[-1:1:90j, -1:1:90j]
    hu[:, np.hypot(y, x) > 1] = -2000
    hu[0, 0, 0] = hu[1, 0, 0] = -2000
    assert not binarise(hu, ONE, -600)[:, :10, :10].any()


def test_two_lungs_that_touch_are_split_where_they_touch() -> None:
    z, y, x = np.ogrid[:30, :40, :80]
    lungs = np.hypot(np.hypot(z - 15, y - 20), x - 22) < 14
    lungs = lungs | (np.hypot(np.hypot(z - 15, y - 20), x - 56) < 14)
    lungs[13:18, 18:23, 22:57] = True
    two = split(lungs, ONE)
    assert two is not None
    assert [tuple(np.flatnonzero(one.any(axis=(0, 1)))[[0, -1]]) for one in sorted(two, key=np.argmax)] in (
        [(9, 38), (39, 69)],
        [(9, 39), (40, 69)],
        [(39, 69), (9, 38)],
        [(40, 69), (9, 39)],
    )
    assert np.array_equal(two[0] | two[1], lungs)
    assert not (two[0] & two[1]).any()
    assert split(lungs[:, :, :38], ONE) is None


def test_a_scan_without_lungs_is_refused() -> None:
    with pytest.raises(ScanError, match="no lungs"):
        classic_mask(np.full((8, 20, 20), 40, np.int16), ONE)


def test_the_classic_mask_finds_the_lungs_that_ours_finds() -> None:
    """Its lungs are smaller (threshold at -600, ours half-way to tissue, closed), its search volume larger."""
    volume = make_phantom(
        3, size=110, spacing_mm=(3.0, 3.0, 3.0), step_mm=3, nodules=2, diameters_mm=(8.0, 20.0), reoriented=False
    ).volume
    classic, ours = classic_mask(volume.hu, (3.0, 3.0, 3.0)), find_lungs(volume)
    dice = 2 * (classic.lungs & ours.mask).sum() / (classic.lungs.sum() + ours.mask.sum())
    assert dice > 0.9
    assert (classic.dilated & ours.mask).sum() > 0.995 * ours.mask.sum()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chest of 150 x 150 x 210 mm, each lung 113 x 75 x 63 mm."""
    grid = Grid((50, 50, 70), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    return write_scan(tmp_path_factory.mktemp("naive") / "small.mhd", chest(), grid)


def test_what_the_classic_network_is_fed(scan: Path) -> None:
    found = preprocess(find_scan(scan))
    assert list(found.seconds) == ["read", "mask", "window", "resample"]
    assert found.voxels.shape == (150, 150, 210)
    assert found.voxels.dtype == np.uint8
    # along y the lungs are voxels 13 to 37, without the outermost ones, which blurring takes, 14 to 36; dilated by 10
    # they are 4 to 46, which is 12 mm to 141 mm; the box is 5 mm wider. Along z and x it ends with the scan.
    (z1, y1, x1), (z2, y2, x2) = found.box
    assert (z1, y1, z2, y2, x2) == (0, 7, 150, 146, 210)
    assert x1 in (0, 1)
    assert found.voxels[74, 75, 61] == pytest.approx((-850 + 1200) / 1800 * 255, abs=12)
    assert (found.voxels[:, 0, 0] == 170).all()


# ---- figures ------------------------------------------------------------------------------------------------------
def test_extrapolation_by_hand() -> None:
    assert extrapolate([2.0, 4.0, 3.0], 125, 125) == {"median_s": 375.0, "least_s": 250.0, "most_s": 500.0}
    assert extrapolate([2.0, 4.0, 3.0], 125, 10) == {"median_s": 30.0, "least_s": 20.0, "most_s": 40.0}
    assert extrapolate([2.0, 4.0, 3.5], 3, 3) == {"median_s": 9.5, "least_s": 9.5, "most_s": 9.5}


PEAK = {"peak_rss_bytes": 3 << 30}
STEPS: dict[str, Any] = {
    PREPROCESSING: [{"seconds": 60.0, "stages": {"read": 1.0, "mask": 59.0}, "shape": [326, 330, 330], **PEAK}],
    NETWORK: [{"seconds": s, "tiles": 125, "box_tiles": 60, **PEAK} for s in (2.0, 4.0, 3.0)],
    MONAI_NETWORK: [
        {"seconds": s, "tiles": 27, "prepare_s": {"read": 0.5, "mask": 0.5}, **PEAK} for s in (2.0, 3.0, 4.0)
    ],
    "rpn3d f32": [
        {"seconds": s, "stages": {"network": s - 1}, "precision": "f32", "windows": 1, **PEAK}
        for s in (11.0, 10.0, 9.0)
    ],
    "rpn3d int8": "weights: there is no int8",
}


def figures() -> dict[str, Any]:
    machine = {
        "cpu": "a processor", "flags": ["avx2"], "sockets": 1, "cores": 2, "threads": 2, "usable_cpus": 2,
        "usable_reason": "affinity", "memory_bytes": 8 << 30, "system": "Linux", "python": "3.11", "packages": {},
    }  # fmt: skip
    base = {"schema_version": 1, "machine": machine, "scan": "1.2.3", "cpus": 2, "runs": 3, "tile": 128}
    return {**base, "overlaps": {"classic": 0.5, "MONAI": 0.25}, "rows": rows_of(STEPS)}


def test_rows_and_ratios_by_hand() -> None:
    rows = {row["name"]: row for row in rows_of(STEPS)}
    seconds = {name: row.get("median_s") for name, row in rows.items()}
    assert seconds == {
        PREPROCESSING: 60.0,
        NETWORK: 375.0,  # 125 tiles of 3 s
        CLASSIC: 435.0,
        BOXED: 240.0,  # 60 tiles of 3 s and 60 s
        MONAI_NETWORK: 81.0,  # 27 windows of 3 s
        MONAI: 82.0,
        "rpn3d f32": 10.0,
        "rpn3d int8": None,
    }
    assert (rows[CLASSIC]["least_s"], rows[CLASSIC]["most_s"]) == (310.0, 560.0)
    assert rows["rpn3d f32"]["times_faster"] == 43.5
    assert rows[MONAI]["times_faster"] == pytest.approx(435 / 82)
    assert "times_faster" not in rows[MONAI_NETWORK]
    assert rows["rpn3d int8"]["message"] == "weights: there is no int8"
    assert (rows[NETWORK]["tiles"], rows[NETWORK]["timed"], rows[NETWORK]["seconds"]) == (125, 3, [2.0, 4.0, 3.0])


def test_without_the_classic_way_there_are_rows_but_no_ratios() -> None:
    steps = {**copy.deepcopy(STEPS), NETWORK: "it was killed"}
    rows = {row["name"]: row for row in rows_of(steps)}
    assert rows[CLASSIC]["message"] == rows[BOXED]["message"] == "it was killed"
    assert rows["rpn3d f32"]["median_s"] == 10.0
    assert not [row for row in rows.values() if "times_faster" in row]
    assert "it was killed" in table({**figures(), "rows": list(rows.values())})


def test_a_whole_run_of_monai_is_not_multiplied() -> None:
    steps = {**STEPS, MONAI_NETWORK: [{**STEPS[MONAI_NETWORK][0], "seconds": 70.0, "whole": True}]}
    row = next(row for row in rows_of(steps) if row["name"] == MONAI_NETWORK)
    assert (row["median_s"], row["tiles"], row["timed"]) == (70.0, 27, 27)


def test_table_markdown_and_picture_from_the_json_alone(tmp_path: Path) -> None:
    written = json.loads(write_json(figures(), tmp_path / "bench_naive.json").read_text())
    lines = table(written).splitlines()
    ours = next(line for line in lines if line.startswith("rpn3d f32"))
    assert " ".join(ours.split()) == "rpn3d f32 10.0 s 9.0 - 11.0 s 3.0 GiB 44x file to CSV, ran in f32, 1 window"
    assert any(line.endswith("extrapolated from 3 of 125 tiles") for line in lines)
    assert any(line.endswith("60 tiles, extrapolated from 3") for line in lines)
    assert any(line.endswith("extrapolated from 3 of 27 windows, our pre-processing") for line in lines)
    assert any(line.startswith("rpn3d int8") and line.endswith("there is no int8") for line in lines)
    text = markdown(written)
    assert "| **rpn3d f32** | 10.0 | 9.0 - 11.0 | 44x | file to CSV, ran in f32, 1 window |" in text
    assert "| **rpn3d int8** | - | - | - | weights: there is no int8 |" in text
    assert "50% overlap" in text
    assert draw_naive(written, tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_precisions() -> None:
    assert wanted_precisions("int8, f32") == ("int8", "f32")
    assert {"f32", "int8"} <= set(wanted_precisions("auto"))
    with pytest.raises(Rpn3dError, match='precision "f16" is not one of auto, f32, bf16, int8'):
        wanted_precisions("f16")


SMALL_NET = """
name: "small"
input: "data" input_shape { dim: 1 dim: 1 dim: 32 dim: 32 dim: 32 }
input: "coord" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 dim: 8 }
layer { name: "both" type: "Convolution" bottom: "data" top: "both"
  convolution_param { num_output: 4 kernel_size: 4 stride: 4 } }
layer { name: "cat" type: "Concat" bottom: "both" bottom: "coord" top: "cat" }
layer { name: "head" type: "Convolution" bottom: "cat" top: "head" convolution_param { num_output: 15 kernel_size: 1 } }
"""


def test_from_a_scan_to_figures(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but MONAI, which is made to be missing here, with networks of a few layers."""
    draw = np.random.default_rng(0)
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_text(SMALL_NET)
    shapes = {"both": [(4, 1, 4, 4, 4), (4,)], "head": [(15, 7, 1, 1, 1), (15,)]}
    blobs = {name: [draw.normal(0, 0.1, s).astype(np.float32) for s in two] for name, two in shapes.items()}
    write_caffemodel(weights, blobs, "small", dict.fromkeys(blobs, "Convolution"))
    (tmp_path / "monai.py").write_text("raise ModuleNotFoundError(\"No module named 'monai'\", name='monai')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    model = write_small_detector(tmp_path / "small.onnx")
    task = Task(str(scan), net, weights, 1, model, "f32", tiles=3, runs=2, tile=32)
    found = json.loads(json.dumps(bench_naive(task, said.append)))
    rows = {row["name"]: row for row in found["rows"]}
    assert [row["name"] for row in found["rows"]] == [
        PREPROCESSING, NETWORK, CLASSIC, BOXED, MONAI_NETWORK, MONAI, "rpn3d f32",
    ]  # fmt: skip
    assert [name for name, row in rows.items() if row["status"] != "ran"] == [MONAI_NETWORK, MONAI]
    assert rows[MONAI]["message"] == "monai is not installed: pip install --constraint constraints.txt '.[bench]'"
    assert rows[PREPROCESSING]["shape"] == [150, 150, 210]
    network = rows[NETWORK]
    assert (network["tiles"], network["timed"], len(network["seconds"])) == (9 * 9 * 13, 3, 3)
    assert network["median_s"] == pytest.approx(1053 * np.median(network["seconds"]))
    ours = rows["rpn3d f32"]
    assert len(ours["seconds"]) == 2
    assert ours["precision"] == "f32"
    assert list(ours["stages"])[:3] == ["read", "mask", "resample"]
    assert ours["times_faster"] == pytest.approx(rows[CLASSIC]["median_s"] / ours["median_s"])
    assert sum(line.startswith("round ") for line in said) == 4
    assert "rpn3d f32" in table(found)


def test_what_cannot_be_measured_is_said(scan: Path, tmp_path: Path) -> None:
    task = Task(str(scan), NET, WEIGHTS, 1)
    with pytest.raises(Rpn3dError, match="runs 0, tiles 3; give 1 or more"):
        bench_naive(Task(**{**vars(task), "runs": 0}))
    with pytest.raises(ScanError, match="no such file"):
        bench_naive(Task(**{**vars(task), "scan": str(tmp_path / "none.mhd")}))


def test_figures_name_no_folder_of_this_machine(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.naive._preprocess", lambda task, folder: "left out")
    monkeypatch.setattr("bench.naive.Loop", lambda *job: (_ for _ in ()).throw(Rpn3dError("exit code 1: left out")))
    weights = WEIGHTS.with_name("none.caffemodel")
    found = bench_naive(Task(str(scan), NET, weights, 1, precision="int8"))
    assert found["rows"][-1]["message"].startswith("caffe_models/none.caffemodel: there is no none-int8.xml beside it")
    assert {row["status"] for row in found["rows"]} == {"failed"}
    assert "left out" in table(found)
