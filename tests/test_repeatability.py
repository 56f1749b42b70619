"""Two runs of the same precision give the same CSV, byte for byte: in processes of their own, with one scan read
beside another's network or not, and on one core or two."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
from conftest import ROOT
from openvino import opset13 as ops
from small_chest import write_chest
from small_onnx import write_small_detector

from convert.to_openvino import save_ir
from runtime.outputs import read_results

RUN = """
import sys
from pathlib import Path
from runtime.cores import hold_to
from runtime.budget import Budget
cpus, out, models, scans = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:5], sys.argv[5:]
hold_to(cpus)
from runtime.detect import Detector, Settings
from runtime.pipeline import detect_all
settings = Settings(Budget(cpus, 4 << 30, "test"), threshold=0.5, pictures=False)
for model in models:
    both = cpus == 2 and "f32" in model
    for overlap in (True, False) if both else (cpus == 2,):
        folder = out / f"{Path(model).stem} {cpus} {overlap}"
        outcome = detect_all(Detector(model, settings), scans, folder, overlap=overlap)
        assert not outcome.failures, outcome.failures
"""
"""One process for each number of cores, with every model; on two cores scans overlap, and in f32 also not."""

RUNS = {"f32": ("2 True", "2 False", "1 False"), "int8": ("2 True", "1 False")}


def int8_of(onnx: Path, xml: Path) -> Path:
    """The small detector with its second convolution quantised by hand, as nncf would do it."""
    model = openvino.Core().read_model(str(onnx))
    second = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"][1]
    weights = second.input_value(1).get_node().get_data()
    largest = float(np.abs(weights).max())
    for port, low, high in ((0, 0.0, 2.0), (1, -largest, largest)):
        bounds = [ops.constant(np.float32(value)) for value in (low, high, low, high)]
        quantiser = ops.fake_quantize(second.input_value(port), *bounds, 256 if port == 0 else 255)
        second.input(port).replace_source_output(quantiser.output(0))
    model.set_rt_info("int8", ["rpn3d", "precision"])
    save_ir(model, xml)
    return xml


def test_every_run_gives_the_same_bytes(tmp_path: Path) -> None:
    scans = [write_chest(tmp_path / "scans" / f"{name}.mhd", seed) for seed, name in enumerate("ab")]
    f32 = write_small_detector(tmp_path / "f32.onnx")
    int8 = int8_of(f32, tmp_path / "int8.xml")
    for cpus in (2, 1):
        command = [sys.executable, "-c", RUN, cpus, tmp_path / "out", f32, int8, *scans]
        subprocess.run([*map(str, command)], cwd=ROOT, check=True)
    first = {}
    for precision in ("f32", "int8"):
        folders = [tmp_path / "out" / f"{precision} {run}" for run in RUNS[precision]]
        assert {result.precision for folder in folders for result in read_results(folder)} == {precision}
        one, *others = [(folder / "submission.csv").read_bytes() for folder in folders]
        assert one.count(b"\n") > 20
        assert set(others) == {one}
        first[precision] = one
    assert first["f32"] != first["int8"]
