"""The error of a scan that cannot be read or searched."""

from caffe_models.errors import Rpn3dError


class ScanError(Rpn3dError):
    """A scan that cannot be read, or in which no lungs can be found; other scans of the same call still run."""
