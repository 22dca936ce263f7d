"""Score of every run, one row per arm."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.analysis import summarise
from ablations.figures.canvas import is_drawable, legend_above, measure_of, not_ok, seed_heights
from ablations.figures.palette import arm_style


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
    table = summarise(cells, None)
    heights = seed_heights(cells["seed"])
    for row, arm in enumerate(table["arm"]):
        of_arm = cells["arm"] == arm
        _draw_arm(cells[of_arm], row + heights[of_arm], table.iloc[row], row + 0.32, axes)
    axes.set_yticks(range(len(table)), [_label(cells[cells["arm"] == arm]) for arm in table["arm"]], fontsize="small")
    spare = max(5 - len(table), 0) / 2  # few rows would be drawn far apart, with dots far from their means
    axes.set_ylim(len(table) - 0.4 + spare, -0.6 - spare)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = [
        Line2D([], [], color="grey", marker="o", markersize=4, alpha=0.6, linestyle="", label="a seed"),
        Line2D([], [], color="grey", marker="o", markersize=4, linewidth=1.5, label="mean, 95 % t interval"),
    ]
    if (cells["outcome"] == "diverged").any():
        handles.append(Line2D([], [], color="grey", marker="x", linestyle="", label="diverged"))
    legend_above(axes, side="right", num_columns=4, handles=handles + _draw_chance(cells, axes))
    return axes


def _label(own: pd.DataFrame) -> str:
    """Return an arm's label with its counts of scored, diverged, failed and stale cells."""
    num_stale = int(own["stale"].sum())
    counts = [f"n = {own['score_pct'].count()}", not_ok(own["outcome"]), f"{num_stale} stale" if num_stale else ""]
    return f"{own['arm_label'].iloc[0]} ({', '.join(filter(None, counts))})"


def _draw_arm(own: pd.DataFrame, heights: pd.Series[float], summary: pd.Series, middle: float, axes: Axes) -> None:
    """Draw one arm's cells at `heights`, and its mean and interval at the height `middle`."""
    colour, marker, _ = arm_style(int(own["arm_order"].iloc[0]))
    diverged = own["outcome"] == "diverged"
    axes.plot(
        own.loc[~diverged, "score_pct"],
        heights[~diverged],
        marker,
        color=colour,
        markersize=4,
        alpha=0.6,
        markeredgewidth=0,
    )
    axes.plot(own.loc[diverged, "score_pct"], heights[diverged], "x", color=colour, markersize=5, markeredgewidth=1.4)
    half = (summary["high_pct"] - summary["low_pct"]) / 2
    axes.errorbar(
        summary["mean_pct"], middle, xerr=half, fmt=marker, color=colour, markersize=4, capsize=3, linewidth=1.5
    )


def _draw_chance(cells: pd.DataFrame, axes: Axes) -> list[Line2D]:
    """Draw a dashed line at chance if it is in view, and return its legend entry."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -2), min(high, 102))  # a wide interval can exceed the range of an accuracy
    chance = cells["chance_pct"].iloc[0]
    if not low <= chance <= high:
        return []
    return [axes.axvline(chance, color="grey", linestyle="--", linewidth=1, zorder=0, label=f"chance, {chance:g} %")]
