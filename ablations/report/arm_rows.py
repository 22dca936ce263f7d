"""Figures of many arms: a few arms in each row of panels, beside the reference, with all others in grey."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

import pandas as pd

from ablations.analysis.results import Results

MOST_TOGETHER = 10
"""Largest number of arms whose lines are drawn in one panel."""

MOST_IN_ROW = 6
"""Largest number of arms of a row, without the reference."""

MOST_ROWS = 20
"""Largest number of rows of a figure."""


class ArmRow(NamedTuple):
    """Arms of a row of panels.

    Args:
        name: name of the row: the group of its normalisers, with a number if the group has several rows, or empty.
        arms: arms in colour, among them the reference, which every row has.
    """

    name: str
    arms: frozenset[str]


def arm_rows(results: Results) -> tuple[ArmRow, ...]:
    """Divide the arms of results into rows: group by group, at most `MOST_IN_ROW` arms in each.

    Returns:
        Rows in the order of the registry; those above `MOST_ROWS` are left out.
    """
    arms = results.cells.sort_values("arm_order", kind="stable").drop_duplicates("arm")
    always = [str(arm) for arm in arms["arm"] if arm == results.reference]
    rows = []
    for group in arms["arm_group"].unique():
        parts = _parts(list(arms.loc[arms["arm_group"] == group, "arm"]))
        for place, part in enumerate(parts):
            number = f"{place + 1} of {len(parts)}" if len(parts) > 1 else ""
            name = f"{group} ({number})" if group and number else group or number
            rows.append(ArmRow(name, frozenset([*always, *part])))
    return tuple(rows[:MOST_ROWS])


def rows_of(frames: Collection[pd.DataFrame], rows: tuple[ArmRow, ...]) -> tuple[ArmRow, ...]:
    """Return the rows that a figure needs.

    Args:
        frames: data of the panels that stand next to each other, with the column `arm`.
        rows: rows of all arms of the results.

    Returns:
        The rows with an arm of the frames beside the reference; none if all their arms have room in one panel.
    """
    if len(rows) < 2:
        return ()
    arms = {arm for frame in frames for arm in frame["arm"].unique()}
    if len(arms) <= MOST_TOGETHER:
        return ()
    always = frozenset.intersection(*(row.arms for row in rows))
    return tuple(row for row in rows if row.arms & arms - always)


def num_without_row(frames: Collection[pd.DataFrame], rows: Collection[ArmRow]) -> int:
    """Return the number of arms of a figure that no row has in colour."""
    return len(
        {arm for frame in frames for arm in frame["arm"].unique()} - frozenset[str]().union(*(row.arms for row in rows))
    )


def _parts(arms: list[str]) -> list[list[str]]:
    """Divide arms into the fewest parts of at most `MOST_IN_ROW`, of about equal size.

    >>> [len(part) for part in _parts([str(arm) for arm in range(15)])]
    [5, 5, 5]
    """
    num_parts = math.ceil(len(arms) / MOST_IN_ROW)
    ends = [round(part * len(arms) / num_parts) for part in range(num_parts + 1)]
    return [arms[start:end] for start, end in pairwise(ends)]
