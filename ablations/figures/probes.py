"""Probes of the attention layers over depth and over the epochs.

A frame `probes` has one row per cell, epoch, layer and probe: `cell`, `arm`, `arm_label`, `arm_order`, `condition`,
`outcome`, `kind`, `epoch`, `layer`, `layer_order` (from 0), `probe`, `value`. The legend to the right of the axes needs
a figure with `layout="constrained"`.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import CHANCE_KINDS
from ablations.figures.canvas import CROSSES, draw_mean, is_drawable, not_ok
from ablations.figures.palette import ArmStyle, arm_style

LABELS = {"output_rms": "RMS of the attention output", "grad_norm": "Gradient norm of the attention"}
"""Probe to the label of its logarithmic axis; any other probe is the mean of a parameter, on a linear axis."""

LEVEL = 8
"""Largest number of layers with horizontal names; with more layers the names are tilted."""


def probes_over_depth(probes: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a probe over the attention layers at each run's last epoch: a thin line per seed, a bold line for the mean.

    Failed runs are thin lines outside the mean, which ends where one of its runs has no value. Values that cannot be
    drawn, not finite or not positive on a logarithmic axis, are counted in the title.

    Args:
        probes: one condition's rows of one probe.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions or several probes.
    """
    axes.set(xlabel="Attention layer", ylabel=_label(probes))
    if not is_drawable(probes, axes):
        return axes
    last = probes[probes["epoch"] == probes.groupby("cell")["epoch"].transform("max")]
    _draw_arms(last, "layer_order", "Each run's last epoch. Thin: a seed. Bold: mean.", axes)
    layers = probes.drop_duplicates("layer").sort_values("layer_order")
    tilt = 40 if len(layers) > LEVEL else 0
    names = [_layer_number(layer) for layer in layers["layer"]]
    axes.set_xticks(layers["layer_order"], names, fontsize="small", rotation=tilt)
    _add_legend(axes)
    return axes


