"""Reads hostile files, each in a process of its own that is not allowed much; prints what came of it as JSON lines.

Started by test_hostile: `python hostile_reader.py FOLDER`; FOLDER/list.json has [file, reader] pairs. The modules are
loaded once, before the fork, so that only the reading is measured: seconds of the processor, and by how much the peak
of the memory grew.
"""

import json
import os
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import train.python_layers  # noqa: F401
from caffe_models.errors import Rpn3dError
from caffe_models.net import Net
from caffe_models.solver_nets import read_net
from caffe_models.solver_settings import read_settings
from caffe_models.text_format import read_text
from caffe_models.weights import read_caffemodel, read_solverstate

LIMIT_S, LIMIT_BYTES = 60, 3 << 30


def peak() -> int:
    return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10


def read_as(path: Path, reader: str) -> None:
    if reader in ("net", "train"):
        net = Net.from_prototxt(path, "TRAIN" if reader == "train" else "TEST")
        assert len(net.shapes_before) == len(net.layers)
    elif reader == "solver":
        message = read_text(path, "SolverParameter")
        read_settings(message)
        read_net(message, None)
    elif reader == "weights":
        read_caffemodel(path)
    else:
        read_solverstate(path)


def watched(path: Path, reader: str) -> dict[str, Any]:
    """Read one file in this process, and say how it ended."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT_BYTES, size + LIMIT_BYTES))
    signal.alarm(LIMIT_S)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = peak(), time.process_time()
    end, text = "read", ""
    try:
        read_as(path, reader)
    except Rpn3dError as error:
        end, text = "refused", str(error)
    except BaseException as error:
        end, text = "broken", f"{type(error).__name__}: {error}"[:500]
    return {"end": end, "text": text, "seconds": time.process_time() - start, "bytes": peak() - before}


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    for name, reader in json.loads((folder / "list.json").read_text()):
        sys.stdout.flush()
        child = os.fork()
        if not child:
            found = watched(folder / name, reader)
            os.write(1, (json.dumps({"name": name, **found}) + "\n").encode())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(
                json.dumps(
                    {"name": name, "end": f"killed, status {status}", "text": "", "seconds": LIMIT_S, "bytes": 0}
                )
            )


if __name__ == "__main__":
    main()
