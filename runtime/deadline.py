"""A set of scans by a deadline: what is left of the time, what it is expected to take, what is given up for it.

The expectation is the mean of the last three scans of this run, in seconds from one result to the next; before the
first it is what windows of that size took in earlier runs on this machine (`speed`), if there were any. Given up is, in
this order and no more than seems to be needed: the pictures (where there are any), then half of the margin of windows
(where there are several), then the proof of the precision (a faster one is taken for the rest, where the user left the
choice and there is a model for it), last the scans that would not be ready. After each the expectation is a guess,
until a scan has shown what it saved.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

SAFETY = 1.1
"""Scans differ; the expectation is taken so much longer."""
WITHOUT_PICTURES, WITH_HALF_MARGIN, IN_FASTER_PRECISION = 0.95, 0.85, 0.75
"""Parts of the time that a scan is guessed to take afterwards. int8 halves the network's seconds and leaves the others;
the guesses are cautious, since one too high gives up what need not be, and one too low is soon put right."""


@dataclass
class Deadline:
    """The time of one set of scans; it runs from when this is made.

    Attributes:
        seconds: for the whole set; infinite without a deadline.
        scans: how many there are.
        pictures: whether they are drawn; half_margin: whether windows get half of it.
        several_windows: whether the last scan was cut, so that half a margin saves time.
        faster: precisions that may be taken although they are not proven, the fastest last; emptied from the front.
        taken: the last of those that was taken; "" while it is none.
        given_up: one sentence for each thing given up, in order.
    """

    seconds: float
    scans: int
    start: float = field(default_factory=lambda: time.monotonic())  # looked up late, for tests
    pictures: bool = True
    half_margin: bool = False
    several_windows: bool = True
    faster: tuple[str, ...] = ()
    taken: str = ""
    given_up: list[str] = field(default_factory=list)
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _last: float | None = None
    _guess_s: float = 0.0

    @property
    def left_s(self) -> float:
        """Seconds left, below 0 after the deadline."""
        return self.seconds - (time.monotonic() - self.start)

    def expected_s(self) -> float:
        """What one more scan is expected to take; 0 before the first is done."""
        return SAFETY * sum(self._took_s) / len(self._took_s) if self._took_s else self._guess_s

    def rest_s(self, tried: int) -> float | None:
        """What the scans after the first `tried` take, about; None before one is done, or when none is left."""
        rest = self.scans - tried
        return rest * sum(self._took_s) / len(self._took_s) if rest and self._took_s else None

    def scan_done(self, tried: int) -> None:
        """Take the time since the last result, and give up what must be for the rest.

        Args:
            tried: scans of the set that are done or have failed.
        """
        now = time.monotonic()
        self._took_s.append(now - (self.start if self._last is None else self._last))
        self._last = now
        self._economise(self.scans - tried, "more ")

    def foresee(self, each_s: float) -> None:
        """Before the first scan's network: expect `each_s` of all of them, and give up what must be."""
        self._guess_s = each_s
        self._economise(self.scans, "")

    def _economise(self, rest: int, more: str) -> None:
        """Give up what must be so that `rest` scans are ready in time."""
        if not rest or rest * self.expected_s() <= self.left_s:
            return
        scans = f"{rest} {more}scan{'s' * (rest > 1)}"
        expected = f"{scans} of about {self.expected_s():.1f} s in {max(0.0, self.left_s):.0f} s"
        for share, text in self._steps():
            self.given_up.append(f"{text}: {expected}")
            self._guess_s = share * self.expected_s()
            self._took_s.clear()
            if rest * self._guess_s <= self.left_s:
                break

    def _steps(self) -> Iterator[tuple[float, str]]:
        """Give up one thing after the other: the part of the time that is left then, and what it was."""
        if self.pictures:
            self.pictures = False
            yield WITHOUT_PICTURES, "no more pictures"
        if not self.half_margin and self.several_windows:
            self.half_margin = True
            yield WITH_HALF_MARGIN, "windows with half the margin where there are several"
        while self.faster:
            self.taken, *rest = self.faster
            self.faster = tuple(rest)
            yield IN_FASTER_PRECISION, f"{self.taken} from here on, though not proven for this model"

    def too_late(self) -> bool:
        """Whether a scan started now would not be ready in time."""
        return self.left_s <= self.expected_s()
