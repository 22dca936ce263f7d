"""Runs of every arm as thin lines, and their means as bold ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from ablations.analysis import CHANCE_KINDS, t_interval
from ablations.figures.canvas import draw_background, in_background, legend_right, not_ok, span_text
from ablations.figures.palette import arm_style

MOST_BANDS = 10
"""Largest number of arms whose means have bands: those of more would hide one another."""

MANY_RUNS = 50
"""Number of an arm's runs above which they are one artist."""

CROSSES = {"diverged": "x", "failed": "+"}
"""Outcome to the marker of a run's last epoch."""


def pivot_runs(rows: pd.DataFrame, along: str, cells: pd.Index[str]) -> pd.DataFrame:
    """Return values as (places, cells), with NaN for those that are missing or not finite."""
    values = rows[rows["cell"].isin(cells)].pivot(index=along, columns="cell", values="value").reindex(columns=cells)
    return values.where(np.isfinite(values))


def draw_arms(
    rows: pd.DataFrame, cells: pd.DataFrame, along: str, axes: Axes, *, opacity: float, has_bands: bool
) -> str:
    """Draw every run of each arm, and the mean while all its runs last; failed runs are outside the mean.

    An arm in the background has only its mean, in grey and without a name.

    Args:
        rows: one row per cell and place: `cell`, `along`, `value`.
        cells: one row per cell, with its name as index: `arm`, `arm_label`, `arm_order`, `outcome`, `kind`; optionally
            `is_background`.
        along: column of the horizontal axis.
        axes: axes to draw into.
        opacity: opacity of a run; one with a single value is a dot.
        has_bands: whether a mean has its 95 % t interval; it is left out with a run of kind nan or exploded, since it
            then undercovers.

    Returns:
        Number of runs per arm, in words.
    """
    arms = [own for _, own in cells.groupby(["arm_order", "arm"])]
    num_runs = [int((own["outcome"] != "failed").sum()) for own in arms]
    all_values = pivot_runs(rows, along, cells.index)
    for own, n in zip(arms, num_runs, strict=True):
        style, values = arm_style(int(own["arm_order"].iloc[0])), all_values[own.index]
        in_mean = own[own["outcome"] != "failed"]
        shared = values[in_mean.index]
        is_drawn = has_bands or len(in_mean) > 0  # without bands, the mean of no run has no point at all
        shared = shared[shared.notna().all(axis="columns").cummin() & is_drawn]
        if in_background(own).any():
            draw_background(shared.index, shared.mean(axis="columns"), axes)
            continue
        _draw_runs(values, axes, colour=style.colour, opacity=opacity)
        if has_bands and not in_mean["kind"].isin(CHANCE_KINDS).any():
            bounds = np.array([t_interval(place) for place in shared.to_numpy()]).reshape(-1, 2)  # (places, 2)
            axes.fill_between(shared.index, bounds[:, 0], bounds[:, 1], color=style.colour, alpha=0.15, linewidth=0)
        notes = [f"n = {n}" if n < max(num_runs) else "", not_ok(own["outcome"])]
        label = "\n".join(filter(None, [own["arm_label"].iloc[0], ", ".join(filter(None, notes))]))
        bold = style.line | {"linewidth": 1.8, "markersize": 4, "markevery": max(1, len(shared) // 8)}
        axes.plot(shared.index, shared.mean(axis="columns"), label=label, **bold)
    return span_text(num_runs)


def has_room_for_bands(cells: pd.DataFrame) -> bool:
    """Return whether bands can be told apart: whether at most `MOST_BANDS` arms are not in the background."""
    return cells.loc[~in_background(cells), "arm"].nunique() <= MOST_BANDS


def _draw_runs(values: pd.DataFrame, axes: Axes, *, colour: str, opacity: float) -> None:
    """Draw each column as a thin line, many of them as one artist, which takes a tenth of the time."""
    place, known = values.index.to_numpy(), values.notna().to_numpy()
    is_line = known.sum(axis=0) != 1
    has_many = int(is_line.sum()) > MANY_RUNS
    for i in np.flatnonzero(~is_line) if has_many else range(values.shape[1]):
        run = values.to_numpy()[known[:, i], i]
        axes.plot(place[known[:, i]], run, color=colour, linewidth=0.6, marker="" if is_line[i] else ".", alpha=opacity)
    if has_many:
        drawn = values.to_numpy()
        paths = [np.column_stack([place[known[:, i]], drawn[known[:, i], i]]) for i in np.flatnonzero(is_line)]
        axes.add_collection(LineCollection(paths, colors=colour, linewidths=0.6, alpha=opacity, capstyle="projecting"))


def fit_height(values: pd.Series[float], axes: Axes) -> None:
    """Fit the vertical axis to the finite values, regardless of the bands; without one, leave it unchanged."""
    finite = values[np.isfinite(values)]
    if len(finite):
        margin = 0.05 * (finite.max() - finite.min()) or 0.05
        axes.set_ylim(finite.min() - margin, finite.max() + margin)


def draw_crosses(values: pd.DataFrame, cells: pd.DataFrame, axes: Axes, *, unseen: int, last: str = "epoch") -> None:
    """Mark the last finite value of every diverged or failed run within the current limits, and add the legend.

    Args:
        values: values from `pivot_runs`, over the epochs.
        cells: one row per cell, as `draw_arms` takes them; those in the background have no cross.
        axes: axes to draw into.
        last: what the legend calls a run's last place.
        unseen: edge at which a run without a finite value has its cross, at the first epoch: 0 below, 1 above.
    """
    limits = axes.get_ylim()
    axes.set_ylim(limits)
    for outcome, marker in CROSSES.items():
        ended = cells[(cells["outcome"] == outcome) & ~in_background(cells)]
        for cell, order in ended["arm_order"].items():
            run = values[cell].dropna()
            x, y = (run.index[-1], np.clip(run.iloc[-1], *limits)) if len(run) else (1, limits[unseen])
            colour = arm_style(int(order)).colour
            axes.plot(x, y, marker, color=colour, markersize=7, markeredgewidth=1.8, clip_on=False, zorder=3)
        if len(ended):
            axes.plot([], [], marker, color="black", markeredgewidth=1.8, label=f"{outcome}: its last {last}")
    legend_right(axes)
