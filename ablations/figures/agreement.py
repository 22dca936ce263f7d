"""Share of test images on which two runs differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from ablations.figures.canvas import is_drawable, is_light, span_text

MOST_DECIMALS, MOST_NUMBERS = 16, 40
"""Largest numbers of arms whose cells have room for a share with a decimal, and for a whole one."""


def agreement(pairs: pd.DataFrame, axes: Axes) -> Axes:
    """Draw a heat map of the share of test images on which exactly one of two runs is right.

    Off the diagonal, two arms are compared at the same seeds. On the framed diagonal, two seeds of one arm are
    compared, which gives the effect of the seed.

    Args:
        pairs: one condition's rows of `ablations.analysis.agreement`, every ordered pair of arms.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    if not is_drawable(pairs, axes):
        return axes
    arms = pairs.sort_values("arm_order", kind="stable").drop_duplicates("arm")
    names = list(arms["arm"])
    shares = pairs.pivot(index="arm", columns="other", values="disagreement_pct").reindex(index=names, columns=names)
    values = shares.to_numpy(np.float64)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no two runs to compare", transform=axes.transAxes, ha="center", va="center")
        return axes
    image = axes.imshow(values, cmap="viridis")
    if len(names) <= MOST_NUMBERS:
        _write_shares(values, image, axes)
    for i in range(len(names)):
        frame = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=1.6, clip_on=False)
        axes.add_patch(frame)
    labels = list(arms["arm_label"])
    up: Any = {"rotation": 90, "va": "center"} if len(names) > MOST_DECIMALS else {"rotation": 40}
    axes.set_xticks(range(len(names)), labels, ha="right", rotation_mode="anchor", fontsize="small", **up)
    axes.set_yticks(range(len(names)), labels, fontsize="small")
    n_text = span_text(pairs.loc[pairs["arm"] != pairs["other"], "num_pairs"])
    of_arms = f"Two arms at the same seed (n = {n_text});\nframed: " if n_text else "Framed: "
    mixed = int(pairs.loc[pairs["arm_order"] <= pairs["other_order"], "num_pairs_mixed"].sum())
    notes = f"\npairs of a stale cell and a fresh one: {mixed}" if mixed else ""
    notes += "\nrounded to whole percents" if MOST_DECIMALS < len(names) <= MOST_NUMBERS else ""
    axes.set_title(f"{of_arms}two seeds of one arm{notes}", loc="left", fontsize="small")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label("Images on which two runs differ (%)", fontsize="small")
    return axes


def _write_shares(values: npt.NDArray[np.float64], image: AxesImage, axes: Axes) -> None:
    """Write each share into its cell, in black or white; those of many arms are rounded to whole percents."""
    size = "x-small" if len(values) <= 6 else "xx-small"
    decimals = 1 if len(values) <= MOST_DECIMALS else 0
    for i, j in np.ndindex(values.shape):
        is_known = np.isfinite(values[i, j])
        text = f"{values[i, j]:.{decimals}f}" if is_known else "-"
        is_black = not is_known or is_light(image.cmap(image.norm(values[i, j])))
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color="black" if is_black else "white")
