"""The places of an evaluation that are worth a look: the worst false positives and the largest misses."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.evaluation_figures import is_found
from runtime.errors import ScanError
from runtime.froc import FrocResult
from runtime.outputs import from_json, safe_name

PLACES = 12
"""How many of each kind are shown."""

NEAR_MM = 30.0
"""A nodule within this distance of a false positive is mentioned with it."""

SAME_MM = 1e-5
"""Two positions this near to each other are one mark: the CSV has six decimals."""


@dataclass(frozen=True)
class Place:
    """A place in a scan.

    Attributes:
        seriesuid: of the scan; x_mm, y_mm, z_mm: in world mm.
        diameter_mm: of the nodule or the mark; None where a submission does not tell.
        probability: of the mark, or of the nodule's best mark; None without one.
        type: of the nodule, "" if it is not told or the place is no nodule.
        why: what it is and why it is shown, in words.
    """

    seriesuid: str
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float | None
    probability: float | None
    type: str
    why: str


def worst_false_positives(result: FrocResult, count: int = PLACES) -> tuple[Place, ...]:
    """The most probable false positives of all scans; ties in the order of scans and marks."""
    found = []
    for i in np.argsort(-result.false_positive_probability, kind="stable")[:count]:
        uid = result.scans[int(result.false_positive_scan[i])].seriesuid
        x, y, z = result.false_positive_xyz_mm[i].tolist()
        near = [(math.dist((x, y, z), (n.x_mm, n.y_mm, n.z_mm)), n) for n in result.nodules if n.seriesuid == uid]
        distance, nodule = min(near, key=lambda pair: pair[0], default=(math.inf, None))
        why = "false positive"
        if nodule is not None and distance <= NEAR_MM:
            why += f", {distance:.1f} mm from the centre of a nodule of {nodule.diameter_mm:.1f} mm"
        found.append(Place(uid, x, y, z, None, float(result.false_positive_probability[i]), "", why))
    return tuple(found)


def missed(result: FrocResult, threshold: float, count: int = PLACES) -> tuple[tuple[Place, ...], int]:
    """The largest nodules that no mark of at least `threshold` hit, and how many such nodules there are."""
    every = [n for n in result.nodules if not is_found(n, threshold)]
    found = []
    for n in sorted(every, key=lambda n: -n.diameter_mm)[:count]:
        why = "no mark" if n.probability is None else "found below the threshold only"
        found.append(Place(n.seriesuid, n.x_mm, n.y_mm, n.z_mm, n.diameter_mm, n.probability, n.type, why))
    return tuple(found), len(every)


def with_diameters(places: tuple[Place, ...], submission: Path) -> tuple[Place, ...]:
    """The places with their marks' diameters where `rpn3d detect` left its JSON beside the submission."""
    findings: dict[str, list[tuple[float, float, float, float]]] = {}
    for uid in {place.seriesuid for place in places}:
        path = submission.parent / f"{safe_name(uid)}.json"
        try:
            result = from_json(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError, ScanError):
            continue  # a submission made otherwise: the diameters are not known
        findings[uid] = [(f.x_mm, f.y_mm, f.z_mm, f.diameter_mm) for f in result.findings]
    found = []
    for place in places:
        at = (place.x_mm, place.y_mm, place.z_mm)
        same = [f[3] for f in findings.get(place.seriesuid, ()) if math.dist(f[:3], at) < SAME_MM]
        found.append(replace(place, diameter_mm=same[0]) if same else place)
    return tuple(found)
