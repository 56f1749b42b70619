"""Prints of C++ libraries are caught, whatever happens."""

import os

import pytest

from runtime.quiet import captured_prints


def test_what_is_written_to_the_descriptor_is_handed_over(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_prints() as lines:
        os.write(2, b"ITK: first\n\n  second\n")
        with captured_prints() as inner:
            os.write(2, b"deeper\n")
    os.write(2, b"after\n")
    assert lines == ["ITK: first", "second"]
    assert inner == ["deeper"]
    assert capfd.readouterr().err == "after\n"


def test_an_error_inside_leaves_the_descriptor_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with captured_prints() as lines:
            lines.append("own")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"
