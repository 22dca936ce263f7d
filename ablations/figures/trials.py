"""Trials of a tuning: scores over a searched field, each arm's best trial, and the expected best of k trials.

A frame `trials` holds one condition's trials, in the form that `ablations.analysis.tuned` takes. It may have the column
`is_background`, for arms that `trials_over_range` and `best_of_k` draw as a grey line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablations.analysis import STABLE_OVER, expected_best, profile, tuned, winners
from ablations.figures.canvas import (
    background_text,
    draw_background,
    in_background,
    is_drawable,
    legend_above,
    legend_right,
    measure_of,
    not_ok,
    span_text,
)
from ablations.figures.palette import arm_style
from ablations.figures.rows import annotate_rows, label_rows, seed_heights

NAMES = {"lr": "Learning rate", "weight_decay": "Weight decay"}
"""Field to its axis label."""

DODGED = 0.5
"""Total width of all arms at one point, as a share of the distance between evenly spaced points."""

ROOM = 0.08
"""Margin to the left and right of the data, as a share of its range."""


def trials_over_range(trials: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's validation accuracy over a searched field: its trials, and the best in each part of the range.

    The line is `analysis.profile`: the best over the other searched fields. A diverged trial is a cross at its score.
    Arms at the same point are shifted horizontally to keep them distinguishable. The legend has the sensitivity and,
    for the learning rate, the widest range without divergence.

    Args:
        trials: one condition's trials, with `field`, the name of the drawn field, and `is_log`, whether its scale is
            logarithmic.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_ylabel(f"Validation {measure_of(trials)} (%)")
    if not is_drawable(trials, axes):
        return axes
    field, is_log = str(trials["field"].iloc[0]), bool(trials["is_log"].iloc[0])
    axes.set_xlabel(NAMES.get(field, field))
    if is_log:
        axes.set_xscale("log")
    table = tuned(trials[~in_background(trials)], [field]).set_index("arm")
    for _, own in trials[in_background(trials)].groupby(["arm_order", "arm"]):
        curve = profile(own, field)
        draw_background(curve["value"], curve["score_pct"], axes)
    arms = [own for _, own in trials[~in_background(trials)].groupby(["arm_order", "arm"])]
    low, high = float(trials[field].min()), float(trials[field].max())
    span = float(np.log(high / low)) if is_log else high - low
    step = DODGED * span / max(1, max(map(len, arms)) * len(arms))
    for place, own in enumerate(arms):
        shift = step * (place - (len(arms) - 1) / 2)
        row = table.loc[[str(own["arm"].iloc[0])]].iloc[0]
        text = f"{own['arm_label'].iloc[0]}\nsensitivity {row[f'{field}_sensitivity_pct']:.1f}"
        text += _stable_text(row, field, is_log) if field in STABLE_OVER else ""
        _draw_trials(own, field, shift, is_log, text, axes)
    n_text = span_text(trials.groupby("arm").size())
    caption = f"n = {n_text} trials per arm. Faint: a trial. Line: the best in each part of the range. x: diverged."
    caption += " Grey: the other arms." if in_background(trials).any() else ""
    axes.set_title(caption, loc="left", fontsize="small")
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    legend_right(axes, size="x-small")
    return axes


def isolation(trials: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's trials and its best one: the arms compared with the searched fields at their best.

    This is the isolation plot of V. Godbole et al., "Deep Learning Tuning Playbook" (2023), with all trials. The axis
    spans from the expected best of half the trials to the best of all. A note counts the trials to the left of it.

    Args:
        trials: one condition's trials, with `point`, the values of the searched fields in words.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_xlabel(f"Validation {measure_of(trials)} (%)")
    if not is_drawable(trials, axes):
        return axes
    arms = trials.sort_values("arm_order", kind="stable").drop_duplicates("arm")["arm"].tolist()
    best, ends = winners(trials).set_index("arm"), _ends(trials)
    heights, texts, labels = seed_heights(trials["seed"]), [], []
    for row, arm in enumerate(arms):
        own = trials[trials["arm"] == arm]
        labels.append("\n".join(filter(None, [own["arm_label"].iloc[0], f"n = {len(own)}", not_ok(own["outcome"])])))
        if arm not in best.index:
            texts.append("every trial failed")
            continue
        won = best.loc[[arm]].iloc[0]
        style, diverged = arm_style(int(won["arm_order"])), own["outcome"] == "diverged"
        at = row + heights[own.index]
        dots: dict[str, Any] = {"color": style.colour, "linestyle": "", "alpha": 0.5}
        axes.plot(own.loc[~diverged, "score_pct"], at[~diverged], marker=style.marker, markersize=3.5, **dots)
        axes.plot(own.loc[diverged, "score_pct"], at[diverged], marker="x", markersize=4, **dots)
        axes.plot(won["score_pct"], row + 0.32, marker=style.marker, color=style.colour, markersize=7)
        num_left = int((own["score_pct"] < ends[0]).sum())
        values = str(won["point"]).split(", ")
        texts.append("\n".join([f"{won['score_pct']:.2f} % at", *values, f"{num_left} to the left"]))
    axes.set_xlim(*ends)
    label_rows(axes, labels)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    handles = [
        Line2D([], [], color="grey", marker="o", markersize=3.5, alpha=0.5, linestyle="", label="a trial"),
        Line2D([], [], color="grey", marker="o", markersize=7, linestyle="", label="the best"),
    ]
    if (trials["outcome"] == "diverged").any():
        handles.append(Line2D([], [], color="grey", marker="x", linestyle="", label="diverged"))
    legend_above(axes, side="right", num_columns=3, handles=handles)
    annotate_rows(axes, texts, below="", bold=[False] * len(texts))
    return axes


def best_of_k(trials: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's expected best validation accuracy of k trials.

    Args:
        trials: one condition's trials.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set(xlabel="Trials", ylabel=f"Expected best validation {measure_of(trials)} (%)")
    if not is_drawable(trials, axes):
        return axes
    expected = expected_best(trials)
    if expected.empty:
        axes.text(0.5, 0.5, "every trial failed", transform=axes.transAxes, ha="center", va="center")
        return axes
    background = set(trials.loc[in_background(trials), "arm"])
    for (_, arm), own in expected.groupby(["arm_order", "arm"]):
        if arm in background:
            draw_background(own["k"], own["expected_pct"], axes)
            continue
        style = arm_style(int(own["arm_order"].iloc[0]))
        axes.plot(own["k"], own["expected_pct"], markersize=4, label=own["arm_label"].iloc[0], **style.line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(linewidth=0.4, alpha=0.5)
    caption = "Mean over all subsets of the trials (the unbiased estimator of Tang et al. 2020)."
    caption += background_text(trials)
    axes.set_title(caption, loc="left", fontsize="small")
    legend_right(axes)
    return axes


def _stable_text(row: pd.Series, field: str, is_log: bool) -> str:
    low, high = row[f"{field}_stable_low"], row[f"{field}_stable_high"]
    if np.isnan(low):
        return "\nnowhere stable"
    decades = f" ({np.log10(high / low):.1f} decades)" if is_log else ""
    return f"\nstable {low:.2g} to {high:.2g}{decades}"


def _draw_trials(own: pd.DataFrame, field: str, shift: float, is_log: bool, text: str, axes: Axes) -> None:
    def moved(values: pd.Series[float]) -> pd.Series[float]:
        return values * np.exp(shift) if is_log else values + shift

    style, diverged = arm_style(int(own["arm_order"].iloc[0])), own["outcome"] == "diverged"
    x = moved(own[field])
    faint: dict[str, Any] = {"color": style.colour, "linestyle": ""}
    axes.plot(x[~diverged], own.loc[~diverged, "score_pct"], marker=style.marker, markersize=3.5, alpha=0.4, **faint)
    axes.plot(x[diverged], own.loc[diverged, "score_pct"], marker="x", markersize=5, markeredgewidth=1.4, **faint)
    curve = profile(own, field)
    axes.plot(moved(curve["value"]), curve["score_pct"], markersize=5, linewidth=1.5, label=text, **style.line)


def _ends(trials: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of an axis of scores: the lowest expected best of half the trials, and the best of all."""
    expected = expected_best(trials)
    if expected.empty:
        return 0.0, 100.0
    halves = [float(own["expected_pct"].iloc[max(0, len(own) // 2 - 1)]) for _, own in expected.groupby("arm")]
    low, high = min(halves), float(expected["expected_pct"].max())
    room = ROOM * max(high - low, 1.0)
    return max(low - room, -2.0), min(high + room, 102.0)
