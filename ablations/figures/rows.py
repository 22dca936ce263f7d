"""Figures with one row per arm or comparison."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.figures.palette import arm_style


def seed_heights(seeds: pd.Series[int]) -> pd.Series[float]:
    """Return each seed's height relative to the middle of a row, the same in every row.

    >>> seed_heights(pd.Series([3, 5, 3, 9])).round(2).tolist()
    [-0.3, -0.1, -0.3, 0.1]
    """
    rank = seeds.rank(method="dense") - 1
    return 0.4 * rank / max(rank.max(), 1) - 0.3


def draw_row(
    row: int,
    values: pd.Series[float],
    heights: pd.Series[float],
    crossed: pd.Series[bool],
    arm: pd.Series,
    axes: Axes,
    *,
    is_hollow: bool = False,
) -> None:
    """Draw one arm's seeds as dots, or as crosses, and below them their mean with its interval.

    Args:
        row: place of the arm, from the top.
        values: value of each seed.
        heights: height of each seed, from `seed_heights`.
        crossed: whether a seed is a cross.
        arm: `arm_order`, `mean_pct`, and the bounds `low_pct` and `high_pct`.
        axes: axes to draw into.
        is_hollow: whether the marker of the mean, and the dots, are only outlines.
    """
    colour, marker, _ = arm_style(int(arm["arm_order"]))
    at = row + heights
    dots: Any = {"markersize": 4, "alpha": 0.6, "markeredgewidth": 0}
    face: Any = {"markerfacecolor": "white"} if is_hollow else {}
    dots |= {"markeredgewidth": 0.8, **face} if is_hollow else {}
    axes.plot(values[~crossed], at[~crossed], marker, color=colour, **dots)
    axes.plot(values[crossed], at[crossed], "x", color=colour, markersize=5, markeredgewidth=1.4)
    half = (arm["high_pct"] - arm["low_pct"]) / 2
    bar: Any = {"fmt": marker, "color": colour, "markersize": 4, "capsize": 3, "linewidth": 1.5}
    axes.errorbar(arm["mean_pct"], row + 0.32, xerr=half, **bar | face)


def label_rows(axes: Axes, labels: list[str]) -> None:
    """Name the rows, from the top, and fit the vertical axis to them."""
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    spare = max(5 - len(labels), 0) / 2  # few rows would be drawn far apart, with dots far from their means
    axes.set_ylim(len(labels) - 0.4 + spare, -0.6 - spare)


def row_handles(crosses: str | None) -> list[Line2D]:
    """Return the legend entries of `draw_row`; without a label, crosses have none."""
    handles = [
        Line2D([], [], color="grey", marker="o", markersize=4, alpha=0.6, linestyle="", label="a seed"),
        Line2D([], [], color="grey", marker="o", markersize=4, linewidth=1.5, label="mean, 95 % t interval"),
    ]
    cross = Line2D([], [], color="grey", marker="x", linestyle="", label=crosses)
    return handles if crosses is None else [*handles, cross]


def annotate_rows(axes: Axes, texts: list[str], *, below: str, bold: list[bool]) -> None:
    """Write a note to the right of each row.

    Args:
        axes: axes with the rows.
        texts: one note per row, from the top.
        below: explanation of the notes, below the last row.
        bold: one flag per row: whether its note is bold.
    """
    at_edge: Any = {"xytext": (5, 0), "textcoords": "offset points", "fontsize": "x-small"}
    for row, (text, is_bold) in enumerate(zip(texts, bold, strict=True)):
        axes.annotate(
            text,
            (1, row),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontweight="bold" if is_bold else "normal",
            annotation_clip=False,
            **at_edge,
        )
    axes.annotate(below, (1, 0), xycoords="axes fraction", va="top", **at_edge | {"xytext": (5, -17)})
