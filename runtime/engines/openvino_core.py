"""OpenVINO's Core: one for the whole life of the process.

When it loads its CPU plugin, OpenVINO (2022.2 and later) gives the calling thread a stack for signal handlers, and when
the Core goes, takes it away: the wrong one if two Cores overlapped, and that of the wrong thread if the last reference
fell in another one. The next signal, such as Ctrl-C, then ends the process with a segmentation fault. A Core that stays
takes nothing away.
"""

from functools import cache

import openvino


@cache
def core() -> openvino.Core:
    """The process's Core. Loading its plugins is left to the first model."""
    return openvino.Core()
