"""Cost of attention against the number of tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablations.figures.palette import arm_style

AXES = {"time_s": ("Time for an image (ms)", 1e3), "peak_bytes": ("Peak memory for an image (MiB)", 2**-20)}
"""Quantity to the label of its axis and the factor that converts to its unit."""

GUIDES = {1: "as N", 2: "as N²"}
"""Slope of a guide line to its name."""


def cost_against_tokens(costs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw the cost of attention per image against its tokens, on logarithmic axes with guides of slope 1 and 2.

    Args:
        costs: one row per arm and number of tokens: `norm`, `label`, `arm_order`, `tokens`, `quantity` (one of `AXES`,
            the same in all rows), and `median`, `low`, `high` per token.
        axes: axes to draw into.

    Returns:
        The same axes, without a legend.

    Raises:
        ValueError: the frame has several quantities or an unknown quantity.
    """
    quantities = set(costs["quantity"])
    if len(quantities) != 1 or not quantities <= AXES.keys():
        raise ValueError(f"expected one quantity of {', '.join(AXES)}, got {', '.join(sorted(quantities))}")
    label, factor = AXES[quantities.pop()]
    axes.set(xscale="log", yscale="log", xlabel="Tokens N", ylabel=label)
    for order, own in costs.sort_values("tokens").groupby("arm_order"):
        style = arm_style(int(str(order)))
        tokens = own["tokens"].to_numpy()
        median, low, high = (factor * tokens * own[name].to_numpy() for name in ("median", "low", "high"))
        axes.plot(tokens, median, markersize=4, linewidth=1.2, label=own["label"].iloc[0], **style.line)
        axes.fill_between(tokens, low, high, color=style.colour, alpha=0.15, linewidth=0)
    _draw_guides(costs, axes, factor)
    ticks = sorted(set(costs["tokens"]))
    axes.set_xticks([tick for i, tick in enumerate(ticks) if i == 0 or tick > 1.5 * ticks[i - 1]])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.grid(linewidth=0.4, alpha=0.5)
    return axes


def _draw_guides(costs: pd.DataFrame, axes: Axes, factor: float) -> None:
    """Draw the guides from below the cheapest arm at the fewest tokens."""
    tokens = np.array(sorted(set(costs["tokens"])), dtype=float)
    start = 0.5 * factor * float((costs["tokens"] * costs["median"])[costs["tokens"] == tokens[0]].min())
    for slope, name in GUIDES.items():
        heights = start * (tokens / tokens[0]) ** slope
        axes.plot(tokens, heights, color="0.6", linewidth=0.8, linestyle=(0, (6, 3)), zorder=0)
        axes.annotate(
            name, (tokens[-1], heights[-1]), xytext=(3, 0), textcoords="offset points", fontsize="small", color="0.4"
        )
