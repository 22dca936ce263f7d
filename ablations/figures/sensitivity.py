"""Test accuracy over the learning rate, for studies with that axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from ablations.analysis import CHANCE_KINDS, t_interval
from ablations.figures.canvas import (
    background_text,
    draw_background,
    in_background,
    is_drawable,
    legend_right,
    measure_of,
    not_ok,
    span_text,
)
from ablations.figures.palette import arm_style

DODGE = 0.012
"""Horizontal distance between two arms at one learning rate, as a share of the axis."""

DODGED = 0.6
"""Largest total width of all arms, as a share of the distance to the next learning rate."""

LEVEL = 6
"""Largest number of learning rates with horizontal labels; with more of them the labels are tilted."""


def lr_sensitivity(cells: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's test accuracy over the learning rate: seeds, and their means with 95 % t intervals.

    Learning rates are conditions, so each mean is over the seeds at one of them. Arms are shifted horizontally to keep
    them distinguishable. A diverged cell is a cross at its score, and a mean with chance scores has no interval. Failed
    cells have no score and are counted in the legend.

    Args:
        cells: one row per cell: the columns that `analysis.summarise` takes, and `lr`; `condition` covers the other
            axes; optionally `is_background`, for arms that are drawn as a grey mean.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions of the other axes.
    """
    axes.set(xlabel="Learning rate", ylabel=f"Test {measure_of(cells)} (%)")
    if not is_drawable(cells, axes):
        return axes
    axes.set_xscale("log")
    for _, own in cells[in_background(cells)].groupby(["arm_order", "arm"]):
        means = own.dropna(subset="score_pct").groupby("lr")["score_pct"].mean()
        draw_background(means.index, means, axes)
    arms = [own for _, own in cells[~in_background(cells)].groupby(["arm_order", "arm"])]
    rates = np.sort(cells["lr"].unique())
    span = np.log(rates[-1] / rates[0]) or 1.0
    dodge = min([DODGE * span, *(DODGED / len(arms) * np.diff(np.log(rates)))])
    for place, own in enumerate(arms):
        _draw_arm(own, float(np.exp(dodge * (place - (len(arms) - 1) / 2))), axes)
    margin = np.exp(0.08 * span)
    axes.set_xlim(rates[0] / margin, rates[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(rates)))
    axes.xaxis.set_minor_locator(NullLocator())
    tilt = 40 if len(rates) > LEVEL else 0
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=tilt, fontsize="small" if tilt else None)
    _set_limits(cells, axes)
    n_text = span_text(cells.groupby(["arm", "lr"])["score_pct"].count())
    caption = f"n = {n_text} per point. Faint: a seed. Bold: mean, 95 % t interval.{background_text(cells)}"
    axes.set_title(caption, loc="left", fontsize="small")
    handles, _ = axes.get_legend_handles_labels()
    if any((own["outcome"] == "diverged").any() for own in arms):
        handles.append(Line2D([], [], color="black", marker="x", markeredgewidth=1.4, linestyle="", label="diverged"))
    legend_right(axes, handles=handles)
    return axes


def _set_limits(cells: pd.DataFrame, axes: Axes) -> None:
    """Limit the vertical axis to the range of an accuracy; without a score, write a note instead."""
    if cells["score_pct"].notna().any():
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    else:
        axes.text(0.5, 0.5, "every run failed", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])


def _draw_arm(own: pd.DataFrame, factor: float, axes: Axes) -> None:
    style = arm_style(int(own["arm_order"].iloc[0]))
    x, y, diverged = own["lr"] * factor, own["score_pct"], own["outcome"] == "diverged"
    dots: Any = {"markersize": 3.5, "alpha": 0.4, "markeredgewidth": 0}
    axes.plot(x[~diverged], y[~diverged], style.marker, color=style.colour, **dots)
    axes.plot(x[diverged], y[diverged], "x", color=style.colour, markersize=5, markeredgewidth=1.4)
    scored = own.dropna(subset="score_pct").groupby("lr")
    means = scored["score_pct"].mean()
    bounds = [_bounds(group) for _, group in scored]
    axes.errorbar(
        means.index * factor,
        means,
        yerr=np.array([high - low for low, high in bounds]) / 2 if bounds else None,
        **style.line | {"markersize": 5, "capsize": 3, "linewidth": 1.5},
        label="\n".join(filter(None, [own["arm_label"].iloc[0], not_ok(own["outcome"])])),
    )


def _bounds(group: pd.DataFrame) -> tuple[float, float]:
    if group["kind"].isin(CHANCE_KINDS).any():
        return np.nan, np.nan
    return t_interval(group["score_pct"].to_numpy(np.float64))