def probes_over_time(probes: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a probe of one layer over the epochs: a thin line per seed, a bold line for the mean while all runs last.

    A diverged or failed run has a cross at its last finite value, or on the upper edge at its first epoch if it has
    none. Failed runs are outside the mean. A linear axis spans the runs without chance scores, so that an exploded run
    does not flatten them; its cross is on the edge. Values that cannot be drawn are counted in the title.

    Args:
        probes: one condition's rows of one probe in one layer.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions, probes or layers.
    """
    if (layers := probes["layer"].nunique()) > 1:
        raise ValueError(f"a probe over time shows one layer, got {layers}; split the frame")
    axes.set(xlabel="Epoch", ylabel=_label(probes))
    if not is_drawable(probes, axes):
        return axes
    _draw_arms(probes, "epoch", "Thin: a seed. Bold: mean, as long as all its runs last.", axes)
    if axes.get_yscale() == "linear":
        _set_limits(probes.loc[~probes["kind"].isin(CHANCE_KINDS), "value"], axes)
    _draw_crosses(probes, axes)
    _add_legend(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return axes


def probe_name(probe: str) -> str:
    """Return a probe's name in words.

    >>> probe_name("output_rms"), probe_name("mean_gain_q")
    ('RMS of the attention output', 'Mean of gain_q')
    """
    return LABELS.get(probe, f"Mean of {probe.removeprefix('mean_')}")


def _label(probes: pd.DataFrame) -> str:
    names = sorted(set(probes["probe"]))
    if len(names) > 1:
        raise ValueError(f"a figure shows one probe, got {len(names)}: {', '.join(names)}; split the frame")
    return probe_name(names[0]) if names else "Probe"


def _layer_number(layer: str) -> str:
    """Return a layer's number as a tick label.

    >>> _layer_number("blocks.0.attn"), _layer_number("class_blocks.1.attn"), _layer_number("trunk")
    ('1', 'class 2', 'trunk')
    """
    match = re.fullmatch(r"(class_)?blocks\.(\d+)\..*", layer)
    if match is None:
        return layer
    return f"class {int(match[2]) + 1}" if match[1] else str(int(match[2]) + 1)


def _draw_arms(probes: pd.DataFrame, along: str, caption: str, axes: Axes) -> None:
    """Draw every arm's runs and mean along a column, and the caption with the number of values not drawn."""
    arms = [own for _, own in probes.groupby(["arm_order", "arm"])]
    num_runs = [own.loc[own["outcome"] != "failed", "cell"].nunique() for own in arms]
    for own, n in zip(arms, num_runs, strict=True):
        values = own.pivot(index=along, columns="cell", values="value")
        values = values.where(np.isfinite(values))
        failed = own.loc[own["outcome"] == "failed", "cell"].unique()
        style = arm_style(int(own["arm_order"].iloc[0]))
        notes = [f"n = {n}" if n < max(num_runs) else "", not_ok(own.drop_duplicates("cell")["outcome"])]
        label = "\n".join(filter(None, [own["arm_label"].iloc[0], ", ".join(filter(None, notes))]))
        _draw_arm(values, values.drop(columns=failed), style, label, axes)
    n_text = " to ".join(str(count) for count in sorted({min(num_runs), max(num_runs)}))
    undrawn = _set_scale(probes, axes)
    axes.set_title(f"n = {n_text} per arm. {caption}{undrawn}", loc="left", fontsize="small")


def _set_scale(probes: pd.DataFrame, axes: Axes) -> str:
    """Set the scale of the axis and return the number of values that it cannot show, in words."""
    finite = probes.loc[np.isfinite(probes["value"]), "value"]
    num_below = 0
    if probes["probe"].iloc[0] in LABELS and (finite > 0).any():
        axes.set_yscale("log", nonpositive="mask")
        num_below = int((finite <= 0).sum())
    if finite.empty:
        axes.set_yticks([])
    counts = [(len(probes) - len(finite), "not finite"), (num_below, "not positive")]
    words = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"\nValues not drawn: {words}." if words else ""


def _set_limits(values: pd.Series[float], axes: Axes) -> None:
    """Fit the vertical axis to the finite values; without one, leave it unchanged."""
    finite = values[np.isfinite(values)]
    if len(finite):
        margin = 0.05 * (finite.max() - finite.min()) or 0.05
        axes.set_ylim(finite.min() - margin, finite.max() + margin)


def _draw_crosses(probes: pd.DataFrame, axes: Axes) -> None:
    """Mark the last finite value of every diverged or failed run within the current limits."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    for outcome, marker in CROSSES.items():
        ended = probes[probes["outcome"] == outcome]
        for _, run in ended.sort_values("epoch").groupby("cell"):
            finite = run[np.isfinite(run["value"])]
            x, y = (finite["epoch"].iloc[-1], finite["value"].iloc[-1]) if len(finite) else (run["epoch"].iloc[0], high)
            colour = arm_style(int(run["arm_order"].iloc[0])).colour
            height = np.clip(y, low, high)
            axes.plot(x, height, marker, color=colour, markersize=7, markeredgewidth=1.8, clip_on=False, zorder=3)
        if len(ended):
            axes.plot([], [], marker, color="black", markeredgewidth=1.8, label=f"{outcome}: its last epoch")


def _add_legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)


def _draw_arm(runs: pd.DataFrame, in_mean: pd.DataFrame, style: ArmStyle, label: str, axes: Axes) -> None:
    for cell in runs:
        run = runs[cell].dropna()
        marker = "." if len(run) == 1 else ""
        axes.plot(run.index, run, color=style.colour, linewidth=0.6, marker=marker, alpha=0.3)
    shared = in_mean[in_mean.notna().all(axis="columns").cummin()] if in_mean.shape[1] else in_mean.iloc[:0]
    draw_mean(shared, style, label, axes)
