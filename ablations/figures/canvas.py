"""Elements that figures share: checks of the frame, counts in words, and legends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes


def is_drawable(frame: pd.DataFrame, axes: Axes) -> bool:
    """Return whether the frame has rows; if not, write "no finished cells" into the axes.

    Args:
        frame: rows of one condition, with the column `condition`.
        axes: axes of the figure.

    Raises:
        ValueError: the frame has several conditions, which no figure pools.
    """
    conditions = sorted(set(frame["condition"]))
    if len(conditions) > 1:
        raise ValueError(f"a figure shows one condition, got {len(conditions)}: {conditions}; split the frame")
    if frame.empty:
        axes.text(0.5, 0.5, "no finished cells", transform=axes.transAxes, ha="center", va="center")
    return not frame.empty


LUMINANCE, LIGHT = (0.2126, 0.7152, 0.0722), 0.45
"""Weights of red, green and blue in luminance (ITU-R BT.709), and the luminance above which text is black."""


def is_light(colour: npt.ArrayLike) -> bool:
    """Return whether text on a colour is black rather than white.

    Args:
        colour: red, green, blue and possibly opacity, in [0, 1].

    >>> is_light((1.0, 1.0, 0.0)), is_light((0.0, 0.0, 1.0))
    (True, False)
    """
    return bool(np.dot(np.asarray(colour, dtype=float)[:3], LUMINANCE) > LIGHT)


METRICS = {"accuracy": "accuracy_pct", "mask AP": "mask_ap_pct", "box AP": "box_ap_pct"}
"""Name of the compared metric to its `metric` in frames of curves."""


def measure_of(frame: pd.DataFrame) -> str:
    """Return the name of the compared metric: the column `measure`, or accuracy if the frame has none.

    >>> measure_of(pd.DataFrame({"measure": ["mask AP"]})), measure_of(pd.DataFrame())
    ('mask AP', 'accuracy')
    """
    return str(frame["measure"].iloc[0]) if "measure" in frame and len(frame) else "accuracy"


def span_text(counts: Iterable[int]) -> str:
    """Write the least and the greatest of some counts; empty without one.

    >>> span_text([3, 5, 4]), span_text([3, 3])
    ('3 to 5', '3')
    """
    counts = sorted(set(counts))
    return " to ".join(str(int(count)) for count in dict.fromkeys([*counts[:1], *counts[-1:]]))


BACKGROUND: dict[str, Any] = {"color": "0.88", "linewidth": 1.4, "marker": "", "linestyle": "-", "zorder": 1.7}
"""Arguments of `Axes.plot` for the mean of an arm in the background: above the grid, below all other lines."""


def draw_background(x: npt.ArrayLike, y: npt.ArrayLike, axes: Axes) -> None:
    """Draw the mean of an arm in the background: a line, or a dot if it has a single value."""
    is_dot = np.isfinite(np.asarray(y, dtype=float)).sum() == 1
    axes.plot(x, y, **BACKGROUND | {"marker": "o" if is_dot else ""}, markersize=4)


def in_background(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows are of arms in the background: the column `is_background`, or none if the frame has none.

    >>> in_background(pd.DataFrame({"arm": ["a", "b"], "is_background": [False, True]})).tolist()
    [False, True]
    >>> in_background(pd.DataFrame({"arm": ["a", "b"]})).tolist()
    [False, False]
    """
    if "is_background" in frame:
        return frame["is_background"].astype(bool)
    return pd.Series(False, index=frame.index, dtype=bool)


def background_text(frame: pd.DataFrame) -> str:
    """Return the caption's sentence on the arms in the background; empty if there are none."""
    return " Grey: means of the other arms." if in_background(frame).any() else ""


def not_ok(outcomes: pd.Series[str]) -> str:
    """Count diverged and failed cells, in words; empty if there are none.

    >>> not_ok(pd.Series(["ok", "diverged", "failed", "failed"]))
    '1 diverged, 2 failed'
    """
    counts = [(int((outcomes == outcome).sum()), outcome) for outcome in ("diverged", "failed")]
    return ", ".join(f"{count} {outcome}" for count, outcome in counts if count)


def legend_right(axes: Axes, *, size: str = "small", **options: Any) -> None:
    """Place the legend to the right of the axes, where it covers no data.

    Args:
        axes: axes with the legend.
        size: size of the font.
        options: further arguments of `Axes.legend`.
    """
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=size,
        frameon=False,
        alignment="left",
        **options,
    )


def legend_above(axes: Axes, *, side: Literal["left", "right"], num_columns: int, **options: Any) -> None:
    """Place the legend above the axes, where it covers no data.

    Args:
        axes: axes with the legend.
        side: side of the axes that the legend is aligned with.
        num_columns: columns of legend entries.
        options: further arguments of `Axes.legend`.
    """
    axes.legend(
        alignment="left",
        loc="lower left" if side == "left" else "lower right",
        bbox_to_anchor=(0 if side == "left" else 1, 1.01),
        borderaxespad=0,
        ncols=num_columns,
        fontsize="small",
        frameon=False,
        **options,
    )
