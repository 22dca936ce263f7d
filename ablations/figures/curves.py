"""Curves over the epochs: a thin line per seed and a bold line for the arm's mean.

A frame `curves` has one row per cell, epoch, split and metric: `cell`, `arm`, `arm_label`, `arm_order`, `condition`,
`outcome`, `kind`, `epoch`, `split`, `metric`, `value`; optionally `is_background`, for arms that are drawn as a grey
mean. The legend to the right of the axes needs a figure with `layout="constrained"`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import CHANCE_KINDS
from ablations.figures.canvas import METRICS, background_text, is_drawable, measure_of
from ablations.figures.runs import draw_arms, draw_crosses, fit_height, has_room_for_bands, pivot_runs


def loss_curves(curves: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the training loss of every arm over the epochs.

    The mean and its band, a 95 % t interval, end at the last epoch that every run of the arm reached: later they would
    cover only the survivors. Failed runs are thin lines outside the mean. A diverged or failed run has a cross at its
    last epoch. An arm with a run of kind nan or exploded has no band, because a t interval undercovers there. More than
    `MOST_BANDS` arms have no bands. The axis spans the other runs, so that an exploded run does not flatten them; its
    cross is on the edge.

    Args:
        curves: one condition's rows; epochs from 1, loss in nats.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set(xlabel="Epoch", ylabel="Training loss (nats)")
    return _draw(curves, "train", "loss", CHANCE_KINDS, axes, unseen=1)


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
    return _draw(curves, "val", METRICS[measure], (), axes, unseen=0)


def _draw(curves: pd.DataFrame, split: str, metric: str, unfitted: tuple[str, ...], axes: Axes, *, unseen: int) -> Axes:
    """Draw one metric; the axis spans the runs of all kinds but the unfitted."""
    if not is_drawable(curves, axes):
        return axes
    cells = curves.drop_duplicates("cell").set_index("cell")
    rows = curves[(curves["split"] == split) & (curves["metric"] == metric)]
    has_bands = has_room_for_bands(cells)
    n_text = draw_arms(rows, cells, "epoch", axes, opacity=0.35, has_bands=has_bands)
    caption = f"n = {n_text} per arm. Thin: a seed. Bold: mean, as long as all its runs last."
    caption += (" Band: 95 % t interval." if has_bands else "") + background_text(curves)
    axes.set_title(caption, loc="left", fontsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    fit_height(rows.loc[~rows["kind"].isin(unfitted), "value"], axes)
    draw_crosses(pivot_runs(rows, "epoch", cells.index), cells, axes, unseen=unseen)
    return axes
