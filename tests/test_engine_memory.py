"""The real net in a process of its own takes no more than predicted."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from convert.build import built_ir
from runtime.engine_memory import engine_bytes
from runtime.engines.openvino_engine import fast_precision
from runtime.plan import KEPT_SHARE

CODE = """
import json, sys
import numpy as np
from runtime.budget import peak_resident_bytes, resident_bytes
from runtime.engines.base import EngineOptions, load_engine
engine = load_engine("openvino", sys.argv[1], EngineOptions(precision=sys.argv[3], threads=2))
engine.keep_memory(sys.argv[2] == "keep")
# no emptiness, which the first stage would leave out
data = np.random.default_rng(0).integers(0, 170, (1, 1, 112, 112, 112), dtype=np.uint8)
held = resident_bytes()
heads = []
for _ in range(3):  # what one leaves in pieces, the next cannot use
    heads.append(engine(data, np.zeros((1, 3, 28, 28, 28), dtype=np.float32)))
after = resident_bytes() - held
engine.release()
same = all((head == heads[0]).all() for head in heads)
print(json.dumps([peak_resident_bytes() - held, after, resident_bytes() - held, bool(same)]))
"""


@pytest.mark.parametrize("precision", sorted({"f32", fast_precision(), "int8"}))
@pytest.mark.parametrize("keep", [False, True])
def test_windows_take_no_more_than_predicted_and_give_back_what_is_not_to_be_kept(precision: str, keep: bool) -> None:
    weights = ROOT / "caffe_models/rpn3d.caffemodel"
    model = weights.with_name("rpn3d-int8.xml")
    if precision != "int8":
        model = built_ir(ROOT / "prototxt/rpn3d/deploy.prototxt", weights, precision, lambda _: None)
    command = [sys.executable, "-c", CODE, str(model), "keep" if keep else "release", precision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    taken, after, released, same = json.loads(done.stdout)
    predicted = engine_bytes(112**3, precision)
    assert 0.3 * predicted < taken < predicted * (1 + KEPT_SHARE * keep)
    assert released < 0.3 * predicted
    assert (after > 0.5 * taken) == keep
    assert same
