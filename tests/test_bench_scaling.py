"""Scaling and the roof: which points there are on which machine, what their processes do, and what the tables say."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from small_onnx import write_small_detector

from bench import scaling_points
from bench.machine import describe
from bench.scaling import bench_scaling, draw_scaling, markdown, table, write_json
from bench.scaling_points import Task, core_counts
from bench.scaling_tables import roofs
from caffe_models.errors import Rpn3dError
from runtime.engine_memory import engine_bytes

NET = ROOT / "prototxt" / "rpn3d" / "deploy.prototxt"


def task(**more: Any) -> Task:
    given: dict[str, Any] = {"net": NET, "weights": Path("none.caffemodel"), "model": None, "cpus": 2, **more}
    return Task(**given)


def points(sweep: str, flags: tuple[str, ...], precisions: tuple[str, ...] = ("f32",), **more: Any) -> dict[str, str]:
    """Name -> why it is refused."""
    models: dict[str, Path | str] = {"f32": Path("f32.xml"), "bf16": Path("bf16.xml"), "int8": "no int8 model"}
    return {
        point.name: point.refused for point in scaling_points.points(sweep, task(**more), precisions, models, flags)
    }


def test_core_counts() -> None:
    assert [core_counts(n) for n in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_streams_share_the_cores_evenly() -> None:
    assert list(points("streams", (), cpus=6)) == ["1 streams f32", "2 streams f32", "6 streams f32"]


def test_instruction_sets_that_the_processor_lacks_are_rows_that_say_so() -> None:
    found = points("isa", ("avx2", "fma"), ("f32", "int8"))
    assert found["AVX2 f32"] == ""
    assert found["AVX-512 f32"] == "this processor has no AVX-512"
    assert found["AMX f32"] == "this processor has no AMX"
    assert found["AVX2 int8"] == "no int8 model"
    sapphire = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16")
    found = points("isa", (*sapphire, "amx_tile", "amx_bf16", "amx_int8"), ("f32", "bf16"))
    assert set(found.values()) == {""}
    assert [name for name in found if "bf16" in name] == ["AVX-512 BF16 bf16", "AMX bf16"]


def test_bf16_runs_only_where_the_processor_computes_in_it() -> None:
    assert points("cores", ("avx2",), ("bf16",), cpus=1) == {"1 cores bf16": "this processor does not compute in bf16"}
    assert points("cores", ("avx512_bf16",), ("bf16",), cpus=1) == {"1 cores bf16": ""}


def test_a_window_that_memory_does_not_hold_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scaling_points.free_memory", lambda: (1 << 30) + engine_bytes(64**3, "f32"))
    found = points("windows", (), windows=(64, 256))
    assert found["64^3 f32"] == ""
    assert found["256^3 f32"].startswith("needs 1.5 GiB beside the others; ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sweeps": ("cores", "colours")}, 'sweep "colours" is not known'),
        ({"precisions": ("f16",)}, 'precision "f16" is not known'),
        ({"runs": 0}, "runs is 0"),
        ({"windows": (64, 70)}, "a window of 70 voxels; give multiples of 16"),
    ],
)
def test_what_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(Rpn3dError, match=message):
        bench_scaling(task(**more))


def test_every_kind_of_point_runs_in_its_own_process(tmp_path: Path) -> None:
    """A small net stands for ours, so the GFLOP/s mean nothing here; f32 runs, int8 is refused by the engine."""
    model = write_small_detector(tmp_path / "small.onnx")
    cpus = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    said: list[str] = []
    given = task(model=model, cpus=cpus, sweeps=("streams", "windows", "layers"), edge=16, windows=(32,), runs=1)
    figures = bench_scaling(Task(**{**vars(given), "precisions": ("f32", "int8")}), said.append)
    rows = {(row["sweep"], row["precision"], row["streams"]): row for row in figures["points"]}
    window = rows["windows", "f32", 1]
    assert (window["status"], window["ran_in"], window["voxels"], len(window["seconds"])) == ("ran", "f32", 32**3, 1)
    assert window["gflop_per_s"] == pytest.approx(
        2e-9 * figures["multiply_adds_per_voxel"] * 32**3 / window["median_s"], rel=1e-9
    )
    assert rows["streams", "f32", cpus]["voxels"] == 2 * cpus * 16**3
    assert " of 3" in rows["streams", "f32", 1]["kernels"]
    layers = rows["layers", "f32", 1]["layers"]["rows"]
    assert {"Convolution", "MaxPool"} <= {row["type"] for row in layers}
    refused = rows["windows", "int8", 1]
    assert refused["status"] == "failed"
    assert "int8 needs a model converted with --precision int8" in refused["message"]
    assert len(table(json.loads(json.dumps(figures)))) > 0


def test_the_roof_is_measured_in_the_precision_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small work instead of large: the kinds of model and the check of what ran, not the figure."""
    from bench import roof

    monkeypatch.setattr(roof, "FOR_S", 0.0)
    for precision in ("f32", "int8"):
        model, shape = roof._product(64, precision)
        assert roof.ran_in(roof.compile_for(model, precision, 1, {}), roof.PRODUCTS) == precision
        assert shape == (64, 64)
        model, _ = roof._convolutions(16, (8, 8, 8), 3, precision)
        assert roof.ran_in(roof.compile_for(model, precision, 1, {}), roof.PRODUCTS) == precision
    calls: list[int] = []
    one = roof.Candidate("x", "y", "f32", 5_000_000, lambda: calls.append(1))
    assert one.least_s() < 1
    assert len(calls) == 4
    assert one.as_json(0.001)["gflop_per_s"] == pytest.approx(10.0)


