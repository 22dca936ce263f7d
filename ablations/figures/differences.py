"""Paired differences, one row per comparison: every seed, the mean with its interval, and the test."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes

from ablations.figures.canvas import is_drawable, legend_above, measure_of
from ablations.figures.rows import annotate_rows, draw_row, label_rows, row_handles, seed_heights


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
    axes.set_xlabel(difference_label(pairs))
    return _draw(pairs, axes)


def contrasts(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw contrasts, differences of arms that differ in one thing, in the style of `paired_differences`.

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


def difference_label(pairs: pd.DataFrame) -> str:
    """Return the label of an axis of differences to the reference, which the names of the comparisons end with."""
    references = {name.rpartition(" - ")[2] for name in pairs["comparison"]}
    to = " and ".join(sorted(references)) or "the reference"
    return f"Difference in test {measure_of(pairs)} to {to} (points)"


def _draw(pairs: pd.DataFrame, axes: Axes) -> Axes:
    if pairs.empty:
        axes.text(0.5, 0.5, "no complete pairs", transform=axes.transAxes, ha="center", va="center")
    if pairs.empty or not is_drawable(pairs, axes):
        return axes
    axes.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    heights = seed_heights(pairs["seed"])
    for row, comparison in enumerate(pairs["comparison"].unique()):
        own = pairs[pairs["comparison"] == comparison]
        values, by_chance = own["difference_pct"].astype(float), own["has_chance"].astype(bool)
        draw_row(row, values, heights[own.index], by_chance, own.iloc[0], axes)
    label_rows(axes, list(pairs.drop_duplicates("comparison")["label"]))
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = row_handles("with a chance score" if pairs["has_chance"].any() else None)
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


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "no p"
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
