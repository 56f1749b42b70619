"""OpenVINO and NNCF report each use to their makers over the network, unless they find no `openvino_telemetry`."""

import sys


def switch_off() -> None:
    """Let `import openvino_telemetry` fail in this process, so that both take the stand-in that they have for that.

    Called before either is imported. Besides what is nobody's business in a hospital, it saves `import openvino` half
    of its time and the home folder a client number.
    """
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how Python notes "not to be found"
