"""What the results of one call say about the process they came from: its start-up, and its pace after the first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.outputs import ScanResult


def first_window_s(scans: Sequence[ScanResult]) -> float | None:
    """Seconds from the making of the process to the network's first window; None where results do not say."""
    known = [scan.process["first_window_s"] for scan in scans if "first_window_s" in scan.process]
    return min(known, default=None)


def steady(scans: Sequence[ScanResult], cpus: float) -> dict[str, Any] | None:
    """The pace from the first result on, so without start-up: with results after 10, 14 and 18 s it is 4 s a scan.

    Where several processes shared the scans, their paces are added up.

    Returns:
        "scans_per_hour", "seconds_a_scan", "cores_busy" (CPU seconds over seconds x cores, 0 to 1) and "first_done_s";
        None if no process had two scans, or results do not say when they were done.
    """
    processes: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for scan in scans:
        if {"pid", "done_s", "done_cpu_s"} <= set(scan.process):
            processes[scan.process["pid"]].append(scan.process)
    rate = busy = 0.0
    for moments in processes.values():
        ordered = sorted(moments, key=lambda moment: moment["done_s"])
        first, last = ordered[0], ordered[-1]
        seconds = last["done_s"] - first["done_s"]
        if seconds > 0:
            rate += (len(ordered) - 1) / seconds
            busy += (last["done_cpu_s"] - first["done_cpu_s"]) / seconds
    if not rate:
        return None
    return {
        "scans_per_hour": 3600 * rate,
        "seconds_a_scan": 1 / rate,
        "cores_busy": busy / cpus,
        "first_done_s": min(moment["done_s"] for moments in processes.values() for moment in moments),
    }
