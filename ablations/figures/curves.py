"""Curves over the epochs: a thin line per seed and a bold line for the arm's mean.

A frame `curves` has one row per cell, epoch, split and metric: `cell`, `arm`, `arm_label`, `arm_order`, `condition`,
`outcome`, `kind`, `epoch`, `split`, `metric`, `value`. The legend to the right of the axes needs a figure with
`layout="constrained"`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import CHANCE_KINDS, t_interval
from ablations.figures.canvas import CROSSES, METRICS, draw_mean, is_drawable, measure_of, not_ok
from ablations.figures.palette import ArmStyle, arm_style


def loss_curves(curves: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the training loss of every arm over the epochs.

    The mean and its band, a 95 % t interval, end at the last epoch that every run of the arm reached: later they would
    cover only the survivors. Failed runs are thin lines outside the mean. A diverged or failed run has a cross at its
    last epoch. An arm with a run of kind nan or exploded has no band, because a t interval undercovers there. The axis
    spans the other runs, so that an exploded run does not flatten them; its cross is on the edge.

    Args:
        curves: one condition's rows; epochs from 1, loss in nats.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set(xlabel="Epoch", ylabel="Training loss (nats)")
    if not is_drawable(curves, axes):
        return axes
    cells = curves.drop_duplicates("cell").set_index("cell")
    values = _values(curves, cells.index, "train", "loss")
    _draw_arms(values, cells, axes)
    _set_limits(values.loc[:, ~cells["kind"].isin(CHANCE_KINDS)], axes)
    _draw_crosses(values, cells, axes, unseen=axes.get_ylim()[1])
    return axes


def accuracy_curves(curves: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the validation accuracy of every arm over the epochs.

    Lines, band and crosses as in `loss_curves`; the axis spans every run, however wide the bands.

    Args:
        curves: one condition's rows; epochs from 1, accuracy in percent.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    measure = measure_of(curves)
    axes.set(xlabel="Epoch", ylabel=f"Validation {measure} (%)")
    if not is_drawable(curves, axes):
        return axes
    cells = curves.drop_duplicates("cell").set_index("cell")
    values = _values(curves, cells.index, "val", METRICS[measure])
    _draw_arms(values, cells, axes)
    _set_limits(values, axes)
    _draw_crosses(values, cells, axes, unseen=axes.get_ylim()[0])
    return axes


def _values(curves: pd.DataFrame, cells: pd.Index[str], split: str, metric: str) -> pd.DataFrame:
    """Return one metric as (epochs, cells), with NaN for values that are missing or not finite."""
    rows = curves[(curves["split"] == split) & (curves["metric"] == metric)]
    values = rows.pivot(index="epoch", columns="cell", values="value").reindex(columns=cells)
    return values.where(np.isfinite(values))


def _draw_arms(values: pd.DataFrame, cells: pd.DataFrame, axes: Axes) -> None:
    """Draw the seeds and the mean of every arm, and the number of runs in the title."""
    arms = [own for _, own in cells.groupby(["arm_order", "arm"])]
    num_runs = [int((own["outcome"] != "failed").sum()) for own in arms]
    for own, n in zip(arms, num_runs, strict=True):
        notes = [f"n = {n}" if n < max(num_runs) else "", not_ok(own["outcome"])]
        label = "\n".join(filter(None, [own["arm_label"].iloc[0], ", ".join(filter(None, notes))]))
        style = arm_style(int(own["arm_order"].iloc[0]))
        _draw_seeds(values[own.index], style, axes)
        in_mean = own[own["outcome"] != "failed"]
        _draw_mean(values[in_mean.index], style, label, axes, has_band=not in_mean["kind"].isin(CHANCE_KINDS).any())
    n_text = " to ".join(str(n) for n in sorted({min(num_runs), max(num_runs)}))
    caption = f"n = {n_text} per arm. Thin: a seed. Bold: mean, as long as all its runs last. Band: 95 % t interval."
    axes.set_title(caption, loc="left", fontsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw_seeds(values: pd.DataFrame, style: ArmStyle, axes: Axes) -> None:
    """Draw every run as a thin line, or as a dot if it has one epoch."""
    for cell in values:
        run = values[cell].dropna()
        marker = "." if len(run) == 1 else ""
        axes.plot(run.index, run, color=style.colour, linewidth=0.6, marker=marker, alpha=0.35)


def _draw_mean(values: pd.DataFrame, style: ArmStyle, label: str, axes: Axes, *, has_band: bool) -> None:
    """Draw the mean and its band over the epochs that every run reached."""
    shared = values[values.notna().all(axis="columns").cummin()]
    if has_band:
        bounds = np.array([t_interval(epoch) for epoch in shared.to_numpy()]).reshape(-1, 2)  # (epochs, 2)
        axes.fill_between(shared.index, bounds[:, 0], bounds[:, 1], color=style.colour, alpha=0.15, linewidth=0)
    draw_mean(shared, style, label, axes)


def _set_limits(values: pd.DataFrame, axes: Axes) -> None:
    """Fit the vertical axis to these runs, regardless of the bands; without a value, leave it unchanged."""
    if values.notna().to_numpy().any():
        low, high = values.min().min(), values.max().max()
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def _draw_crosses(values: pd.DataFrame, cells: pd.DataFrame, axes: Axes, *, unseen: float) -> None:
    """Mark the last epoch of every diverged or failed run within the current limits, and add the legend.

    A run without a finite value has its cross at the first epoch, at height `unseen`.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    for outcome, marker in CROSSES.items():
        ended = cells[cells["outcome"] == outcome]
        for cell, order in ended["arm_order"].items():
            run = values[cell].dropna()
            x, y = (run.index[-1], np.clip(run.iloc[-1], low, high)) if len(run) else (1, unseen)
            colour = arm_style(order).colour
            axes.plot(x, y, marker, color=colour, markersize=7, markeredgewidth=1.8, clip_on=False, zorder=3)
        if len(ended):
            axes.plot([], [], marker, color="black", markeredgewidth=1.8, label=f"{outcome}: its last epoch")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)
