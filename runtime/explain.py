"""A plan in words and in JSON: what will run, and why so."""

from typing import Any

from runtime.budget import Budget, format_memory
from runtime.plan import Option, Plan, by


def explain(
    plan: Plan,
    budget: Budget,
    engine: str,
    precision: str,
    notes: tuple[str, ...] = (),
    seconds_per_voxel: float | None = None,
) -> list[str]:
    """Lines for `rpn3d detect --explain`.

    Args:
        plan: of one scan.
        budget: what it was made for.
        engine, precision: what really runs; notes: where that is otherwise than asked.
        seconds_per_voxel: see `speed`; None: no times are named.
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
        f"{spent / max(1, plan.lung_voxels):.2f} for each voxel of lung" + _seconds(spent, seconds_per_voxel),
    ]
    for other in plan.others:
        lines.append(
            f"instead of {other.count} x {by(other.size)}: {other.computed_voxels / 1e6:.1f} M voxels, "
            f"{format_memory(other.peak_bytes)}"
            + _seconds(other.computed_voxels, seconds_per_voxel)
            + ("" if other.fits else ", more memory than allowed")
        )
    return lines


def plan_content(plan: Plan, seconds_per_voxel: float | None = None) -> dict[str, Any]:
    """A plan for the scan's JSON."""
    return {
        "windows": len(plan.windows),
        "window_voxel": list(plan.windows[0].size) if plan.windows else [],
        "margin_voxel": plan.margin_voxel,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "reason": plan.reason,
        "held_bytes": plan.held_bytes,
        "computed_voxels": plan.computed_voxels,
        "lung_voxels": plan.lung_voxels,
        "predicted_s": _time(plan.computed_voxels, seconds_per_voxel),
        "others": [_option(other, seconds_per_voxel) for other in plan.others],
    }


def _option(option: Option, seconds_per_voxel: float | None) -> dict[str, Any]:
    return {
        "windows": option.count,
        "window_voxel": list(option.size),
        "computed_voxels": option.computed_voxels,
        "predicted_peak_bytes": option.peak_bytes,
        "fits": option.fits,
        "predicted_s": _time(option.computed_voxels, seconds_per_voxel),
    }


def _time(voxels: int, seconds_per_voxel: float | None) -> float | None:
    return None if seconds_per_voxel is None else round(voxels * seconds_per_voxel, 2)


def _seconds(voxels: int, seconds_per_voxel: float | None) -> str:
    return "" if seconds_per_voxel is None else f", {voxels * seconds_per_voxel:.1f} s predicted"
