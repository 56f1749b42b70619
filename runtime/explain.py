"""A plan in words and in JSON: what will run, and why so."""

import math
from collections.abc import Sequence
from typing import Any

from runtime.budget import Budget, format_memory
from runtime.plan import Option, Plan, by
from runtime.speed import Speed


def explain(
    plan: Plan,
    budget: Budget,
    engine: str,
    precision: str,
    notes: tuple[str, ...] = (),
    speed: Speed | None = None,
    beside: bool = False,
) -> list[str]:
    """Lines for `rpn3d detect --explain`.

    Args:
        plan: of one scan.
        budget: what it was made for.
        engine, precision: what really runs; notes: why, and where that is otherwise than asked.
        speed: see `speed`; None: no times are named. beside: whether another scan is read or drawn meanwhile.
    """
    lines = [f"budget     {budget.why}", f"precision  {engine} {precision}" + "".join(f"; {note}" for note in notes)]
    if not plan.windows:
        return [*lines, f"windows    none: {plan.reason}"]
    spent = plan.computed_voxels
    lines += [
        f"memory     {format_memory(plan.held_bytes)} held by the scan and libraries, "
        f"{format_memory(plan.predicted_peak_bytes)} predicted at the peak, "
        f"{format_memory(budget.memory_bytes)} allowed",
        f"windows    {plan.reason}",
        f"           margin {plan.margin_voxel} voxels at each cut; {spent / 1e6:.1f} M voxels computed, "
        f"{spent / max(1, plan.lung_voxels):.2f} for each voxel of lung"
        + _seconds(plan.windows[0].size, len(plan.windows), speed, beside),
    ]
    for other in plan.others:
        lines.append(
            f"instead of {other.count} x {by(other.size)}: {other.computed_voxels / 1e6:.1f} M voxels, "
            f"{format_memory(other.peak_bytes)}"
            + _seconds(other.size, other.count, speed, beside)
            + ("" if other.fits else ", more memory than allowed")
        )
    return lines


def plan_content(plan: Plan, speed: Speed | None = None, beside: bool = False) -> dict[str, Any]:
    """A plan for the scan's JSON; `speed` and `beside` as for `explain`, from before the network ran."""
    return {
        "windows": len(plan.windows),
        "window_voxel": list(plan.windows[0].size) if plan.windows else [],
        "margin_voxel": plan.margin_voxel,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "reason": plan.reason,
        "held_bytes": plan.held_bytes,
        "keeps_memory": plan.keeps_memory,
        "computed_voxels": plan.computed_voxels,
        "lung_voxels": plan.lung_voxels,
        "predicted_s": _time(plan.windows[0].size, len(plan.windows), speed, beside) if plan.windows else None,
        "others": [_option(other, speed, beside) for other in plan.others],
    }


def _option(option: Option, speed: Speed | None, beside: bool) -> dict[str, Any]:
    return {
        "windows": option.count,
        "window_voxel": list(option.size),
        "computed_voxels": option.computed_voxels,
        "predicted_peak_bytes": option.peak_bytes,
        "fits": option.fits,
        "predicted_s": _time(option.size, option.count, speed, beside),
    }


def _time(size: Sequence[int], count: int, speed: Speed | None, beside: bool) -> float | None:
    if speed is None or not speed.samples:
        return None
    return round(speed.predict(math.prod(size), count, beside), 2)


def _seconds(size: Sequence[int], count: int, speed: Speed | None, beside: bool) -> str:
    found = _time(size, count, speed, beside)
    return "" if found is None else f", {found:.1f} s predicted"
