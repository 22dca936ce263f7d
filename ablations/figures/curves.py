"""Curves over the epochs: every seed a thin line, the arm's mean a bold one.

A frame `curves` has one row per cell, epoch, split and metric: `cell`, `arm`, `arm_label`, `arm_order`, `condition`,
`outcome`, `kind`, `epoch`, `split`, `metric`, `value`. The legend stands to the right of the axes: give the figure
`layout="constrained"`, or it is cut off.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import CHANCE_KINDS, t_interval
from ablations.figures.canvas import CROSSES, METRICS, counted, draw_mean, is_drawable, measure_of
from ablations.figures.palette import ArmStyle, arm_style


def loss_curves(curves: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the training loss of every arm over the epochs.

    The mean and its band, a 95 % t interval, go up to the last epoch that every run of the arm reached: beyond it they
    would tell of the survivors alone. Failed runs are missing: thin lines that do not enter the mean. A diverged or
    failed run has a cross at its last epoch. An arm of which a run ended in nan or exploded has no band, for a t
    interval undercovers there. The axis spans the other runs, so that one explosion does not flatten them: a line that
    leaves it has its cross on the edge.

    Args:
        curves: one condition's rows; epochs from 1, loss in nats.
        axes: where to draw.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame holds several conditions.
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
        axes: where to draw.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame holds several conditions.
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
    """Return one metric as (epochs, cells), NaN where it is not finite; a cell without a value has its column too."""
    rows = curves[(curves["split"] == split) & (curves["metric"] == metric)]
    values = rows.pivot(index="epoch", columns="cell", values="value").reindex(columns=cells)
    return values.where(np.isfinite(values))


def _draw_arms(values: pd.DataFrame, cells: pd.DataFrame, axes: Axes) -> None:
    """Draw the seeds and the mean of every arm, and say how many runs that is."""
    arms = [own for _, own in cells.groupby(["arm_order", "arm"])]
    num_runs = [int((own["outcome"] != "failed").sum()) for own in arms]
    for own, n in zip(arms, num_runs, strict=True):
        notes = [f"n = {n}" if n < max(num_runs) else "", counted(own["outcome"])]
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
    """Draw every run as a thin line, or as a dot where it has one epoch."""
    for cell in values:
        run = values[cell].dropna()
        marker = "." if len(run) == 1 else ""
        axes.plot(run.index, run, color=style.colour, linewidth=0.6, marker=marker, alpha=0.35)


def _draw_mean(values: pd.DataFrame, style: ArmStyle, label: str, axes: Axes, *, has_band: bool) -> None:
    """Draw the mean, and its band, over the epochs before the first that some run did not reach."""
    shared = values[values.notna().all(axis="columns").cummin()]
    if has_band:
        bounds = np.array([t_interval(epoch) for epoch in shared.to_numpy()]).reshape(-1, 2)  # (epochs, 2)
        axes.fill_between(shared.index, bounds[:, 0], bounds[:, 1], color=style.colour, alpha=0.15, linewidth=0)
    draw_mean(shared, style, label, axes)


def _set_limits(values: pd.DataFrame, axes: Axes) -> None:
    """Let the vertical axis span these runs, however wide the bands; where they have no value, leave it as it is."""
    if values.notna().to_numpy().any():
        low, high = values.min().min(), values.max().max()
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def _draw_crosses(values: pd.DataFrame, cells: pd.DataFrame, axes: Axes, *, unseen: float) -> None:
    """Mark the last epoch of every run that did not end well, within the limits as they are, and add the legend.

    `unseen` is the height of the cross of a run without any finite value, at the first epoch.
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
