"""Detections: objects in an image, precision over recall, and average precision by object size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from ablations.analysis import t_interval
from ablations.figures.canvas import in_background, is_drawable, legend_above, not_ok
from ablations.figures.palette import arm_style

MOST_OBJECTS = 100
"""Largest number of objects that are drawn in an image, those with the highest scores, as many as COCO counts."""

LEAST_SCORE = 0.5
"""Lowest score of a drawn detection: all detections together would hide the image."""

CATEGORY_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#8c564b")
"""Colours of the categories in order, repeated cyclically (Okabe and Ito's, and a brown)."""

MASK_OPACITY = 0.45

IOU_STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
"""Line styles of the IoU thresholds, in ascending order."""

SIZES = {"small": "small\nup to 32 x 32 px", "medium": "medium\nup to 96 x 96 px", "large": "large\nabove 96 x 96 px"}


def found_objects(objects: pd.DataFrame, axes: Axes) -> Axes:
    """Draw an image with the boxes, categories and, if they have outlines, masks of its objects.

    Detections with a score below 0.5 are left out, and of more than 100 objects those with the lowest scores.

    Args:
        objects: detections of one arm, or annotations, in one image, at least one row: `condition`, `path` of the
            image, `height` and `width` of the image that boxes refer to (pixels), `category`, `category_order`, `score`
            (NaN for an annotation), `left`, `top`, `box_width`, `box_height`, `outline` (COCO format, or
            empty). A row without a category represents an image without objects.
        axes: axes to draw into.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_axis_off()
    if not is_drawable(objects, axes):
        return axes
    height, width = int(objects["height"].iloc[0]), int(objects["width"].iloc[0])
    with Image.open(Path(str(objects["path"].iloc[0]))) as file:
        pixels = np.asarray(file.convert("RGB").resize((width, height))) / 255
    shown = objects[objects["category"].notna() & ~(objects["score"] < LEAST_SCORE)]
    if len(shown) > MOST_OBJECTS:
        left_out = f"{MOST_OBJECTS} of {len(shown):,} objects"
        axes.text(0.5, 0, left_out, transform=axes.transAxes, ha="center", va="top", fontsize="small")
        shown = shown.sort_values("score", ascending=False, kind="stable")[:MOST_OBJECTS]
    for row in shown.to_dict("records"):
        colour = CATEGORY_COLOURS[int(row["category_order"]) % len(CATEGORY_COLOURS)]
        if row["outline"]:
            mask = _bits(row["outline"], height, width)
            pixels[mask] = (1 - MASK_OPACITY) * pixels[mask] + MASK_OPACITY * np.array(to_rgb(colour))
        corner = row["left"], row["top"]
        axes.add_patch(Rectangle(corner, row["box_width"], row["box_height"], fill=False, edgecolor=colour))
        text = row["category"] if np.isnan(row["score"]) else f"{row['category']} {row['score']:.2f}"
        axes.text(*corner, text, fontsize=5, color="white", backgroundcolor=colour, va="bottom", clip_on=True).set_bbox(
            {"facecolor": colour, "edgecolor": "none", "pad": 0.6}
        )
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    return axes


def precision_recall(curves: pd.DataFrame, axes: Axes) -> Axes:
    """Draw precision over recall, averaged over an arm's seeds, for each IoU threshold.

    Args:
        curves: rows of one condition and one kind of AP, one per cell, IoU and recall: `arm`, `arm_label`, `arm_order`,
            `cell`, `iou`, `recall`, `precision`; optionally `is_background`, for arms that are not drawn.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set(xlabel="Recall", ylabel="Precision, mean over categories", xlim=(0, 1), ylim=(0, 1.02))
    if not is_drawable(curves, axes):
        return axes
    axes.grid(linewidth=0.4, alpha=0.5)
    lines = list(zip(sorted(curves["iou"].unique()), IOU_STYLES, strict=False))
    handles = []
    for _, own in curves[~in_background(curves)].groupby(["arm_order", "arm"]):
        style = arm_style(int(own["arm_order"].iloc[0]))
        for iou, line in lines:
            means = own[own["iou"] == iou].groupby("recall")["precision"].mean()
            axes.plot(means.index, means, line, color=style.colour, linewidth=1.5)
        label = f"{own['arm_label'].iloc[0]} (n = {own['cell'].nunique()})"
        handles.append(Line2D([], [], color=style.colour, linewidth=1.5, label=label))
    handles += [Line2D([], [], color="grey", linestyle=line, label=f"IoU {iou:g}") for iou, line in lines]
    legend_above(axes, side="right", num_columns=4, handles=handles)
    return axes


def precision_by_size(cells: pd.DataFrame, axes: Axes) -> Axes:
    """Draw each arm's average precision for small, medium and large objects, with 95 % t intervals over seeds.

    Cells without a test result are left out and counted in the legend.

    Args:
        cells: one condition's rows, one per cell: `kind_of_ap` (``box`` or ``mask``, the same in all rows) and the
            columns ``test_<kind>_ap_<size>_pct``; optionally `is_background`, for arms that are not drawn.
        axes: axes to draw into; the legend above them needs a figure with `layout="constrained"`.

    Returns:
        The same axes.

    Raises:
        ValueError: the frame has several conditions.
    """
    axes.set_ylabel("Test AP (%)")
    if not is_drawable(cells, axes):
        return axes
    kind = str(cells["kind_of_ap"].iloc[0])
    arms = [own for _, own in cells[~in_background(cells)].groupby(["arm_order", "arm"])]
    handles = []
    for place, own in enumerate(arms):
        style = arm_style(int(own["arm_order"].iloc[0]))
        shift = 0.6 * ((place + 0.5) / len(arms) - 0.5)
        for x, size in enumerate(SIZES):
            values = own[f"test_{kind}_ap_{size}_pct"].astype(float).dropna().to_numpy()
            if not len(values):
                continue
            low, high = t_interval(values)
            dots = np.full(len(values), x + shift)
            axes.plot(dots, values, style.marker, color=style.colour, markersize=3, alpha=0.4, markeredgewidth=0)
            mean = float(values.mean())
            error = None if np.isnan(low) else [[mean - low], [high - mean]]
            axes.errorbar(
                x + shift + 0.05, mean, yerr=error, fmt=style.marker, color=style.colour, markersize=5, capsize=3
            )
        tested = int(own[f"test_{kind}_ap_pct"].notna().sum())
        counts = ", ".join(filter(None, [f"n = {tested}", not_ok(own["outcome"])]))
        label = f"{own['arm_label'].iloc[0]} ({counts})"
        handles.append(Line2D([], [], color=style.colour, marker=style.marker, label=label))
    for x, size in enumerate(SIZES):
        if not cells[f"test_{kind}_ap_{size}_pct"].notna().any():
            axes.text(x, 0.5, "none to be found", ha="center", color="grey", transform=axes.get_xaxis_transform())
    axes.set_xticks(range(len(SIZES)), list(SIZES.values()))
    axes.set_xlim(-0.5, len(SIZES) - 0.5)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    legend_above(axes, side="right", num_columns=3, handles=handles)
    return axes


def _bits(outline: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode a COCO outline, polygons or run lengths, to a mask, (height, width)."""
    from faster_coco_eval.core import mask

    if isinstance(outline, dict) and isinstance(outline["counts"], str):
        return mask.decode({"size": outline["size"], "counts": outline["counts"].encode()}).astype(bool)
    if isinstance(outline, dict):
        return mask.decode(mask.frPyObjects(outline, height, width)).astype(bool)
    return mask.decode(mask.merge(mask.frPyObjects(outline, height, width))).astype(bool)
