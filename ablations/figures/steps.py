"""Probes at single training steps: where in the net an arm begins to fail, and when it leaves the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from ablations.figures.canvas import background_text, is_drawable
from ablations.figures.probes import LABELS, layer_number, probe_name, set_scale
from ablations.figures.runs import draw_arms, draw_crosses, pivot_runs

QUANTITIES = {
    "loss": "Training loss (nats)",
    "output_rms": "Output RMS, largest layer",
    "grad_norm": "Gradient norm, largest layer",
}
"""Probe to the label of its axis in `failure_explained`."""

HATCHES = {np.inf: "/////", 0.0: "...."}
"""Mean that has no colour to the hatch of its cell."""

MOST_TICKS = {"x": 8, "y": 16}
"""Largest number of labels of an axis."""

WIDE_LOSS = 10.0
"""Ratio of the largest to the smallest loss above which its axis is logarithmic."""


def probes_over_steps(means: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a heat map of one arm's probe over the recorded steps and the depth of the net, on a logarithmic scale.

    A mean is hatched if a seed is not finite or has diverged at an earlier step, and dotted if a seed is zero. A layer
    or a step that the arm did not record is grey.

    Args:
        means: rows of `ablations.analysis.steps.step_means`: one condition, probe and arm.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions, probes or arms.
    """
    axes.set(xlabel="Training step", ylabel="Block")
    if not is_drawable(means, axes):
        return axes
    for column in ("probe", "arm"):
        if (count := means[column].nunique()) > 1:
            raise ValueError(f"a heat map over steps shows one {column}, got {count}; split the frame")
    values = means.pivot(index="layer_order", columns="step", values="value").sort_index()
    layers = means.drop_duplicates("layer").sort_values("layer_order")["layer"]
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(-0.5, len(values) - 0.5), facecolor="0.85")
    _draw_colours(values.to_numpy(np.float64), means.iloc[0], axes)
    for value, hatch in HATCHES.items():
        cells = [Rectangle((x - 0.5, y - 0.5), 1, 1) for y, x in np.argwhere(values.to_numpy() == value)]
        axes.add_collection(PatchCollection(cells, hatch=hatch, facecolor="white", edgecolor="0.35", linewidth=0))
    columns, rows = (_thinned(size, MOST_TICKS[axis]) for axis, size in (("x", values.shape[1]), ("y", len(values))))
    axes.set_xticks(columns, [f"{values.columns[i]}" for i in columns], fontsize="small")
    axes.set_yticks(rows, [layer_number(layers.iloc[i]) for i in rows], fontsize="small")
    counts = f"n = {means['num_seeds'].iloc[0]}"
    diverged = f", {means['num_diverged'].iloc[0]} diverged" if means["num_diverged"].iloc[0] else ""
    caption = "Geometric mean over seeds. Hatched: a seed is not finite or has ended. Dotted: zero."
    axes.set_title(f"{caption}\n{counts}{diverged}", loc="left", fontsize="small")
    return axes


def failure_explained(values: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the training loss, or a probe's largest value over the layers, over the recorded steps.

    Thin lines are seeds, bold lines their means while all runs last. A diverged or failed run has a cross at its last
    finite value. Values that cannot be drawn are counted in the title.

    Args:
        values: rows of `ablations.analysis.steps.largest_over_layers` of one condition and probe; optionally
            `is_background`, for arms that are drawn as a grey mean.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions or probes.
    """
    if len(probes := sorted(set(values["probe"]))) > 1:
        raise ValueError(f"a figure shows one probe, got {len(probes)}: {', '.join(probes)}; split the frame")
    axes.set(xlabel="Training step", ylabel=", ".join(QUANTITIES[probe] for probe in probes) or "Value")
    if not is_drawable(values, axes):
        return axes
    cells = values.drop_duplicates("cell").set_index("cell").sort_index()
    n_text = draw_arms(values, cells, "step", axes, opacity=0.35, has_bands=False)
    undrawn = set_scale(values, axes, may_be_log=probes[0] in LABELS or _is_wide(values["value"]))
    axes.set_xscale("log")
    steps = np.sort(values["step"].unique())
    ticks = [int(steps[i]) for i in _thinned(len(steps), MOST_TICKS["x"])]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize="small")
    margin = (steps[-1] / steps[0]) ** 0.05 if len(steps) > 1 else 2.0
    axes.set_xlim(steps[0] / margin, steps[-1] * margin)  # also of steps without a finite value
    caption = f"n = {n_text} per arm. Thin: a seed. Bold: mean, as long as all its runs last."
    axes.set_title(f"{caption}{background_text(values)}{undrawn}", loc="left", fontsize="small")
    draw_crosses(pivot_runs(values, "step", cells.index), cells, axes, unseen=1, last="finite value")
    return axes


def _draw_colours(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], of: pd.Series, axes: Axes) -> None:
    """Draw the positive finite means with their colour bar, on the scale of all arms; nothing if there is none."""
    if not np.isfinite(of["least"]):
        return
    widened = 1.05 if of["least"] == of["largest"] else 1.0
    scale = LogNorm(of["least"] / widened, of["largest"] * widened)
    shown = np.ma.masked_where(~(np.isfinite(values) & (values > 0)), values)
    mesh = axes.pcolormesh(np.arange(values.shape[1]), np.arange(len(values)), shown, cmap="cividis", norm=scale)
    bar = axes.figure.colorbar(mesh, ax=axes)
    bar.set_label(probe_name(of["probe"]), fontsize="small")


def _is_wide(values: pd.Series[float]) -> bool:
    """Return whether positive finite values are far apart."""
    shown = values[np.isfinite(values) & (values > 0)]
    return len(shown) > 0 and bool(shown.max() > WIDE_LOSS * shown.min())


def _thinned(size: int, most: int) -> list[int]:
    """Return evenly spaced places, at most as many, from the first on.

    >>> _thinned(3, 8), _thinned(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return list(range(0, size, -(-size // most)))
