"""What every figure asks of its frame before it draws."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes

from ablations.figures.palette import ArmStyle

CROSSES = {"diverged": "x", "failed": "+"}
"""Outcome to the marker of a run's last epoch."""


def is_drawable(frame: pd.DataFrame, axes: Axes) -> bool:
    """Tell whether there is something to draw; write "no finished cells" into the axes where there is not.

    Args:
        frame: rows of one condition, with the column `condition`.
        axes: where the figure goes.

    Raises:
        ValueError: the frame holds several conditions, which no figure pools.
    """
    conditions = sorted(set(frame["condition"]))
    if len(conditions) > 1:
        raise ValueError(f"a figure shows one condition, got {len(conditions)}: {conditions}; split the frame")
    if frame.empty:
        axes.text(0.5, 0.5, "no finished cells", transform=axes.transAxes, ha="center", va="center")
    return not frame.empty


METRICS = {"accuracy": "accuracy_pct", "mask AP": "mask_ap_pct"}
"""What runs are compared by to its `metric` in frames of curves."""


def measure_of(frame: pd.DataFrame) -> str:
    """Name what the runs of a figure are compared by: its column `measure`, or accuracy where it has none.

    >>> measure_of(pd.DataFrame({"measure": ["mask AP"]})), measure_of(pd.DataFrame())
    ('mask AP', 'accuracy')
    """
    return str(frame["measure"].iloc[0]) if "measure" in frame and len(frame) else "accuracy"


def seed_heights(seeds: pd.Series[int]) -> pd.Series[float]:
    """Return where each seed stands within a row of a figure, whose middle is 0: the same in every row.

    >>> seed_heights(pd.Series([3, 5, 3, 9])).round(2).tolist()
    [-0.3, -0.1, -0.3, 0.1]
    """
    rank = seeds.rank(method="dense") - 1
    return 0.4 * rank / max(rank.max(), 1) - 0.3


def counted(outcomes: pd.Series[str]) -> str:
    """Count the cells that did not end well, one row per cell; empty where all did.

    >>> counted(pd.Series(["ok", "diverged", "failed", "failed"]))
    '1 diverged, 2 failed'
    """
    counts = [(int((outcomes == outcome).sum()), outcome) for outcome in ("diverged", "failed")]
    return ", ".join(f"{count} {outcome}" for count, outcome in counts if count)


def legend_above(axes: Axes, *, side: Literal["left", "right"], num_columns: int, **options: Any) -> None:
    """Put the legend above the axes, where it covers nothing.

    Args:
        axes: which.
        side: at which end.
        num_columns: of its entries.
        options: of `Axes.legend`.
    """
    axes.legend(
        loc="lower left" if side == "left" else "lower right",
        bbox_to_anchor=(0 if side == "left" else 1, 1.01),
        borderaxespad=0,
        ncols=num_columns,
        fontsize="small",
        frameon=False,
        **options,
    )


def write_beside(axes: Axes, texts: list[str], *, below: str, bold: list[bool]) -> None:
    """Write a text to the right of each row.

    Args:
        axes: which.
        texts: of each row, from the top.
        below: what they mean, under them all.
        bold: of each row.
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


def draw_mean(values: pd.DataFrame, style: ArmStyle, label: str, axes: Axes) -> None:
    """Draw the mean of runs as a bold line.

    Args:
        values: one column per run, rows along the axis, without gaps.
        style: of their arm.
        label: in the legend.
        axes: where to.
    """
    axes.plot(
        values.index,
        values.mean(axis="columns"),
        color=style.colour,
        linestyle=style.linestyle,
        linewidth=1.8,
        marker=style.marker,
        markersize=4,
        markevery=max(1, len(values) // 8),
        label=label,
    )
