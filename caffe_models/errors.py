"""The errors a user can cause and mend: one small hierarchy.

Each message is one line that names the file, then the line, layer or field, what was found and what is
allowed. The command line prints it and exits with code 2; everything else is a defect of ours and keeps its
traceback.
"""

import re
import warnings

MOST_CHARACTERS = 2000
"""Longest message: a file may hold a name or a list of megabytes, and the message quotes it."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """`text` with control characters spelt out (a file's name for a layer could steer the terminal), cut if long."""
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


class Rpn3dError(Exception):
    """Base of every error that a user's input can cause; the message is made one line of 2000 characters or so."""

    def __init__(self, text: str = "") -> None:
        super().__init__(one_line(text))


class PrototxtError(Rpn3dError):
    """A net or solver text that cannot be read, or that asks for what Caffe does not allow."""


class WeightsError(Rpn3dError):
    """A weights or snapshot file that cannot be read or does not fit the net."""


class NetError(Rpn3dError):
    """A net that cannot be run, fed or converted as asked."""


class CaffeWarning(UserWarning):
    """What Caffe accepts without a word although it can only be a mistake. Worded like an error: file, line, layer."""


def warn(text: str) -> None:
    """Warn of what Caffe accepts silently; the command line prints each text once, on standard error."""
    warnings.warn(one_line(text), CaffeWarning, stacklevel=3)
