"""Probes of the attention layers over depth and over the epochs.

A frame `probes` has one row per cell, epoch, layer and probe: `cell`, `arm`, `arm_label`, `arm_order`, `condition`,
`outcome`, `kind`, `epoch`, `layer`, `layer_order` (from 0), `probe`, `value`; optionally `is_background`, for arms that
are drawn as a grey mean. The legend to the right of the axes needs a figure with `layout="constrained"`.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import CHANCE_KINDS
from ablations.figures.canvas import background_text, in_background, is_drawable, legend_right
from ablations.figures.runs import draw_arms, draw_crosses, fit_height, pivot_runs

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
    probes = probes.assign(layer_order=probes["layer_order"].rank(method="dense") - 1)  # another net may have more
    last = probes[probes["epoch"] == probes.groupby("cell")["epoch"].transform("max")]
    _draw(last, "layer_order", "Each run's last epoch. Thin: a seed. Bold: mean.", axes)
    layers = probes.drop_duplicates("layer").sort_values("layer_order")
    tilt = 40 if len(layers) > LEVEL else 0
    names = [layer_number(layer) for layer in layers["layer"]]
    axes.set_xticks(layers["layer_order"], names, fontsize="small", rotation=tilt)
    legend_right(axes)
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
    cells = _draw(probes, "epoch", "Thin: a seed. Bold: mean, as long as all its runs last.", axes)
    if axes.get_yscale() == "linear":
        fit_height(probes.loc[~probes["kind"].isin(CHANCE_KINDS), "value"], axes)
    draw_crosses(pivot_runs(probes, "epoch", cells.index), cells, axes, unseen=1)
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


def layer_number(layer: str) -> str:
    """Return a layer's number as a tick label.

    >>> layer_number("blocks.0.attn"), layer_number("class_blocks.1.attn"), layer_number("trunk")
    ('1', 'class 2', 'trunk')
    """
    match = re.fullmatch(r"(class_)?blocks\.(\d+)\..*", layer)
    if match is None:
        return layer
    return f"class {int(match[2]) + 1}" if match[1] else str(int(match[2]) + 1)


def _draw(probes: pd.DataFrame, along: str, caption: str, axes: Axes) -> pd.DataFrame:
    """Draw the arms along a column and the caption with the number of values not drawn, and return the cells."""
    cells = probes.drop_duplicates("cell").set_index("cell").sort_index()
    n_text = draw_arms(probes, cells, along, axes, opacity=0.3, has_bands=False)
    undrawn = set_scale(probes, axes, may_be_log=probes["probe"].iloc[0] in LABELS)
    axes.set_title(f"n = {n_text} per arm. {caption}{background_text(probes)}{undrawn}", loc="left", fontsize="small")
    return cells


def set_scale(probes: pd.DataFrame, axes: Axes, *, may_be_log: bool) -> str:
    """Set the scale of the vertical axis and return the number of values that it cannot show, in words.

    Values of arms in the background are not counted.

    Args:
        probes: rows with `value`; optionally `is_background`.
        axes: axes with the values.
        may_be_log: whether the axis is logarithmic if there is a positive value.
    """
    is_finite = np.isfinite(probes["value"])
    is_below = is_finite & (probes["value"] <= 0)
    is_log = may_be_log and bool((is_finite & ~is_below).any())
    if is_log:
        axes.set_yscale("log", nonpositive="mask")
    if not is_finite.any():
        axes.set_yticks([])
    is_shown = ~in_background(probes)
    num_below = int((is_below & is_shown).sum()) if is_log else 0
    counts = [(int((~is_finite & is_shown).sum()), "not finite"), (num_below, "not positive")]
    words = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"\nValues not drawn: {words}." if words else ""
