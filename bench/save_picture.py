"""Figures of Matplotlib as files."""

from pathlib import Path
from typing import TYPE_CHECKING

from caffe_models.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: "Figure", path: Path | str, dpi: float = 90) -> Path:
    """Write a figure as PNG, whole or not at all; the file's path.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=dpi)
    return Path(path)
