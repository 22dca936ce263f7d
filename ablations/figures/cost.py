"""Test accuracy against an arm's cost."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablations.figures.canvas import (
    background_text,
    draw_background,
    in_background,
    is_drawable,
    legend_right,
    measure_of,
)
from ablations.figures.palette import arm_style

AXES = {
    "parameters": "Parameters",
    "multiply_adds": "Multiply-adds per image",
    "inference_s": "Inference time per image",
    "training_step_s": "Time of a training step",
}
"""Quantity to the label of its axis, without the unit."""

UNITS = {"billions": 1e9, "millions": 1e6, "thousands": 1e3}
"""Units of a count, from the largest: the first that the largest value reaches is used, or the last."""

STEP = 0.02
"""Distance between two arms of the same cost, as a share of the axis."""


def accuracy_against_cost(costs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's mean test accuracy, with its 95 % t interval, against one of its costs.

    A time is the median over rounds with its quartiles, which are robust to slow phases of a shared machine; a count is
    exact. Arms with the same count are spread around it, so that none hides another.

    Args:
        costs: one condition's rows, one per arm: `arm_label`, `arm_order`, `mean_pct`, `low_pct`, `high_pct` (NaN
            without an interval), `quantity` (one of `AXES`, the same in all rows), `cost`, `cost_low`, `cost_high` in
            parameters, multiply-adds or seconds (bounds are NaN for a count); optionally `is_background`, for arms that
            are drawn as a grey dot at the mean.
        axes: axes to draw into; the legend to their right needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions, several quantities or an unknown quantity.
    """
    quantities = sorted(set(costs["quantity"]))
    if len(quantities) > 1 or not set(quantities) <= AXES.keys():
        raise ValueError(f"expected one quantity of {', '.join(AXES)}, got {', '.join(quantities)}")
    axes.set(xlabel="Cost", ylabel=f"Test {measure_of(costs)} (%)")
    if not is_drawable(costs, axes):
        return axes
    unit, factor = _unit(quantities[0], costs["cost"].max())
    axes.set_xlabel(f"{AXES[quantities[0]]} ({unit})")
    for row in costs[in_background(costs)].to_dict("records"):
        draw_background([factor * row["cost"]], [row["mean_pct"]], axes)
    shown = costs[~in_background(costs)].sort_values("arm_order")
    shown = shown.assign(x=lambda rows: factor * _spread_ties(rows["cost"]))
    for row in shown.to_dict("records"):
        style = arm_style(int(row["arm_order"]))
        below, above = factor * (row["cost"] - row["cost_low"]), factor * (row["cost_high"] - row["cost"])
        axes.errorbar(
            row["x"],
            row["mean_pct"],
            xerr=None if math.isnan(below) else [[below], [above]],
            yerr=(row["high_pct"] - row["low_pct"]) / 2,
            **style.line | {"linestyle": "", "linewidth": 1.2, "markersize": 6, "capsize": 3},
            label=row["arm_label"],
        )
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))  # a wide interval can exceed the range of an accuracy
    timed = "; horizontal: quartiles over rounds" if costs["cost_low"].notna().any() else ""
    tied = "; arms of equal cost side by side" if costs["cost"].duplicated().any() else ""
    grey = background_text(costs)
    axes.set_title(f"Mean and 95 % t interval{timed}{tied}{'.' if grey else ''}{grey}", loc="left", fontsize="small")
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(linewidth=0.4, alpha=0.5)
    legend_right(axes)
    return axes


def _unit(quantity: str, largest: float) -> tuple[str, float]:
    """Return the unit of an axis and the factor that converts to it.

    >>> _unit("parameters", 104_122), _unit("multiply_adds", 3.7e9), _unit("inference_s", 0.2)
    (('thousands', 0.001), ('billions', 1e-09), ('ms', 1000.0))
    """
    if quantity.endswith("_s"):
        return "ms", 1e3
    unit = next((name for name, size in UNITS.items() if largest >= size), "thousands")
    return unit, 1 / UNITS[unit]


def _spread_ties(costs: pd.Series[float]) -> pd.Series[float]:
    """Return each arm's position: arms of equal cost are spread around it, short of the next cost.

    >>> _spread_ties(pd.Series([100.0, 200.0, 100.0])).tolist()
    [99.0, 200.0, 101.0]
    """
    each = costs.groupby(costs)
    place, size = each.cumcount(), each.transform("size")
    gap = costs.drop_duplicates().sort_values().diff().min()  # NaN if all are equal
    span = costs.max() - costs.min()
    step = STEP * costs.max() if math.isnan(gap) else min(STEP * span, 0.8 * gap / size.max())
    return costs + step * (place - (size - 1) / 2)


def arm_costs(table: pd.DataFrame, cells: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's mean score and costs: the parameters of its cells, and the measurements of `bench cost`."""
    parameters = cells.assign(quantity="parameters", value=cells["num_parameters"])
    known = [frame[["arm", "quantity", "value"]] for frame in (parameters, costs[costs["tokens"].isna()])]
    values = pd.concat([frame for frame in known if len(frame)] or known).astype({"value": np.float64}).dropna()
    each = values.groupby(["quantity", "arm"], sort=False)["value"]
    bounds = {"cost_low": each.quantile(0.25), "cost_high": each.quantile(0.75)}
    summary = each.median().rename("cost").to_frame().assign(**bounds).reset_index()
    is_counted = ~summary["quantity"].str.endswith("_s")
    summary.loc[is_counted, ["cost_low", "cost_high"]] = np.nan
    columns = ["condition", "arm", "arm_label", "arm_order", "mean_pct", "low_pct", "high_pct"]
    return summary.merge(table[columns].dropna(subset="mean_pct"), on="arm").assign(measure=measure_of(cells))
