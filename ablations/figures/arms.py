"""Score of every run, one row per arm."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.analysis import summarise
from ablations.figures.canvas import is_drawable, legend_above, measure_of, not_ok
from ablations.figures.rows import draw_row, label_rows, row_handles, seed_heights


def accuracy_per_arm(cells: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's row: the test accuracy of every seed and, below, the mean with its 95 % t interval.

    A diverged cell is a cross at its score, which is chance, or the measured score if it did not learn. A mean with
    chance scores has no interval. Failed cells have no score; they and stale cells are counted in the row's label. The
    dashed line at chance is drawn only if it is within the range of the scores. A seed has the same height in every
    row.

    Args:
        cells: one condition's rows, one per cell: the columns that `ablations.analysis.summarise` takes, and
            `chance_pct`.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions, or two cells with the same arm and seed.
    """
    axes.set_xlabel(f"Test {measure_of(cells)} (%)")
    if not is_drawable(cells, axes):
        return axes
    table, heights = summarise(cells, None), seed_heights(cells["seed"])
    scores, diverged = cells["score_pct"], cells["outcome"] == "diverged"
    for row, arm in enumerate(table["arm"]):
        of_arm = cells["arm"] == arm
        draw_row(row, scores[of_arm], heights[of_arm], diverged[of_arm], table.iloc[row], axes)
    label_rows(axes, [_label(cells[cells["arm"] == arm]) for arm in table["arm"]])
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = row_handles("diverged" if diverged.any() else None) + _draw_chance(cells, axes)
    legend_above(axes, side="right", num_columns=4, handles=handles)
    return axes


def _label(own: pd.DataFrame) -> str:
    """Return an arm's label with its counts of scored, diverged, failed and stale cells."""
    num_stale = int(own["stale"].sum())
    counts = [f"n = {own['score_pct'].count()}", not_ok(own["outcome"]), f"{num_stale} stale" if num_stale else ""]
    return f"{own['arm_label'].iloc[0]} ({', '.join(filter(None, counts))})"


def _draw_chance(cells: pd.DataFrame, axes: Axes) -> list[Line2D]:
    """Draw a dashed line at chance if it is in view, and return its legend entry."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -2), min(high, 102))  # a wide interval can exceed the range of an accuracy
    chance = cells["chance_pct"].iloc[0]
    if not low <= chance <= high:
        return []
    return [axes.axvline(chance, color="grey", linestyle="--", linewidth=1, zorder=0, label=f"chance, {chance:g} %")]
