"""The real net in a process of its own takes no more than predicted."""

import subprocess
import sys

from conftest import ROOT

from convert.build import built_ir
from runtime.engine_memory import engine_bytes

CODE = """
import sys
import numpy as np
from runtime.budget import peak_resident_bytes, resident_bytes
from runtime.engines.base import EngineOptions, load_engine
engine = load_engine("openvino", sys.argv[1], EngineOptions(precision="f32", threads=2))
data = np.full((1, 1, 112, 112, 112), 170, dtype=np.uint8)
held = resident_bytes()
for _ in range(3):  # what one leaves in pieces, the next cannot use
    engine(data, np.zeros((1, 3, 28, 28, 28), dtype=np.float32))
print(peak_resident_bytes() - held)
"""


def test_windows_take_no_more_than_predicted() -> None:
    model = built_ir(
        ROOT / "prototxt/rpn3d/deploy.prototxt", ROOT / "caffe_models/rpn3d.caffemodel", "f32", lambda _: None
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(model)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    taken = int(done.stdout)
    assert 0.3 * engine_bytes(112**3, "f32") < taken < engine_bytes(112**3, "f32")
