"""Figures of the probes at single training steps: panels of a condition, for the studies that recorded them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import pandas as pd

from ablations.analysis.steps import largest_over_layers, step_means
from ablations.figures.probes import probe_name
from ablations.report.kinds import FigureSpec

Value = TypeVar("Value")

EXPLAINED = {"training loss": "loss", "output RMS": "output_rms", "gradient norm": "grad_norm"}
"""Panel of `failure_explained` to its probe."""

LEAST_ROWS, MAP_ROWS = 6, 0.3
"""Least height of a heat map, and height of a layer in it, in rows."""

MOST_LINES = 200
"""Largest number of layers, and of steps, of a heat map: evenly spaced."""


def step_figures(steps: pd.DataFrame, condition: str, reference: str | None) -> Iterator[FigureSpec]:
    """Yield the panels of one condition: three quantities, then of each probe the arms, the reference first.

    Args:
        steps: one condition's rows of `Frames.steps`; without one, there are no panels.
        condition: name of the condition.
        reference: the reference arm.
    """
    if steps.empty:
        return
    largest = largest_over_layers(steps)
    for panel, quantity in EXPLAINED.items():
        if len(own := largest[largest["probe"] == quantity]):
            title = "training loss, output and gradient over the first steps"
            yield FigureSpec("failure_explained", "", condition, title, own.reset_index(drop=True), panel=panel)
    for name, means in step_means(steps).groupby("probe", sort=False):
        if (probe := str(name)) not in EXPLAINED.values():
            continue
        kept = {column: _kept(means, column) for column in ("layer", "step")}
        some = means[means["layer"].isin(kept["layer"]) & means["step"].isin(kept["step"])]
        counts = [f"{len(names)} of {means[column].nunique():,} {column}s" for column, names in kept.items()]
        shown = [text for text, column in zip(counts, kept, strict=True) if len(kept[column]) < means[column].nunique()]
        title = ", ".join([f"{probe_name(probe)} over steps and depth", *shown])
        ordered = some.assign(is_other=some["arm"] != reference)
        for (_, _, label), own in ordered.groupby(["is_other", "arm_order", "arm_label"]):
            frame = own.drop(columns="is_other").reset_index(drop=True)
            num_rows = max(LEAST_ROWS, MAP_ROWS * frame["layer"].nunique())
            yield FigureSpec("probes_over_steps", probe, condition, title, frame, num_rows, panel=str(label))


def spread(values: Sequence[Value], most: int) -> list[Value]:
    """Return some evenly spaced values, including the first and the last.

    >>> spread([str(layer) for layer in range(12)], 4)
    ['0', '4', '7', '11']
    """
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _kept(means: pd.DataFrame, column: str) -> list[object]:
    """Return the layers or steps of a heat map, in order."""
    order = "layer_order" if column == "layer" else "step"
    return spread(list(means.sort_values(order)[column].unique()), MOST_LINES)
