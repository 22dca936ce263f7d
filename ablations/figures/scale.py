"""Paired differences at the normalisers' own scale beside those at matched scale."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.figures.canvas import is_drawable, legend_above
from ablations.figures.differences import difference_label
from ablations.figures.rows import annotate_rows, draw_row, label_rows, row_handles, seed_heights

SCALES = ("own", "matched")
"""Initial scales of the attention output, in the order of their rows."""


def scale_difference(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's differences to the reference twice: at its own scale, and at matched scale with hollow marks.

    Seeds are dots, and below them is their mean with its 95 % t interval. A pair with a chance score is a cross, and
    the mean then has no interval. The grey band is each arm's margin of equivalence.

    Args:
        pairs: rows of `analysis.paired`, one per arm, scale and seed, with `arm`, `arm_label`, `scale` (one of
            `SCALES`) and `margin_pct`, in points; `condition` covers the axes other than the scale.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_xlabel(difference_label(pairs))
    if not is_drawable(pairs, axes):
        return axes
    axes.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    heights, labels, texts = seed_heights(pairs["seed"]), list[str](), list[str]()
    for _, of_arm in pairs.groupby(["arm_order", "arm"]):
        margin, edges = of_arm["margin_pct"].iloc[0], (len(labels) - 0.5, len(labels) + len(SCALES) - 0.5)
        axes.fill_betweenx(edges, -margin, margin, color="0.93", linewidth=0, zorder=0)
        if labels:
            axes.axhline(edges[0], color="0.8", linewidth=0.6)
        for scale in SCALES:
            own = of_arm[of_arm["scale"] == scale]
            name = str(of_arm["arm_label"].iloc[0])
            labels.append(f"{name}, {scale}" if scale == SCALES[0] else scale)
            if own.empty:
                texts.append("no pairs")
                continue
            values, by_chance = own["difference_pct"].astype(float), own["has_chance"].astype(bool)
            is_hollow = scale == SCALES[1]
            draw_row(len(texts), values, heights[own.index], by_chance, own.iloc[0], axes, is_hollow=is_hollow)
            texts.append(f"{own['mean_pct'].iloc[0].round(2) + 0.0:+.2f}\nn = {len(own)}")
    label_rows(axes, labels)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = row_handles("with a chance score" if pairs["has_chance"].any() else None)
    hollow = Line2D([], [], color="grey", marker="o", markersize=4, markerfacecolor="white", linewidth=1.5)
    hollow.set_label("matched scale")
    legend_above(axes, side="right", num_columns=4, handles=[*handles, hollow])
    margins = "\nor ".join(f"± {margin:g}" for margin in sorted(pairs["margin_pct"].unique()))
    annotate_rows(axes, texts, below=f"mean; band:\n{margins} points", bold=[False] * len(texts))
    return axes
