"""IR files: whole or not there, with their precision noted, weights in full."""

import shutil
from pathlib import Path

import openvino
import pytest
from small_onnx import window, write_small_detector

from caffe_models.errors import NetError
from convert.provenance import noted
from convert.run_net import run_openvino
from convert.to_openvino import onnx_to_ir
from runtime.engines.base import load_engine
from runtime.engines.openvino_core import core


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_detector(tmp_path_factory.mktemp("ir") / "small.onnx")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_ir_says_what_it_is(onnx_file: Path, tmp_path: Path, precision: str) -> None:
    xml = tmp_path / "new" / "model.xml"
    onnx_to_ir(onnx_file, xml, precision)
    assert sorted(p.name for p in xml.parent.iterdir()) == ["model.bin", "model.xml"]
    model = core().read_model(str(xml))
    assert noted(xml, "precision") == precision
    for key in ("version", "openvino", "source", "weights_sha256", "bin_sha256"):
        assert model.has_rt_info(["rpn3d", key])
    assert [str(d) for d in model.input("data").partial_shape] == ["1", "1", "?", "?", "?"]


def test_weights_are_kept_in_full(onnx_file: Path, tmp_path: Path) -> None:
    onnx_to_ir(onnx_file, tmp_path / "m.xml", "bf16")
    data, coord = window(32, 16, 16)
    inputs = {"data": data, "coord": coord}
    a = run_openvino(onnx_file, inputs)["head"]
    b = run_openvino(tmp_path / "m.xml", inputs, precision="f32")["head"]
    assert (a == b).all()


def test_a_pair_torn_apart_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.xml", tmp_path / "b.xml"
    onnx_to_ir(write_small_detector(tmp_path / "a.onnx"), first)
    onnx_to_ir(write_small_detector(tmp_path / "b.onnx", scale=2.0), second)
    shutil.copy(tmp_path / "b.bin", tmp_path / "a.bin")
    with pytest.raises(NetError, match=r"a\.xml: belongs to other weights than those in a\.bin; convert"):
        load_engine("openvino", first)
    second.with_suffix(".bin").write_bytes(second.with_suffix(".bin").read_bytes()[:-8])
    with pytest.raises(NetError, match=r"b\.xml: "):
        load_engine("openvino", second)
    (tmp_path / "b.bin").unlink()
    with pytest.raises(NetError, match=r"its weights b\.bin are not beside it"):
        load_engine("openvino", second)


def test_a_conversion_that_breaks_off_leaves_no_wrong_pair(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xml = tmp_path / "m.xml"
    onnx_to_ir(onnx_file, xml)
    before = xml.read_bytes()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(openvino, "save_model", fail)
        with pytest.raises(OSError, match="disk full"):
            onnx_to_ir(onnx_file, xml)
    assert xml.read_bytes() == before  # the old pair is still whole
    load_engine("openvino", xml)

    rename = Path.replace

    def break_at_xml(self: Path, target: Path) -> Path:
        if Path(target) == xml:
            raise OSError("killed")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", break_at_xml)
        with pytest.raises(OSError, match="killed"):
            onnx_to_ir(onnx_file, xml)
    assert not xml.exists()  # never an old .xml with a new .bin
    assert not list(tmp_path.glob(".m*"))


def test_what_a_user_can_get_wrong(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r'precision "f16" is not one of f32, bf16'):
        onnx_to_ir(onnx_file, tmp_path / "m.xml", "f16")
    with pytest.raises(NetError, match=r"none\.onnx: no such file"):
        onnx_to_ir(tmp_path / "none.onnx", tmp_path / "m.xml")
    with pytest.raises(NetError, match=r"ends in \.xml"):
        onnx_to_ir(onnx_file, tmp_path / "m.ir")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(NetError, match=r"broken\.onnx: OpenVINO cannot read it"):
        onnx_to_ir(broken, tmp_path / "m.xml")
