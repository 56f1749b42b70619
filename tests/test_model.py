"""The model that comes along: it is what its card says, fits the net, and detects."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from caffe_models.net import Net
from caffe_models.weights import read_caffemodel
from convert.build import build_onnx
from convert.provenance import noted
from runtime.candidates import decode, nms
from runtime.engines.base import EngineOptions, load_engine
from runtime.lung_mask import find_lungs
from runtime.plan import plan_windows
from runtime.proof import read_proof
from runtime.tiling import run_windows
from runtime.working_volume import WorkingVolume, make_working_volume
from train.phantom import make_phantom


@pytest.fixture(scope="module")
def weights(root: Path) -> Path:
    return root / "caffe_models" / "rpn3d.caffemodel"


def test_the_card_describes_this_file(weights: Path) -> None:
    card = weights.with_suffix(".md").read_text(encoding="utf-8")
    found = re.search(r"`([0-9a-f]{64})`", card)
    assert found is not None
    assert found[1] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_every_weight_fits_the_deploy_net_and_is_finite(root: Path, weights: Path) -> None:
    loaded = read_caffemodel(weights)
    net = Net.from_prototxt(root / "prototxt" / "rpn3d" / "deploy.prototxt")
    report = net.load(loaded, str(weights))
    assert report.unused == report.missing == ()
    assert all(np.isfinite(blob).all() for blobs in loaded.values() for blob in blobs)


def test_a_nodule_of_a_synthetic_scan_is_the_first_finding(root: Path, weights: Path, tmp_path: Path) -> None:
    """A crop of 96 mm round a solid nodule of 14 mm, so that it takes seconds."""
    made = make_phantom(21, size=256, spacing_mm=(1.4, 1.4, 1.5), nodules=1, diameters_mm=(14.0,), reoriented=False)
    (nodule,) = made.nodules
    working = make_working_volume(made.volume, find_lungs(made.volume))
    centre = working.grid.to_voxel((nodule.x_mm, nodule.y_mm, nodule.z_mm))
    starts = [int(np.clip(c - 48, 0, n - 96)) for c, n in zip(centre, working.voxels.shape, strict=True)]
    z, y, x = (slice(s, s + 96) for s in starts)
    crop = WorkingVolume(working.voxels[z, y, x], working.lung[z, y, x], working.grid)
    build_onnx(root / "prototxt" / "rpn3d" / "deploy.prototxt", weights, tmp_path / "m.onnx")
    engine = load_engine("openvino", tmp_path / "m.onnx", EngineOptions(precision="f32", threads=2))
    plan = plan_windows(crop.voxels.shape, crop.lung, 2**33, engine.precision)
    found = nms(decode(run_windows(crop, plan, engine), 0.0, lung=crop.lung))
    offset = np.linalg.norm(found.centre_voxel[0] + starts - centre)
    assert offset < nodule.diameter_mm / 2
    assert found.diameter_voxel[0] == pytest.approx(nodule.diameter_mm, rel=0.5)


def test_the_proof_and_the_int8_model_are_of_these_weights(weights: Path) -> None:
    """What `--precision auto` goes by: otherwise it would pass both over in silence, and run in float32."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    xml = weights.with_name("rpn3d-int8.xml")
    held = hashlib.sha256(xml.with_suffix(".bin").read_bytes()).hexdigest()
    proof = read_proof(weights.with_name("rpn3d-proof.json"))
    assert noted(xml, "caffemodel_sha256") == proof.weights_sha256 == digest
    assert noted(xml, "bin_sha256") == proof.precisions["int8"].model_sha256 == held
    assert proof.precisions["int8"].proven
