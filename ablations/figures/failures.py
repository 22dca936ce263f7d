"""Outcomes of the runs, one row per arm."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablations.analysis import wilson_interval
from ablations.figures.canvas import is_drawable, legend_above
from ablations.figures.rows import annotate_rows, label_rows

KINDS: dict[str, tuple[str, str]] = {
    "": ("#dfe5ea", ""),
    "nan": ("#7b3294", ""),
    "exploded": ("#a66bbe", "//"),
    "no_learning": ("#d3b5df", ".."),
    "oom": ("#404040", ""),
    "error": ("#6e6e6e", "\\\\"),
    "killed": ("#9a9a9a", "xx"),
    "timeout": ("#c4c4c4", "oo"),
}
"""Kind of outcome to its colour and hatch; empty is ok. Diverged kinds are purple, failed ones grey."""

DIVERGED = ("nan", "exploded", "no_learning")


def failures_by_kind(cells: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's outcomes as a stacked bar, with the 95 % Wilson interval of the diverged share.

    The share excludes failed cells: a failure is caused by the machine or the code, not by the arm.

    Args:
        cells: one condition's rows, one per cell: `arm`, `arm_label`, `arm_order`, `outcome`, `kind`.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions or an unknown kind.
    """
    axes.set_xlabel("Runs")
    if not is_drawable(cells, axes):
        return axes
    if unknown := sorted(set(cells["kind"]) - KINDS.keys()):
        raise ValueError(f"unknown kind of outcome '{unknown[0]}'. Valid: {', '.join(filter(None, KINDS))}")
    arms = cells.sort_values("arm_order", kind="stable").drop_duplicates("arm")
    for row, arm in enumerate(arms["arm"]):
        _draw_row(cells.loc[cells["arm"] == arm, "kind"], row, axes)
    label_rows(axes, list(arms["arm_label"]))
    axes.set_xlim(0, cells.groupby("arm").size().max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind, (colour, hatch) in KINDS.items():
        if (cells["kind"] == kind).any():
            name = f"{'diverged' if kind in DIVERGED else 'failed'}: {kind}" if kind else "ok"
            axes.barh(0, 0, color=colour, hatch=hatch, edgecolor="white", label=name)
    legend_above(axes, side="left", num_columns=3)
    shares = [_share_text(cells.loc[cells["arm"] == arm, "kind"]) for arm in arms["arm"]]
    annotate_rows(axes, shares, below="[95 % Wilson\ninterval]", bold=[False] * len(shares))
    return axes


def _draw_row(kinds: pd.Series[str], row: int, axes: Axes) -> None:
    left = 0
    for kind, (colour, hatch) in KINDS.items():
        if not (count := int((kinds == kind).sum())):
            continue
        axes.barh(row, count, left=left, height=0.6, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        if kind:
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axes.text(left + count / 2, row, str(count), ha="center", va="center", fontsize="x-small", bbox=box)
        left += count


def _share_text(kinds: pd.Series[str]) -> str:
    """Return the diverged share of the cells that did not fail, with its interval, in words."""
    num_diverged, n = int(kinds.isin(DIVERGED).sum()), int(kinds.isin(["", *DIVERGED]).sum())
    low, high = wilson_interval(num_diverged, n)
    return f"{num_diverged} of {n} diverged\n[{100 * low:.0f}, {100 * high:.0f}] %" if n else "every run failed"
