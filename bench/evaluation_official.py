"""An evaluation in the words and layout of LUNA16's official program."""

import math

from runtime.froc import FrocResult


def curve_lines(result: FrocResult) -> str:
    """The points of the curve as the official program writes them: false positives per scan, sensitivity, threshold."""
    points = zip(result.fps_per_scan, result.sensitivity, result.thresholds, strict=True)
    return "".join(f"{fps:.9f},{sensitivity:.9f},{threshold:.9f}\n" for fps, sensitivity, threshold in points)


def cad_analysis(result: FrocResult, name: str) -> str:
    """The counts in the official program's words and layout."""
    counts = result.counts
    sensitivity = counts["true_positives"] / counts["nodules"] if counts["nodules"] else math.nan
    stars = "*" * 60
    lines = [
        "",
        stars,
        f"CAD Analysis: {name}",
        stars,
        "",
        "Candidate detection results:",
        f"    True positives: {counts['true_positives']}",
        f"    False positives: {counts['false_positives']}",
        f"    False negatives: {counts['false_negatives']}",
        "    True negatives: 0",
        f"    Total number of candidates: {counts['candidates']}",
        f"    Total number of nodules: {counts['nodules']}",
        f"    Ignored candidates on excluded nodules: {counts['ignored_on_excluded']}",
        f"    Ignored candidates which were double detections on a nodule: {counts['doubles']}",
        f"    Sensitivity: {sensitivity:.9f}",
        f"    Average number of candidates per scan: {counts['candidates'] / counts['scans']:.9f}",
    ]
    return "\n".join(lines) + "\n"
