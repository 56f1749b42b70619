"""How long this process has been there: the clock for start-up, which begins before Python does."""

import os
import time
from pathlib import Path

from caffe_models.free_memory import read_words


def age_s(stat: str | Path = "/proc/self/stat") -> float | None:
    """Seconds since the kernel made this process, to about 0.01 s; None where the system does not say.

    Starting Python, loading libraries and reading the model all lie after that moment. Field 22 of the file is the
    start in clock ticks since boot (proc(5)); the name in field 2 may hold blanks and brackets.
    """
    text = read_words(Path(stat))
    if text is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    ticks = int(text.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
