"""Paired differences, one row per comparison: every seed, the mean with its interval, and the test."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.figures.canvas import annotate_rows, is_drawable, legend_above, measure_of, seed_heights
from ablations.figures.palette import arm_style


def paired_differences(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's differences to the reference per seed; to the right of zero the arm is better.

    The mean with its 95 % t interval is below the dots. The right edge has the number of pairs, the number that mix a
    stale and a fresh cell, and the adjusted p, bold if below 0.05. A pair with a chance score is a cross, and the mean
    then has no interval. A seed has the same height in every row.

    Args:
        pairs: one condition's rows of `analysis.paired`, one per comparison and seed, with `label`, the row's name.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    references = {name.rpartition(" - ")[2] for name in pairs["comparison"]}
    to = " and ".join(sorted(references)) or "the reference"
    axes.set_xlabel(f"Difference in test {measure_of(pairs)} to {to} (points)")
    return _draw(pairs, axes)


def contrasts(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw contrasts, differences of arms that differ in one factor, in the style of `paired_differences`.

    Args:
        pairs: one condition's rows of `analysis.paired`, one per contrast and seed, with `label`, the row's name.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_xlabel(f"Difference in test {measure_of(pairs)} (points)")
    return _draw(pairs, axes)


def _draw(pairs: pd.DataFrame, axes: Axes) -> Axes:
    if pairs.empty:
        axes.text(0.5, 0.5, "no complete pairs", transform=axes.transAxes, ha="center", va="center")
    if pairs.empty or not is_drawable(pairs, axes):
        return axes
    axes.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    heights = seed_heights(pairs["seed"])
    comparisons = list(pairs["comparison"].unique())
    for row, comparison in enumerate(comparisons):
        own = pairs[pairs["comparison"] == comparison]
        _draw_row(own, row, row + heights[own.index], axes)
    labels = pairs.drop_duplicates("comparison")["label"]
    axes.set_yticks(range(len(comparisons)), list(labels), fontsize="small")
    spare = max(5 - len(comparisons), 0) / 2  # few rows would be drawn far apart, with dots far from their means
    axes.set_ylim(len(comparisons) - 0.4 + spare, -0.6 - spare)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = [
        Line2D([], [], color="grey", marker="o", markersize=4, alpha=0.6, linestyle="", label="a seed"),
        Line2D([], [], color="grey", marker="o", markersize=4, linewidth=1.5, label="mean, 95 % t interval"),
    ]
    if pairs["has_chance"].any():
        handles.append(Line2D([], [], color="grey", marker="x", linestyle="", label="with a score by chance"))
    legend_above(axes, side="right", num_columns=3, handles=handles)
    tests = pairs.groupby("comparison", sort=False).agg(
        n=("seed", "size"), mixed=("is_mixed", "sum"), p=("p_holm", "first"), bold=("supported", "first")
    )
    texts = [
        f"n = {n}{f', {mixed}*' if mixed else ''}\n{_p_text(p)}"
        for n, mixed, p in zip(tests["n"], tests["mixed"], tests["p"], strict=True)
    ]
    below = "adjusted p,\nbold: < 0.05" + ("\n*: a stale and\na fresh cell" if tests["mixed"].any() else "")
    annotate_rows(axes, texts, below=below, bold=tests["bold"].tolist())
    return axes


def _draw_row(own: pd.DataFrame, row: int, heights: pd.Series[float], axes: Axes) -> None:
    colour, marker, _ = arm_style(int(own["arm_order"].iloc[0]))
    by_chance = own["has_chance"].to_numpy(bool)
    values = own["difference_pct"].to_numpy(np.float64)
    axes.plot(
        values[~by_chance],
        heights[~by_chance],
        marker,
        color=colour,
        markersize=4,
        alpha=0.6,
        markeredgewidth=0,
    )
    axes.plot(values[by_chance], heights[by_chance], "x", color=colour, markersize=5, markeredgewidth=1.4)
    first = own.iloc[0]
    half = (first["high_pct"] - first["low_pct"]) / 2
    axes.errorbar(
        first["mean_pct"], row + 0.32, xerr=half, fmt=marker, color=colour, markersize=4, capsize=3, linewidth=1.5
    )


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "no p"
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
