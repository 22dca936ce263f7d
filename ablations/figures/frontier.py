"""Frontier: the largest learning rate at which an arm learns, over the depth of the net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from ablations.figures.canvas import (
    background_text,
    draw_background,
    in_background,
    is_drawable,
    legend_right,
    span_text,
)
from ablations.figures.palette import arm_style

DODGE, DODGED = 0.02, 0.35
"""Horizontal distance between two arms at one depth, as a share of the axis, and largest total width of all arms, as a
share of the distance to the next depth."""

ARROW = 13
"""Length of the arrow of an open interval, in points."""

FARTHEST = 10
"""Largest factor between a frontier and the edge of the axis; an interval of few seeds may cover many decades."""

FEW_DECADES = 1.7
"""Range of a logarithmic axis, in decades, below which it has ticks between powers of ten."""


def frontier_over_depth(frontiers: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's frontier over the depth, with its interval.

    Arms are shifted horizontally to keep them distinguishable. A frontier that is censored in a seed, because the seed
    learns at the largest tested rate or at none, is hollow, with an arrow in place of the open end of its interval.

    Args:
        frontiers: rows of `analysis.frontier_table`, one per depth and arm, with `depth`, and `condition`, which covers
            the axes that are not drawn; optionally `is_background`, for arms that are drawn as a grey line.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set(xlabel="Depth (blocks)", ylabel="Frontier (learning rate)")
    if not is_drawable(frontiers, axes):
        return axes
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    frontiers = frontiers.sort_values("depth", kind="stable")
    for _, own in frontiers[in_background(frontiers)].groupby(["arm_order", "arm"]):
        draw_background(own["depth"], own["frontier_lr"], axes)
    arms = [own for _, own in frontiers[~in_background(frontiers)].groupby(["arm_order", "arm"])]
    depths = np.sort(frontiers["depth"].unique()).astype(float)
    span = np.log(depths[-1] / depths[0]) or 1.0
    dodge = min([DODGE * span, *(DODGED / len(arms) * np.diff(np.log(depths)))]) if arms else 0.0
    for place, own in enumerate(arms):
        _draw_arm(own, float(np.exp(dodge * (place - (len(arms) - 1) / 2))), axes)
    margin = np.exp(0.06 * span + 0.5 * dodge * len(arms))
    axes.set_xlim(depths[0] / margin, depths[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(depths)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
    _label_rates(frontiers, axes)
    axes.grid(linewidth=0.4, alpha=0.5)
    caption = "Mean and 95 % interval. Hollow: a seed learns at the largest rate (arrow up) or at none (arrow down)."
    caption += background_text(frontiers)
    counts = _counts_text(frontiers[~in_background(frontiers)], axes)
    axes.set_title(f"{caption}\n{counts}", loc="left", fontsize="small")
    if arms:
        legend_right(axes)
    return axes


def _draw_arm(own: pd.DataFrame, factor: float, axes: Axes) -> None:
    """Draw an arm's line, its intervals, the arrows of those that are open, and its markers."""
    style = arm_style(int(own["arm_order"].iloc[0]))
    x, y = own["depth"].astype(float) * factor, own["frontier_lr"].astype(float)
    axes.plot(x, y, color=style.colour, linestyle=style.linestyle, linewidth=1)
    below, above = ((own[bound] - y).abs().fillna(0.0) for bound in ("low", "high"))
    axes.errorbar(x, y, yerr=np.array([below, above]), color=style.colour, linestyle="", elinewidth=1.4)
    for count, bound, sign in (("num_below", "low", -1), ("num_above", "high", 1)):
        for place in own.index[(own[count] > 0) & own[bound].isna()]:
            arrow: dict[str, Any] = {"arrowstyle": "->", "color": style.colour, "shrinkA": 0, "shrinkB": 0}
            ends: dict[str, Any] = {"xytext": (0, sign * ARROW), "textcoords": "offset points"}
            axes.annotate("", (x[place], y[place]), arrowprops=arrow | {"arrowstyle": "<-"}, **ends)
    is_censored = own["num_below"] + own["num_above"] > 0
    marks: dict[str, Any] = {"color": style.colour, "marker": style.marker, "markersize": 5, "linestyle": ""}
    axes.plot(x[is_censored], y[is_censored], markerfacecolor="white", **marks)
    axes.plot(x[~is_censored], y[~is_censored], **marks)
    label = str(own["arm_label"].iloc[0])
    axes.plot([], [], markersize=5, linewidth=1, label=label, **style.line)


def _label_rates(frontiers: pd.DataFrame, axes: Axes) -> None:
    """Write plain learning rates at the ticks, also between powers of ten if the range is small."""
    low, high = axes.get_ylim()
    low = max(low / 1.25, frontiers["frontier_lr"].min() / FARTHEST)  # room for the arrows
    high = min(high * 1.25, frontiers["frontier_lr"].max() * FARTHEST)
    axes.set_ylim(low, high)
    is_short = np.log10(high / low) < FEW_DECADES
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _counts_text(frontiers: pd.DataFrame, axes: Axes) -> str:
    """Count the seeds of a point, the censored ones, those without a frontier, and intervals that leave the axes."""
    num_seeds, num_unknown = int(frontiers["n"].sum()), int(frontiers["num_unknown"].sum())
    num_censored = int((frontiers["num_below"] + frontiers["num_above"]).sum())
    counts = [f"n = {span_text(frontiers['n'])}", f"censored: {num_censored} of {num_seeds}"]
    low, high = axes.get_ylim()
    num_cut = int(((frontiers["low"] < low) | (frontiers["high"] > high)).sum())
    others = {"unknown": num_unknown, "intervals cut": num_cut}
    more = [f"{name}: {number}" for name, number in others.items() if number]
    return "\n".join(", ".join(part) for part in (counts, more) if part)
