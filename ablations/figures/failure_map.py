"""Failure map: where an arm learns, over settings and learning rates, and how far its loss is from the best arm's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from ablations.figures.canvas import is_drawable, is_light, span_text

HEADER = 0.75
"""Height of the line with the name of a group of settings, in heights of a setting."""

LABEL = "Training loss above the best arm (nats)"

COUNT_WIDTH = 3
"""Characters of the longest count of seeds that has room in a cell at its normal size."""


def failure_map(points: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a heat map of an arm's training loss over learning rates and settings, with crosses where it fails.

    A cross is a point at which at most half of the seeds learn. The number of seeds that learn is written where some do
    and some do not. A loss that is not finite is hatched, and a point without a result is blank.

    Args:
        points: one arm's rows of `analysis.failure_map`, one per setting and learning rate, in the order of the
            settings; `condition` covers the axes that are not drawn; `limit` is the loss at the end of the colour
            scale, the same in all rows (nats); optionally `group`, the name of several consecutive settings.
        axes: axes to draw into; the colour bar beside them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions or several arms.
    """
    axes.set_xlabel("Learning rate", fontsize="small")
    if not is_drawable(points, axes):
        return axes
    if len(arms := sorted(set(points["arm"]))) > 1:
        raise ValueError(f"a failure map shows one arm, got {len(arms)}: {', '.join(arms)}")
    rates = np.sort(points["lr"].unique())
    group = points["group"] if "group" in points else pd.Series("", index=points.index)
    losses = points["excess_loss"].astype(float)
    points = points.assign(excess_loss=losses.where(np.isfinite(losses)))
    points = points.assign(group=group, column=np.searchsorted(rates, points["lr"]))
    tops = _place_rows(points, axes)
    points = points.assign(top=[tops[key] for key in zip(points["group"], points["setting"], strict=True)])
    mesh = _draw_colours(points, len(rates), axes)
    _mark(points, mesh, axes)
    axes.set_xticks(np.arange(len(rates)) + 0.5, [f"{rate:g}" for rate in rates], rotation=90, fontsize="x-small")
    axes.set_xlim(0, len(rates))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    caption = "x: at most half of the seeds learn. k/n: k of n seeds learn. Hatched: loss not finite. Blank: no result."
    n_text = span_text(points.loc[points["n"] > 0, "n"])
    axes.set_title(f"{caption}\n{f'n = {n_text}' if n_text else 'no result'}", loc="left", fontsize="small")
    is_clipped = bool((points["excess_loss"] > points["limit"]).any())
    bar = axes.figure.colorbar(mesh, ax=axes, extend="max" if is_clipped else "neither")
    bar.set_label(LABEL, fontsize="small")
    bar.ax.tick_params(labelsize="x-small")
    return axes


def _place_rows(points: pd.DataFrame, axes: Axes) -> dict[tuple[Hashable, Hashable], float]:
    """Label the rows, with the name of each group above its rows, and return the upper end of each row."""
    tops: dict[tuple[Hashable, Hashable], float] = {}
    middles, labels, end = list[float](), list[str](), 0.0
    for group, own in points.groupby("group", sort=False):
        if group:
            if tops:
                axes.axhline(end + 0.1 * HEADER, color="0.6", linewidth=0.6)
            middles.append(end + 0.5 * HEADER)
            labels.append(str(group))
            end += HEADER
        for setting in own["setting"].unique():
            tops[group, setting] = end
            middles.append(end + 0.5)
            labels.append(str(setting))
            end += 1
    axes.set_yticks(middles, labels, fontsize="x-small")
    names = set(points["group"]) - {""}
    for label in axes.get_yticklabels():
        if label.get_text() in names:
            label.set_fontweight("bold")
    axes.set_ylim(end, 0)
    return tops


def _draw_colours(points: pd.DataFrame, num_rates: int, axes: Axes) -> QuadMesh:
    """Draw the losses as colours; cividis is legible in greys and without colour vision."""
    edges = sorted({0.0, *points["top"], *(points["top"] + 1)})
    values = np.full((len(edges) - 1, num_rates), np.nan)
    values[np.searchsorted(edges, points["top"]), points["column"]] = points["excess_loss"]
    colours: dict[str, Any] = {"cmap": "cividis_r", "vmin": 0, "vmax": float(points["limit"].iloc[0])}
    mesh = axes.pcolormesh(np.arange(num_rates + 1), edges, np.ma.masked_invalid(values), **colours)
    for point in points[(points["n"] > 0) & points["excess_loss"].isna()].to_dict("records"):
        corner = point["column"], point["top"]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="0.92", edgecolor="0.62", hatch="//////", linewidth=0))
    for point in points[points["n"] > 0].to_dict("records"):
        corner = point["column"], point["top"]
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=0.8))
    return mesh


def _mark(points: pd.DataFrame, mesh: QuadMesh, axes: Axes) -> None:
    """Draw the crosses, and write the counts of seeds."""
    for point in points[points["n"] > 0].to_dict("records"):
        excess, share = float(point["excess_loss"]), float(point["share"])
        is_black = not np.isfinite(excess) or is_light(mesh.to_rgba(np.array([excess]))[0])
        colour, is_divided = "black" if is_black else "white", 0 < share < 1
        x, y = point["column"] + 0.5, point["top"] + 0.5
        if share <= 0.5:
            height = y - 0.2 if is_divided else y
            axes.plot(x, height, "x", color=colour, markersize=4 if is_divided else 5.5, markeredgewidth=1.1)
        if is_divided:
            text = f"{point['num_learned']:.0f}/{point['n']:.0f}"
            style: dict[str, Any] = {"fontsize": 5.8 * min(1, COUNT_WIDTH / len(text)), "color": colour}
            axes.text(x, y + 0.25 if share <= 0.5 else y, text, ha="center", va="center", **style)
