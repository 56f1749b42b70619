"""Nothing is reported over the network: OpenVINO and NNCF would, from `import` on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_onnx import write_small_detector

MODULES = ("runtime.engines.openvino_core", "convert.to_openvino", "bench.roof")


def run(code: str, home: Path, *args: str) -> None:
    """Python without pytest, in which NNCF would be silent of itself."""
    environment = {key: text for key, text in os.environ.items() if key not in ("CI", "NNCF_CI")} | {"HOME": str(home)}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert not (home / "intel").exists()


@pytest.mark.parametrize("module", MODULES)
def test_openvino_reports_to_nobody(module: str, tmp_path: Path) -> None:
    run(
        f"import {module}, openvino\n"
        "from openvino.tools import ovc\n"
        "assert 'stub' in type(ovc.telemetry).__module__, type(ovc.telemetry)\n",
        tmp_path,
    )


def test_nncf_reports_to_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    run(
        "from convert.quantize import Calibration, quantise\n"
        "import sys, numpy as np, openvino\n"
        "model = openvino.Core().read_model(sys.argv[1])\n"
        "quantise(model, Calibration([{'data': np.ones((1, 1, 16, 16, 16), np.float32),\n"
        "                              'coord': np.ones((1, 3, 4, 4, 4), np.float32)}], 'ones'))\n"
        "from nncf.telemetry import wrapper\n"
        "assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)\n",
        folder,
        str(write_small_detector(tmp_path / "small.onnx")),
    )


def test_no_other_package_imports_them() -> None:
    root = Path(__file__).parent.parent
    words = re.compile(r"^ *(?:import|from) (?:openvino|nncf)\b", re.MULTILINE)
    packages = {path.parent for path in root.glob("*/__init__.py")} - {root / "tests"}
    found = {
        package.name
        for package in packages
        for path in package.rglob("*.py")
        if words.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"runtime", "convert", "bench"}
