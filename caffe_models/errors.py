"""The errors a user can cause and mend: one small hierarchy.

Each message is one line that names the file, then the line, layer or field, what was found and what is
allowed. The command line prints it and exits with code 2; everything else is a defect of ours and keeps its
traceback.
"""

import warnings


class Rpn3dError(Exception):
    """Base of every error that a user's input can cause."""


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
    warnings.warn(text, CaffeWarning, stacklevel=3)
