"""Learning rates that were foreseen against measured ones, and probes of the first steps by depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import gmean

from ablations.analysis.foresight import RankCorrelation, rank_correlation
from ablations.figures.palette import arm_style
from ablations.figures.probes import probe_name

SIZES = (3.5, 10.0)
"""Marker sizes of the first and the last setting, in points."""


def foreseen_against_measured(points: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the foreseen learning rate of each arm and setting against its measured frontier, on logarithmic axes.

    Colour and shape are the arm's; the size grows from the first setting to the last. A point is hollow if the frontier
    of one of its seeds lies outside the tested rates. The line is that of equal rates. The caption has Spearman's
    correlation, over all points and within the settings, with 95 % bootstrap intervals.

    Args:
        points: one row per setting and arm: `setting`, `arm_label`, `arm_order`, `lr_after`, `frontier_lr`,
            `num_below`, `num_above`; rows without two finite rates are not drawn, and counted.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.
    """
    is_drawn = np.isfinite(points["lr_after"]) & np.isfinite(points["frontier_lr"])
    shown = points[is_drawn]
    label = "Foreseen largest learning rate, after the first steps"
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="Measured frontier (learning rate)")
    settings = list(dict.fromkeys(points["setting"]))
    sizes = dict(zip(settings, np.linspace(*SIZES, len(settings)), strict=True))
    for row in shown.sort_values("arm_order").to_dict("records"):
        style = arm_style(int(row["arm_order"]))
        is_censored = row["num_below"] + row["num_above"] > 0
        axes.plot(
            row["lr_after"],
            row["frontier_lr"],
            markersize=sizes[row["setting"]],
            markerfacecolor="none" if is_censored else style.colour,
            **style.line | {"linestyle": ""},
        )
    if len(shown):
        both = shown[["lr_after", "frontier_lr"]].to_numpy(np.float64)
        ends = [both.min() / 1.3, both.max() * 1.3]
        axes.plot(ends, ends, color="0.6", linewidth=0.8, linestyle=(0, (6, 3)), zorder=0)
    of_all = rank_correlation(points["lr_after"], points["frontier_lr"])
    within = rank_correlation(points["lr_after"], points["frontier_lr"], within=points["setting"])
    lines = [f"Spearman: {correlation_text(of_all)}, n = {of_all.n}; within settings {correlation_text(within)}."]
    lines += ["Hollow: outside the tested rates. Dashed: equal rates."]
    lines += [f"Not drawn, without two finite rates: {int((~is_drawn).sum())}."] if not is_drawn.all() else []
    axes.set_title("\n".join(lines), loc="left", fontsize="small")
    axes.grid(linewidth=0.4, alpha=0.5)
    handles = [*_arm_handles(points), *(_setting_handle(name, size) for name, size in sizes.items() if name)]
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False, numpoints=1
    )
    return axes


def first_steps_over_depth(probes: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a probe over the attention layers: dashed at the start, solid after the first steps.

    A line is the geometric mean over the seeds, and has a gap where a value is not finite or not positive.

    Args:
        probes: rows of one setting and one probe: `arm`, `arm_label`, `arm_order`, `step`, `layer_order`, `probe`,
            `value`; the first and the last step of each arm are drawn.
        axes: axes to draw into.

    Returns:
        The same axes, without a legend.

    Raises:
        ValueError: the frame has several settings or probes.
    """
    for column in ("setting", "probe"):
        if (count := probes[column].nunique()) > 1:
            raise ValueError(f"the first steps over depth show one {column}, got {count}; split the frame")
    axes.set(xlabel="Attention layer", ylabel=probe_name(str(probes["probe"].iloc[0])), yscale="log")
    for order, own in probes.groupby("arm_order"):
        style = arm_style(int(str(order)))
        for step, linestyle in ((own["step"].min(), (0, (2, 2))), (own["step"].max(), "-")):
            layers = own[own["step"] == step].groupby("layer_order")["value"]
            mean = layers.agg(lambda values: gmean(values) if (values > 0).all() else np.nan)
            line = style.line | {"linestyle": linestyle, "marker": style.marker if linestyle == "-" else ""}
            axes.plot(mean.index + 1, mean, markersize=3, linewidth=1.1, **line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(linewidth=0.4, alpha=0.5)
    return axes


def arm_legend(frame: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of the arms of a frame, and of the two line styles of the first steps."""
    steps = int(frame["step"].max())
    dashed = Line2D([], [], color="0.3", linestyle=(0, (2, 2)), label="at the start")
    return [*_arm_handles(frame), dashed, Line2D([], [], color="0.3", label=f"after {steps} steps")]


def correlation_text(found: RankCorrelation) -> str:
    """Format a correlation with its interval.

    >>> correlation_text(RankCorrelation(0.512, 0.1, 0.8, 12))
    '0.51 [0.10, 0.80]'
    >>> correlation_text(RankCorrelation(float("nan"), 0.0, 0.0, 1))
    'not defined'
    >>> correlation_text(RankCorrelation(1.0, float("nan"), float("nan"), 3))
    '1.00 (no interval)'
    """
    if np.isnan(found.rho):
        return "not defined"
    if np.isnan(found.low):
        return f"{found.rho:.2f} (no interval)"
    return f"{found.rho:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _arm_handles(frame: pd.DataFrame) -> list[Line2D]:
    arms = frame.drop_duplicates("arm_order").sort_values("arm_order")
    styles = [arm_style(int(order)) for order in arms["arm_order"]]
    return [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=5, linestyle="", label=label)
        for style, label in zip(styles, arms["arm_label"], strict=True)
    ]


def _setting_handle(name: str, size: float) -> Line2D:
    return Line2D([], [], color="0.5", marker="o", markersize=size, linestyle="", label=name)
