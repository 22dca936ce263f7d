"""What every figure asks of its frame before it draws."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

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
