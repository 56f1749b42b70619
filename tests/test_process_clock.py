"""The clock that begins when the process does."""

import time
from pathlib import Path

from runtime.process_clock import age_s


def test_the_start_is_field_22_whatever_the_name_holds(tmp_path: Path) -> None:
    before = [f"{number}" for number in range(4, 22)]
    started = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 3) * 100)  # clock ticks of 10 ms
    stat = tmp_path / "stat"
    stat.write_text(f"17 (a) b (c)) R {' '.join(before)} {started} 23 24\n")
    age = age_s(stat)
    assert age is not None
    assert 2.9 < age < 8
    assert age_s(tmp_path / "none") is None


def test_this_process_grows_older() -> None:
    first = age_s()
    time.sleep(0.05)
    second = age_s()
    assert first is not None
    assert second is not None
    assert 0.04 < second - first < 5
    assert first < time.clock_gettime(time.CLOCK_BOOTTIME)
