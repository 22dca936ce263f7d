"""Limits of the size of a study, checked before anything of its size is made."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ablations.config.errors import UsageError

MOST_CELLS = 100_000
"""Largest number of cells of a study, and of values of one field."""

MOST_POINTS = 10_000
"""Largest number of trials of an arm, and of points of a tuning: study.yaml has each."""


def check_num_cells(counts: Mapping[str, int]) -> None:
    """Reject a study with too many cells.

    Args:
        counts: number of values of each field.

    Raises:
        UsageError: their product is above the limit.

    >>> check_num_cells({"norm": 10, "lr": 1, "seed": 1000})
    """
    if (total := math.prod(counts.values())) > MOST_CELLS:
        axes = " x ".join(f"{field} {count:,}" for field, count in counts.items() if count > 1)
        raise UsageError(
            f"a study of {total:,} cells ({axes}) is above the limit of {MOST_CELLS:,} cells; give fewer values"
        )


def check_num_values(field: str, count: int) -> None:
    """Reject too many values of a field.

    Raises:
        UsageError: there are more than the limit.
    """
    if count > MOST_CELLS:
        raise UsageError(f"{field}: {count:,} values are above the limit of {MOST_CELLS:,}; give fewer")
