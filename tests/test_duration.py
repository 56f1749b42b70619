"""Lengths of time, read and written."""

import pytest

from caffe_models.errors import Rpn3dError
from runtime.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("55m", 3300), ("1h30m", 5400), ("2.5m", 150), ("10", 600), (" 1 H ", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "-3m", "0", "0s", "m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Rpn3dError, match="such as 55m, 90s or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