def typed() -> dict[str, Any]:
    """Figures by hand: 1000 multiply-adds a voxel; 1e6 voxels in 1 s are 2 GFLOP/s."""

    def point(sweep: str, gflop: float, cpus: int = 2, precision: str = "f32", **more: Any) -> dict[str, Any]:
        speed = {"median_s": 1.0, "least_s": 0.9, "most_s": 1.2, "voxels_per_s": gflop * 5e5, "gflop_per_s": gflop}
        row = {"sweep": sweep, "precision": precision, "cpus": cpus, "edge": 96, "streams": 1, "isa": "", "message": ""}
        return {**row, "status": "ran", "ran_in": precision, "peak_rss_bytes": 1 << 29, **speed, **more}

    top = [{"name": "2048x2048 by 2048x2048", "by": "NumPy", "ran_in": "f32", "gflop_per_s": 200.0}]
    half = [{"name": "1x1 convolution", "by": "OpenVINO", "ran_in": "f32", "gflop_per_s": 100.0}]
    node = {"node": "n1", "type": "Convolution", "kernel": "brgconv_avx2_f32", "ran_in": "f32", "seconds": 0.05}
    layers = [
        {**node, "layer": "preBlock_conv2", "share": 0.25, "gflop_per_s": 160.0},
        {**node, "type": "Pooling", "node": "pool_0", "layer": None, "share": 0.1},
    ]
    missing = {"status": "refused", "message": "this processor has no AVX-512"}
    return {
        "schema_version": 1,
        "machine": describe("processor\t: 0\nmodel name\t: Xeon X\nflags\t\t: avx2 fma\n").as_json(),
        "net": "deploy.prototxt",
        "models": {"f32": "rpn3d-f32.xml", "int8": "there is no rpn3d-int8.xml"},
        "multiply_adds_per_voxel": 1000.0,
        "cpus": 2,
        "edge": 96,
        "runs": 3,
        "points": [
            point("cores", 80.0, 1),
            point("cores", 140.0),
            point("streams", 120.0),
            point("streams", 150.0, streams=2),
            point("windows", 100.0, edge=64),
            point("windows", 130.0),
            point("isa", 120.0, isa="AVX2", kernels="brgconv_avx2_f32, 50 of 61"),
            {**point("isa", 1.0, isa="AVX-512"), **missing},
            point("roof", 100.0, 1, candidates=half),
            point("roof", 200.0, candidates=top),
            point("layers", 120.0, layers={"seconds": 0.2, "nodes": 123, "rows": layers}),
            {**point("layers", 1.0, precision="int8"), "status": "refused", "message": "there is no rpn3d-int8.xml"},
        ],
        "scans": [
            {
                "scans": 1,
                "status": "ran",
                "ran_in": "f32",
                "cpus": 2,
                "wall_s": 9.0,
                "cpu_s": 9.0,
                "scans_an_hour": 400.0,
            },
            {
                "scans": 4,
                "status": "ran",
                "ran_in": "f32",
                "cpus": 2,
                "wall_s": 24.0,
                "cpu_s": 36.0,
                "scans_an_hour": 600.0,
            },
        ],
    }


def test_tables_and_picture_come_from_the_json_alone(tmp_path: Path) -> None:
    figures = json.loads(write_json(typed(), tmp_path / "out" / "bench_scaling.json").read_text())
    page = markdown(figures).splitlines()
    assert "| 2 | f32 | 1 s | 0.9 - 1.2 | 70 | 140 | 1.75 |" in page  # 140 / 80
    assert "| 2 x 1 | f32 | 1 s | 0.9 - 1.2 | 75 | 150 | 512 MiB |" in page
    assert "| AVX-512 | f32 | this processor has no AVX-512 | - | - | - | - |" in page
    assert any("stands for Xeon Phi" in line and "nothing was run on one" in line for line in page)
    # the best of cores, streams and windows on all cores; on one core that of `cores`
    assert "| 2 | f32 | 200 | 2048x2048 by 2048x2048, NumPy | 150 GFLOP/s (streams: 2 x 1) | 75% |" in page
    assert "| 1 | f32 | 100 | 1x1 convolution, OpenVINO | 80 GFLOP/s (cores: 1) | 80% |" in page
    assert "| preBlock_conv2 | f32 | 50.00 | 25.0% | 160 | 80% | brgconv_avx2_f32 |" in page
    assert "| pool_0 (Pooling) | f32 | 50.00 | 10.0% | - | - | brgconv_avx2_f32 |" in page
    assert "| 4 | f32 | 24.0 | 6.00 s | 600 | 75% |" in page
    assert "there is no rpn3d-int8.xml" in "\n".join(page)
    assert roofs(figures) == {"f32": 200.0}
    text = table(figures)
    assert "1.0 thousand multiply-adds a voxel" in text
    assert "  cores  in   median  least - most  Mvoxel/s  GFLOP/s  times 1 core" in text.splitlines()
    picture = draw_scaling(figures, tmp_path / "out" / "bench_scaling.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 150_000
