"""What `--precision auto` stands for, by processor, proof and the models that are there; and the proof's reader."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from caffe_models.errors import NetError, Rpn3dError
from commands.models import chosen_model
from convert.model_file import Noted, precisions_there
from convert.provenance import file_sha256
from runtime.precision import choose, cpu_flags
from runtime.proof import PrecisionProof, Proof, ProofError, read_proof

OURS, OTHER, BIN = "a" * 64, "b" * 64, "c" * 64
AVX2 = {"avx2", "fma"}
VNNI = AVX2 | {"avx512f", "avx512_vnni"}
BF16 = VNNI | {"avx512_bf16"}
OLD = {"sse4_2", "avx"}

ALL = {"f32": Noted(OURS), "bf16": Noted(OURS), "int8": Noted(OURS, BIN)}
NO_INT8 = {"f32": Noted(OURS), "bf16": Noted(OURS)}
F32 = PrecisionProof(cpm=0.594)
YES = PrecisionProof(cpm=0.592, cpm_change=-0.002, proven=True, model_sha256=BIN)
NO = PrecisionProof(cpm=0.494, cpm_change=-0.1, proven=False, model_sha256=BIN)
PLAIN = PrecisionProof(proven=True)


def proof(**precisions: PrecisionProof) -> Proof:
    return Proof("proof.json", OURS, {"f32": F32, **precisions})


@pytest.mark.parametrize(
    ("flags", "proven", "there", "precision", "unproven", "why"),
    [
        (AVX2, proof(int8=YES), ALL, "int8", (), r"int8: .*\(avx2\).*proven \(CPM 0\.592, 0\.594 in f32\)$"),
        (VNNI, proof(int8=YES), ALL, "int8", (), r"\(avx512_vnni\)"),
        ({"avx2", "avx_vnni"}, proof(int8=YES), ALL, "int8", (), r"\(avx_vnni\)"),
        ({"avx2", "amx_int8", "amx_bf16"}, proof(int8=YES, bf16=PLAIN), ALL, "int8", (), r"\(amx_int8\)"),
        (OLD, proof(int8=YES), ALL, "f32", (), "does not compute in int8, this processor does not compute in bf16"),
        (BF16, proof(int8=NO, bf16=PLAIN), ALL, "bf16", ("int8",), r"bf16: .*int8 is not proven .*\(CPM 0\.494"),
        (BF16, proof(int8=NO), ALL, "f32", ("bf16", "int8"), "bf16 was not measured against f32"),
        (AVX2, proof(int8=NO, bf16=PLAIN), ALL, "f32", ("int8",), "does not compute in bf16"),
        (BF16, proof(int8=YES, bf16=PLAIN), NO_INT8, "bf16", (), "there is no int8 model"),
        (AVX2, proof(), ALL, "f32", ("int8",), "int8 was not measured"),
        # another calibration, and another training, than was measured
        (AVX2, proof(int8=YES), {**ALL, "int8": Noted(OURS, OTHER)}, "f32", ("int8",), "another than the one measured"),
        (AVX2, proof(int8=YES), {**ALL, "int8": Noted(OTHER, BIN)}, "f32", ("int8",), "of other weights than those"),
        # no proof, or one of other weights: bf16 or f32, as the engine finds
        (BF16, None, ALL, "auto", ("int8",), "no proof of its accuracy"),
        (OLD, None, ALL, "auto", (), "no proof of its accuracy"),
        (AVX2, None, NO_INT8, "auto", (), "no proof of its accuracy"),
        (AVX2, proof(int8=YES), {"f32": Noted(OTHER), "int8": Noted(OTHER)}, "auto", ("int8",), "is of other weights"),
        (OLD, proof(), {"bf16": Noted(OURS)}, "auto", (), "^f32: "),
    ],
)
def test_what_auto_stands_for(
    flags: set[str], proven: Proof | None, there: dict[str, Noted], precision: str, unproven: tuple[str, ...], why: str
) -> None:
    choice = choose(flags, proven, there)
    assert (choice.precision, choice.unproven) == (precision, unproven)
    assert re.search(why, choice.why), choice.why


def test_flags_are_read_as_linux_tells_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "fma"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def write(path: Path, **changes: object) -> Path:
    content: dict[str, object] = {"schema_version": 1, "weights_sha256": OURS, "precisions": {"f32": {"cpm": 0.5}}}
    path.write_text(json.dumps({k: v for k, v in {**content, **changes}.items() if v is not None}))
    return path


def test_a_proof_is_read(tmp_path: Path) -> None:
    int8 = {"cpm": 1, "cpm_change": 0, "scans": 10, "nodules": 58, "proven": True, "model_sha256": BIN, "later": [1]}
    found = read_proof(write(tmp_path / "p.json", precisions={"int8": int8, "bf16": {"cpm": None}}))
    assert found.weights_sha256 == OURS
    assert found.precisions["int8"] == PrecisionProof(1.0, 0.0, 10, 58, True, BIN)
    assert found.precisions["bf16"] == PrecisionProof()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, r"p\.json: schema_version is 2; this version of rpn3d reads 1"),
        ({"weights_sha256": None}, r"p\.json: has no weights_sha256; expected a text"),
        ({"weights_sha256": "abc"}, r"weights_sha256 is 'abc', expected 64 hexadecimal digits"),
        ({"precisions": [1]}, r"precisions is \[1\], expected an object"),
        ({"precisions": {"int4": {}}}, r"precisions\.int4 is no precision; allowed: f32, bf16, int8"),
        ({"precisions": {"int8": 3}}, r"precisions\.int8 is 3, expected the fields of one precision"),
        ({"precisions": {"int8": {"proven": "yes"}}}, r"precisions\.int8\.proven is 'yes', expected true or false"),
        ({"precisions": {"int8": {"proven": 1}}}, r"precisions\.int8\.proven is 1, expected true or false"),
        ({"precisions": {"int8": {"cpm": True}}}, r"precisions\.int8\.cpm is True, expected a number"),
        ({"precisions": {"int8": {"scans": 1.5}}}, r"precisions\.int8\.scans is 1\.5, expected a whole number"),
        ({"precisions": {"int8": {"model_sha256": "x"}}}, r"precisions\.int8\.model_sha256 is 'x', expected 64"),
    ],
)
def test_a_wrong_proof_names_file_and_field(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ProofError, match=message):
        read_proof(write(tmp_path / "p.json", **changes))


@pytest.mark.parametrize("text", [None, "{", "[1]", "3"])
def test_what_is_no_proof(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProofError, match=r"p\.json: "):
        read_proof(tmp_path / "p.json")


def ir(folder: Path, precision: str, weights: str = OURS, binary: str = "") -> None:
    """Stands for an IR: its notes alone."""
    notes = f'<caffemodel_sha256 value="{weights}"/>' + (f'<bin_sha256 value="{binary}"/>' if binary else "")
    (folder / f"m-{precision}.xml").write_text(f"<net><rt_info><rpn3d>{notes}</rpn3d></rt_info></net>")


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.precision.cpu_flags", lambda: frozenset(AVX2))


@pytest.mark.usefixtures("avx2")
def test_a_folder_of_models_with_its_proof(tmp_path: Path) -> None:
    for precision in ("f32", "bf16", "int8"):
        ir(tmp_path, precision, binary=BIN)
    without = chosen_model(tmp_path, "auto")
    assert (without.file.name, without.precision) == ("m-bf16.xml", "auto")
    assert without.faster == (("int8", tmp_path / "m-int8.xml"),)
    int8 = {"proven": True, "model_sha256": BIN}
    write(tmp_path / "m-proof.json", precisions={"int8": int8})
    chosen = chosen_model(tmp_path, "auto")
    assert (chosen.file.name, chosen.precision, chosen.faster) == ("m-int8.xml", "auto", ())
    assert chosen.why.startswith("int8: the fastest")
    asked = chosen_model(tmp_path, "f32")
    assert (asked.file.name, asked.precision, asked.why, asked.faster) == ("m-f32.xml", "f32", "", ())
    ir(tmp_path, "int8", binary=OTHER)  # calibrated anew since
    again = chosen_model(tmp_path, "auto")
    assert (again.file.name, [name for name, _ in again.faster]) == ("m-f32.xml", ["int8"])
    (tmp_path / "m-proof.json").write_text("{")
    with pytest.raises(Rpn3dError, match=r"m-proof\.json: not JSON"):
        chosen_model(tmp_path, "auto")


@pytest.mark.usefixtures("avx2")
def test_the_int8_model_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shipped; and no longer, once the weights are others."""
    monkeypatch.setattr(
        "convert.build.built_ir", lambda net, weights, precision, say: tmp_path / f"built-{precision}.xml"
    )
    weights = tmp_path / "m.caffemodel"
    weights.write_bytes(b"weights")
    ir(tmp_path, "int8", file_sha256(weights), BIN)
    write(tmp_path / "m-proof.json", weights_sha256=file_sha256(weights), precisions={"int8": {"proven": True}})
    for chosen in (chosen_model(None, "auto", weights=weights), chosen_model(weights, "auto")):
        assert chosen.file == tmp_path / "m-int8.xml"
        assert "proven" in chosen.why
    assert chosen_model(weights, "auto", "onnxruntime").file.name == "built-bf16.xml"
    weights.write_bytes(b"others")
    assert set(precisions_there(None, weights=weights)[1]) == {"f32", "bf16"}
    chosen = chosen_model(weights, "auto")
    assert (chosen.file.name, chosen.precision, chosen.faster) == ("built-bf16.xml", "auto", ())
    assert "m-proof.json is of other weights" in chosen.why
    with pytest.raises(NetError, match="was made from other weights"):
        chosen_model(weights, "int8")


def test_a_file_leaves_no_choice(tmp_path: Path) -> None:
    ir(tmp_path, "int8")
    write(tmp_path / "m-proof.json")
    chosen = chosen_model(tmp_path / "m-int8.xml", "auto")
    assert (chosen.file.name, chosen.why, chosen.faster) == ("m-int8.xml", "", ())


def test_choosing_loads_no_engine() -> None:
    code = "import sys, commands.models, runtime.precision, runtime.proof, convert.model_file; "
    code += "print([m for m in ('openvino', 'onnx', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
