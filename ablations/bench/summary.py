"""Medians, ranges and ratios of a benchmark: pure functions of its DataFrame."""

from __future__ import annotations

import pandas as pd

BASELINES = {
    "grid": (("bare",), ("bare_x2",), ("bare", "bare_x2"), ("fresh",), ("fresh_x2",)),
    "epoch": (("bare",),),
    "cell": (("bare",),),
}
"""Contenders that ``ours`` is compared with, by quantity; of several, the one with the largest median."""

UNITS = {"grid": "cells/h", "epoch": "s", "cell": "s"}
"""Unit of the medians, by quantity; for cells/h more is better, for s less."""


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return median, lowest and highest over the rounds for each quantity and contender.

    Args:
        rows: columns ``round``, ``quantity`` (of `UNITS`), ``contender``, ``num_cells`` and ``seconds``.

    Returns:
        ``quantity``, ``contender``, ``num_cells`` of a round, ``num_rounds``, ``median``, ``low``, ``high``, ``unit``,
        in the order of their first rows.

    >>> rows = pd.DataFrame({"round": [1, 2], "quantity": "grid", "contender": "ours", "num_cells": 24,
    ...                      "seconds": [120.0, 80.0]})
    >>> summarise(rows)[["median", "low", "high", "unit"]].values.tolist()
    [[900.0, 720.0, 1080.0, 'cells/h']]
    """
    grouped = _with_values(rows).groupby(["quantity", "contender"], sort=False)
    frame = grouped.agg(
        num_cells=("num_cells", "first"),
        num_rounds=("round", "nunique"),
        median=("value", "median"),
        low=("value", "min"),
        high=("value", "max"),
    ).reset_index()
    frame["unit"] = frame["quantity"].map(UNITS)
    order = {quantity: index for index, quantity in enumerate(UNITS)}
    return frame.sort_values("quantity", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the ratios of ``ours`` to its baselines: median and range of the ratios within a round.

    A machine's speed varies less within a round than between rounds.

    Args:
        rows: rows as for `summarise`.

    Returns:
        ``quantity``, ``ratio`` (its name), ``value``, ``low``, ``high``. For ``grid`` more is better, else less.

    >>> rows = pd.DataFrame({"round": 1, "quantity": "epoch", "contender": ["ours", "bare"], "num_cells": 1,
    ...                      "seconds": [1.1, 1.0]})
    >>> ratios(rows).values.tolist()
    [['epoch', 'ours / bare', 1.1, 1.1, 1.1]]
    """
    values = _with_values(rows)
    lines = []
    for quantity, part in values.groupby("quantity", sort=False):
        by_round = part.pivot(index="round", columns="contender", values="value")
        medians = by_round.median().to_dict()
        for baselines in BASELINES[str(quantity)]:
            baseline = max(baselines, key=medians.__getitem__)
            each = by_round["ours"] / by_round[baseline]
            name = baselines[0] if len(baselines) == 1 else f"max({', '.join(baselines)})"
            lines.append((quantity, f"ours / {name}", each.median(), each.min(), each.max()))
    return pd.DataFrame(lines, columns=["quantity", "ratio", "value", "low", "high"])


def describe(rows: pd.DataFrame) -> list[str]:
    """Return lines with the medians of the contenders and the ratios.

    Args:
        rows: rows as for `summarise`.
    """
    lines = ["median over the rounds [range]"]
    for line in summarise(rows).itertuples():
        cells = f"{line.num_cells} cell{'s' * (line.num_cells != 1)} a round, rounds: {line.num_rounds}"
        what = f"{line.quantity:<6}{line.contender:<9}"
        lines.append(f"{what} {line.median:9.4g} {line.unit:<8}[{line.low:.4g}, {line.high:.4g}]  {cells}")
    lines.append("ratios within a round: median [range]")
    return lines + [
        f"{line.quantity:<6}{line.ratio:<26} {line.value:6.3f} [{line.low:.3f}, {line.high:.3f}]"
        for line in ratios(rows).itertuples()
    ]


def _with_values(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``value``: cells per hour for ``grid``, else seconds."""
    rate = 3600 * rows["num_cells"] / rows["seconds"]
    return rows.assign(value=rate.where(rows["quantity"] == "grid", rows["seconds"]))
