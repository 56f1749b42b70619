"""An evaluation as one value, as JSON and as lines for a terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.evaluation_distances import by_distance
from bench.evaluation_figures import CURVE_RATES, OPERATING_RATES, Comparison, Figures, Group
from bench.evaluation_places import Place
from bench.evaluation_probabilities import by_probability
from runtime.froc import RATES, Floats, FrocResult

SCHEMA_VERSION = 1
RATE_LABELS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that is known about a submission when it has been evaluated.

    Attributes:
        figures: the official result (`figures.main.result`) and what is computed from it.
        false_positives: the worst of all scans.
        misses: the largest nodules not found at 4 false positives a scan; `miss_count`: how many there are in all.
        files: what was read, by what it was read as.
        pictures: PNG of places, where their scans were given.
        picture_notes: which scans were not found or cannot be read.
    """

    figures: Figures
    false_positives: tuple[Place, ...]
    misses: tuple[Place, ...]
    miss_count: int
    files: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[Place, bytes] = field(default_factory=dict)
    picture_notes: tuple[str, ...] = ()

    @property
    def result(self) -> FrocResult:
        """The official figures."""
        return self.figures.main.result

    @property
    def notes(self) -> tuple[str, ...]:
        """All that a reader should know beside the figures."""
        unknown = self.result.unknown_series.items()
        marks = [f"{uid}: {n} marks, not in the list of scans, not counted" for uid, n in unknown]
        return (*self.result.notes, *marks, *self.picture_notes)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """What froc.json holds; null where a figure is undefined.

    cpm, sensitivity and counts are the official ones. Intervals are [2.5 %, 97.5 %]. The lists of a class stand beside
    `operating_points`.
    """
    figures, result = evaluation.figures, evaluation.result
    return {
        "schema_version": SCHEMA_VERSION,
        "cpm": _number(result.cpm),
        "cpm_95": _intervals(figures.main.at_rates)[-1],
        "rates": list(RATES),
        "sensitivity": _numbers(result.sensitivities),
        "sensitivity_95": _intervals(figures.main.at_rates)[:-1],
        "bootstrap": {"draws": figures.draws, "seed": figures.seed},
        "counts": result.counts,
        "unknown_series": dict(result.unknown_series),
        "notes": list(evaluation.notes),
        "submission": figures.main.name,
        "curve_95": {"fps_per_scan": _numbers(CURVE_RATES), "sensitivity_95": _intervals(figures.main.band)},
        "operating_points": [
            {"fps_per_scan": rate, "threshold": _number(threshold)}
            for rate, threshold in zip(OPERATING_RATES, figures.thresholds, strict=True)
        ],
        "by_probability": [
            {
                "probability": row.probability,
                "fps_per_scan": row.fps_per_scan,
                "sensitivity": _number(row.sensitivity),
                "sensitivity_6_mm_and_more": _number(row.sensitivity_large),
                "marks": row.marks,
                "on_nodules": row.on_nodules,
            }
            for row in by_probability(result)
        ],
        "distances_at_last_operating_point": [
            {
                "class": row.label,
                "hit": row.hit,
                "median_mm": _number(row.median_mm),
                "ninety_percent_within_mm": _number(row.ninety_mm),
                "missed_with_a_mark_beside": row.beside,
            }
            for row in by_distance(result, figures.thresholds[-1])
        ],
        "by_diameter": [_group(group) for group in figures.by_diameter],
        "by_texture": [_group(group) for group in figures.by_texture],
        "by_place": [_group(group) for group in figures.by_place],
        "compare": None if figures.comparison is None else _comparison(figures.comparison),
        "worst_false_positives": [_place(place) for place in evaluation.false_positives],
        "largest_misses": [_place(place) for place in evaluation.misses],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "class": group.label,
        "nodules": group.nodules,
        "found": group.found,
        "sensitivity": _numbers(group.sensitivity),
        "sensitivity_95": _intervals(group.interval),
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    result = found.other.result
    return {
        "submission": found.other.name,
        "cpm": _number(result.cpm),
        "cpm_95": _intervals(found.other.at_rates)[-1],
        "sensitivity": _numbers(result.sensitivities),
        "sensitivity_95": _intervals(found.other.at_rates)[:-1],
        "cpm_difference": _number(found.difference[-1]),
        "cpm_difference_95": _intervals(found.interval)[-1],
        "sensitivity_difference": _numbers(found.difference[:-1]),
        "sensitivity_difference_95": _intervals(found.interval)[:-1],
        "nodules_found_at_last_operating_point": dict(found.found),
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "seriesuid": place.seriesuid,
        "x_mm": place.x_mm,
        "y_mm": place.y_mm,
        "z_mm": place.z_mm,
        "diameter_mm": place.diameter_mm,
        "probability": place.probability,
        "type": place.type,
        "why": place.why,
    }


def text_lines(evaluation: Evaluation) -> list[str]:
    """The evaluation for a terminal: CPM, sensitivity at each rate, counts, the comparison, unknown scans, notes."""
    result, comparison = evaluation.result, evaluation.figures.comparison
    rates = zip(RATE_LABELS, result.sensitivities, strict=True)
    lines = [f"CPM {result.cpm:.4f}", "false positives per scan   sensitivity"]
    lines += [f"{label:>24}   {value:11.4f}" for label, value in rates]
    lines += [f"{key.replace('_', ' ')}: {value}" for key, value in result.counts.items()]
    if comparison is not None:
        low, _, high = comparison.interval[:, -1]
        lines.append(
            f"CPM less that of {comparison.other.name} ({comparison.other.result.cpm:.4f}): "
            f"{comparison.difference[-1]:+.4f}, 95 % {low:+.4f} to {high:+.4f}"
        )
    return lines + [f"note: {line}" for line in evaluation.notes]


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _numbers(values: Sequence[float] | Floats) -> list[float | None]:
    return [_number(value) for value in values]


def _intervals(points: Floats) -> list[list[float | None]]:
    return [[_number(low), _number(high)] for low, high in zip(points[0], points[2], strict=True)]
