"""The proof of a precision, worked out by hand on a few findings."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from bench.precision_proof import add_to_proof, compare, markdown, partners, read_folder
from caffe_models.errors import Rpn3dError
from convert.provenance import file_sha256
from runtime.findings import Finding
from runtime.outputs import ResultFolder, ScanResult
from runtime.proof import read_proof

F32_BIN, INT8_BIN = "1" * 64, "2" * 64


def finding(probability: float, x_mm: float, diameter_mm: float = 10.0) -> Finding:
    return Finding(1, probability, x_mm, 0.0, 0.0, diameter_mm, 0, 0, 0)


def results(folder: Path, precision: str, scans: dict[str, list[Finding]], digest: str = "") -> Path:
    made = ResultFolder(folder)
    for uid, found in scans.items():
        ranked = tuple(replace(f, rank=k) for k, f in enumerate(found, 1))
        model = digest or {"f32": F32_BIN, "int8": INT8_BIN}[precision]
        made.add(ScanResult(uid, f"{uid}.mhd", ranked, precision=precision, model_sha256=model))
    return folder


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """A nodule of 10 mm at x = 0 in each of two scans."""
    path = tmp_path / "annotations.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\na,0,0,0,10\nb,0,0,0,10\n")
    return path


F32 = {"a": [finding(0.9, 0), finding(0.6, 50), finding(0.2, 80)], "b": [finding(0.8, 1)]}
INT8 = {"a": [finding(0.88, 1), finding(0.55, 56), finding(0.25, 80)], "b": [finding(0.7, 1), finding(0.3, 99)]}


def test_figures_by_hand(tmp_path: Path, annotations: Path) -> None:
    f32 = read_folder(results(tmp_path / "f32", "f32", F32), annotations)
    int8 = read_folder(results(tmp_path / "int8", "int8", INT8), annotations)
    entry = compare(f32, int8, (f32, int8))
    # in a: 0.9 -> 0.88, 0.6 has none within 5 mm (6 mm off, which is new), 0.2 -> 0.25; in b: 0.8 -> 0.7
    assert (entry["findings"], entry["matched_findings"]) == (4, 0.75)
    assert (entry["likely_findings"], entry["matched_likely_findings"]) == (3, 0.6667)
    assert entry["new_likely_findings"] == 0.3333
    assert entry["probability_shift_median"] == 0.05
    assert entry["probability_shift_mean"] == pytest.approx((-0.02 + 0.05 - 0.1) / 3, abs=1e-4)
    assert entry["probability_shift_p95"] == pytest.approx(0.095)
    # both nodules come before any false positive in either
    assert (entry["cpm"], entry["cpm_change"]) == (1.0, 0.0)
    assert (entry["real_nodules"], entry["real_nodules_found_f32"], entry["real_nodules_found_both"]) == (2, 2, 2)
    assert entry["real_nodules_found"] is True
    assert entry["proven"] is True
    assert compare(f32, int8)["proven"] is False  # no real scan was looked at
    assert compare(f32, int8)["real_nodules_found"] is None


@pytest.mark.parametrize(
    ("probability", "found", "proven"), [(0.49, False, False), (0.5, True, True)], ids=["no longer likely", "still"]
)
def test_a_real_nodule_that_sinks_below_a_half_is_lost(
    tmp_path: Path, annotations: Path, probability: float, found: bool, proven: bool
) -> None:
    f32 = read_folder(results(tmp_path / "f32", "f32", F32), annotations)
    int8 = read_folder(results(tmp_path / "int8", "int8", INT8), annotations)
    weak = {"a": INT8["a"], "b": [finding(probability, 1)]}
    real = read_folder(results(tmp_path / "real", "int8", weak), annotations)
    entry = compare(f32, int8, (f32, real))
    assert (entry["real_nodules_found"], entry["proven"]) == (found, proven)


def test_lost_cpm_is_not_proven_and_won_cpm_is(tmp_path: Path, annotations: Path) -> None:
    good = {"a": F32["a"][:1], "b": F32["b"]}
    worse = {"a": [finding(0.95, 50), finding(0.9, 0)], "b": F32["b"]}  # a false positive first: no hit before 1/2
    folders = {
        name: read_folder(results(tmp_path / name, precision, scans), annotations)
        for name, precision, scans in [
            ("good", "f32", good),
            ("good8", "int8", good),
            ("worse", "f32", worse),
            ("worse8", "int8", worse),
        ]
    }
    real = (folders["good"], folders["good8"])
    lost, won = (compare(folders[a], folders[b], real) for a, b in (("good", "worse8"), ("worse", "good8")))
    assert lost["cpm_change"] == -won["cpm_change"] < -0.005
    assert (lost["proven"], won["proven"]) == (False, True)


def test_one_finding_is_the_partner_of_one() -> None:
    assert partners([finding(0.9, 0), finding(0.8, 3)], [finding(0.9, 2)]) == [0, None]
    assert partners([finding(0.9, 0)], [finding(0.9, 4.9), finding(0.1, -1)]) == [1]
    assert partners([finding(0.9, 0)], [finding(0.9, 5.0)]) == [None]  # at the radius is outside, as for the FROC
    assert partners([finding(0.9, 0)], []) == [None]


def test_written_beside_what_is_there_for_the_same_weights(tmp_path: Path, annotations: Path) -> None:
    weights = tmp_path / "m.caffemodel"
    weights.write_bytes(b"weights")
    proof = tmp_path / "m-proof.json"
    old = {"schema_version": 1, "weights_sha256": file_sha256(weights), "precisions": {"bf16": {"proven": True}}}
    proof.write_text(json.dumps(old))
    f32 = read_folder(results(tmp_path / "f32", "f32", F32), annotations)
    int8 = read_folder(results(tmp_path / "int8", "int8", INT8), annotations)
    entry = compare(f32, int8, (f32, int8))
    add_to_proof(proof, weights, f32, entry, "int8")
    found = read_proof(proof)
    assert set(found.precisions) == {"bf16", "f32", "int8"}
    assert found.precisions["int8"].proven
    assert found.precisions["int8"].model_sha256 == INT8_BIN
    assert (found.precisions["f32"].scans, found.precisions["f32"].nodules) == (2, 2)
    (tmp_path / "m-int8.xml").write_text(
        f'<net><rt_info><rpn3d><caffemodel_sha256 value="{file_sha256(weights)}"/>'
        f'<bin_sha256 value="{"3" * 64}"/></rpn3d></rt_info></net>'
    )
    with pytest.raises(Rpn3dError, match=r"the model that was measured is 22222222\.\.\.; measure the one"):
        add_to_proof(proof, weights, f32, entry, "int8")
    (tmp_path / "m-int8.xml").unlink()
    weights.write_bytes(b"trained anew")
    add_to_proof(proof, weights, f32, entry, "int8")
    assert set(read_proof(proof).precisions) == {"f32", "int8"}  # bf16 of other weights proves nothing here
    assert read_proof(proof).weights_sha256 == file_sha256(weights)


def test_folders_that_do_not_belong_together(tmp_path: Path, annotations: Path) -> None:
    f32 = read_folder(results(tmp_path / "f32", "f32", F32), annotations)
    one = read_folder(results(tmp_path / "one", "int8", {"a": INT8["a"]}), annotations)
    with pytest.raises(Rpn3dError, match=r"one: lacks 1 scans of .*f32, such as b"):
        compare(f32, one)
    with pytest.raises(Rpn3dError, match="ran in f32; give one of bf16 and int8"):
        compare(f32, f32)
    int8 = read_folder(results(tmp_path / "int8", "int8", INT8), annotations)
    other = read_folder(results(tmp_path / "real", "int8", INT8, "3" * 64), annotations)
    with pytest.raises(Rpn3dError, match=r"real: ran with another model than .*int8"):
        compare(f32, int8, (f32, other))
    results(tmp_path / "mixed", "f32", {"a": F32["a"]})
    results(tmp_path / "mixed", "int8", {"b": INT8["b"]})
    with pytest.raises(Rpn3dError, match="mixed: holds results of f32 of model 11111111, int8 of model 22222222"):
        read_folder(tmp_path / "mixed", annotations)
    results(tmp_path / "twice", "f32", {"a": F32["a"]})
    results(tmp_path / "twice", "f32", {"b": F32["b"]})  # the CSV is of the last run alone
    with pytest.raises(Rpn3dError, match=r"submission\.csv: is not of the scans whose JSON lies beside it"):
        read_folder(tmp_path / "twice", annotations)
    with pytest.raises(Rpn3dError, match="holds no results"):
        read_folder(tmp_path / "nowhere", annotations)


def test_the_command_writes_the_proof_and_prints_the_table(tmp_path: Path, annotations: Path) -> None:
    weights = tmp_path / "m.caffemodel"
    weights.write_bytes(b"weights")
    f32, int8 = results(tmp_path / "f32", "f32", F32), results(tmp_path / "int8", "int8", INT8)
    command = [sys.executable, "-m", "bench.precision_proof", f32, int8, "--annotations", annotations]
    command += ["-o", tmp_path / "m-proof.json", "--weights", weights, "--real-f32", f32]
    refused = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    command += ["--real", int8, "--real-annotations", annotations]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=True)
    content = json.loads((tmp_path / "m-proof.json").read_text())
    assert done.stdout == markdown(content) + "\n"
    row = "| int8 | 1.000 | +0.000 | 66.7 % / 75.0 % | 33.3 % | 0.0500 / 0.0950 | 2 of 2 that f32 finds | yes |"
    assert row in done.stdout.splitlines()
