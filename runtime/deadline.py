"""A set of scans by a deadline: what is left of the time, what it is expected to take, what is given up for it.

The expectation is the mean of the last three scans of this run, in seconds from one result to the next; before the
first there is none. Given up is, in this order: the pictures, then half of the margin of windows (where there are
several), then the scans that would not be ready. The precision is not touched: with `auto` it is the fastest already.
"""

import re
import time
from collections import deque
from dataclasses import dataclass, field

from caffe_models.errors import Rpn3dError

UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
SAFETY = 1.1
"""Scans differ; the expectation is taken so much longer."""


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


@dataclass
class Deadline:
    """The time of one set of scans; it runs from when this is made.

    Attributes:
        seconds: for the whole set; infinite without a deadline.
        scans: how many there are.
        given_up: one sentence for each thing given up, in order.
    """

    seconds: float
    scans: int
    start: float = field(default_factory=lambda: time.monotonic())  # looked up late, for tests
    pictures: bool = True
    half_margin: bool = False
    given_up: list[str] = field(default_factory=list)
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _last: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds left, below 0 after the deadline."""
        return self.seconds - (time.monotonic() - self.start)

    def expected_s(self) -> float:
        """What one more scan is expected to take; 0 before the first is done."""
        return SAFETY * sum(self._took_s) / max(1, len(self._took_s))

    def scan_done(self, tried: int) -> None:
        """Take the time since the last result, and give up what must be for the rest.

        Args:
            tried: scans of the set that are done or have failed.
        """
        now = time.monotonic()
        self._took_s.append(now - (self.start if self._last is None else self._last))
        self._last = now
        rest = self.scans - tried
        if not rest or rest * self.expected_s() <= self.left_s:
            return
        expected = f"{rest} more scans of about {self.expected_s():.1f} s in {max(0.0, self.left_s):.0f} s"
        if self.pictures:
            self.pictures = False
            self.given_up.append(f"no more pictures: {expected}")
        elif not self.half_margin:
            self.half_margin = True
            self.given_up.append(f"windows with half the margin where there are several: {expected}")

    def too_late(self) -> bool:
        """Whether a scan started now would not be ready in time."""
        return self.left_s <= self.expected_s()
