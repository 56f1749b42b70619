"""Lengths of time as people write and read them."""

import re

from caffe_models.errors import Rpn3dError

UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of "90s", "55m", "1h", "1h30m" or "2.5m"; a number alone is minutes.

    Raises:
        Rpn3dError: no duration, or none above 0.
    """
    words = str(text).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh])", words)
    if re.fullmatch(r"\d+(?:\.\d+)?", words):
        seconds = 60.0 * float(words)
    elif parts and re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[smh]\s*)+", words):
        seconds = sum(float(number) * UNIT_S[unit] for number, unit in parts)
    else:
        seconds = 0.0
    if seconds <= 0:
        raise Rpn3dError(
            f'deadline "{text}" is no time; write a number and a unit s, m or h, such as 55m, 90s or 1h30m'
        )
    return seconds


def format_duration(seconds: float) -> str:
    """ "90 s", "12 min" or "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
