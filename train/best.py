"""The best model of a run so far: `best.caffemodel`, and in `best.json` where it is from and how good it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from caffe_models.atomic import replacing
from caffe_models.net import Net
from caffe_models.weights import write_caffemodel
from convert.provenance import file_sha256

WEIGHTS_NAME, FIGURES_NAME = "best.caffemodel", "best.json"


def keep_if_best(net: Net, run: Path, figures: Mapping[str, Any], scans: list[str], say: Callable[[str], None]) -> bool:
    """Make these weights the best ones of the run if their CPM is above that of those that are; equal ones stay out.

    The caller notes the validation after it: a run killed in between validates again and comes to the same result.

    Args:
        figures: level, iteration, cpm and what else is to stand in `best.json`.
        scans: names of those that it was measured on; a best one of other scans is put aside, not compared.

    Raises:
        OSError: they cannot be written.
    """
    held = read_best(run)
    if held is not None and held.get("scans") != scans:
        name = f"best_{held.get('level')}_iter_{held.get('iteration')}"
        for path in (run / WEIGHTS_NAME, run / FIGURES_NAME):
            if path.is_file():
                path.replace(run / f"{name}{path.suffix}")
        say(f"{run / FIGURES_NAME}: was measured on other scans; it is {name}.caffemodel now")
        held = None
    if held is not None and not figures["cpm"] > held["cpm"]:
        return False
    # Both are on the disk before either gets its name; the hash tells whether they belong together.
    with replacing(run / FIGURES_NAME) as new_figures, replacing(run / WEIGHTS_NAME) as new_weights:
        write_caffemodel(new_weights, net.weights(), net.name, net.layer_types)
        content = {**figures, "scans": scans, "sha256": file_sha256(new_weights)}
        new_figures.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return True


def read_best(run: Path) -> dict[str, Any] | None:
    """What `best.json` says; None if there is none, or it does not belong to `best.caffemodel`."""
    try:
        content = json.loads((run / FIGURES_NAME).read_text(encoding="utf-8"))
        if content["sha256"] == file_sha256(run / WEIGHTS_NAME) and isinstance(content["cpm"], float):
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
