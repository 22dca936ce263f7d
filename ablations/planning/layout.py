"""What a plan says of a study that is no product: its grids, its conditions, and the seeds of its pairs."""

from __future__ import annotations

from ablations.config import Study
from ablations.config.grid import grid_text

MOST_LINES = 8
"""Largest number of grids, and of conditions, that are written out."""


def layout_lines(study: Study) -> list[str]:
    """Describe the grids of a study, the arms of its conditions if they differ, and arms without a pair."""
    lines = _first([f"grid {number}: {grid_text(grid)}" for number, grid in enumerate(study.grids, start=1)], "grids")
    arms = study.arms_by_condition if study.grids else {}
    if len({tuple(own) for own in arms.values()}) > 1:
        each = _first([f"{name}: {', '.join(own)}" for name, own in arms.items()], "conditions")
        lines.append(f"arms are compared within a condition: {'; '.join(each)}")
    if lacking := [name for name, own in arms.items() if study.ref is not None and study.ref not in own]:
        lines.append(
            f"no difference to {study.ref} at {'; '.join(_first(lacking, 'conditions'))}, without a cell of it"
        )
    apart = [f"{arm} at {name}" if name else arm for (name, arm), number in _num_pairs(study).items() if not number]
    if apart:
        lines.append(f"no seed in common with {study.ref}, so no pair: {'; '.join(_first(apart, 'arms'))}")
    return lines


def num_seeds_paired(study: Study) -> int:
    """Return the smallest number of seeds that a compared arm has in common with the reference, if it has any."""
    numbers = [number for number in _num_pairs(study).values() if number]
    return min(numbers, default=min(len(grid.axes["seed"]) for grid in study.parts))


def _num_pairs(study: Study) -> dict[tuple[str, str], int]:
    """Return the seeds that each arm of a condition has in common with the reference; empty if all have all seeds."""
    if len({tuple(grid.axes["seed"]) for grid in study.parts}) == 1:
        return {}
    held: dict[str, dict[str, set[int]]] = {}
    for arm, condition, seed in study.places:
        held.setdefault(condition, {}).setdefault(arm, set()).add(seed)
    return {
        (condition, arm): len(seeds & own[study.ref])
        for condition, own in held.items()
        if study.ref in own
        for arm, seeds in own.items()
        if arm != study.ref
    }


def _first(texts: list[str], what: str) -> list[str]:
    left = len(texts) - MOST_LINES
    return texts if left <= 0 else [*texts[:MOST_LINES], f"and {left:,} more {what}"]
