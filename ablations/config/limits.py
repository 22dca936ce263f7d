"""Limits of the size of a study, checked before anything of its size is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from ablations.config.errors import UsageError

MOST_CELLS = 100_000
"""Largest number of cells of a study, and of values of one field."""

MOST_NAME, MOST_SENTENCE = 200, 10_000
"""Characters of the longest name and label, which tables and figures show, and of the longest question or caveat."""

MOST_VALUE = 5_000
"""Characters of the longest text that a cell's field has, such as a path of images."""

MOST_CLAIMS, MOST_VERDICTS = 100, 10_000
"""Largest number of claims of a study, and of claims times conditions: each has a verdict in each condition."""

MOST_EXTENSIONS = 10_000
"""Largest number of lines of a study's history."""

MOST_POINTS = 10_000
"""Largest number of trials of an arm, and of points of a tuning: study.yaml has each."""

MOST_GRIDS, MOST_EXCLUSIONS = 1_000, 100
"""Largest number of grids of a study, and of combinations that a grid leaves out."""

Name = Annotated[str, Field(max_length=MOST_NAME)]
"""A name, a label or a version."""

Sentence = Annotated[str, Field(max_length=MOST_SENTENCE)]


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


def check_growth(*, num_claims: int, num_conditions: int, num_extensions: int) -> None:
    """Reject a study with too many claims or extensions.

    Args:
        num_claims: number of claims.
        num_conditions: number of combinations of the conditions' values.
        num_extensions: number of lines of the history.

    Raises:
        UsageError: one of them is above its limit.
    """
    if num_claims > MOST_CLAIMS:
        raise UsageError(f"{num_claims:,} claims are above the limit of {MOST_CLAIMS}; give fewer")
    if num_claims * num_conditions > MOST_VERDICTS:
        raise UsageError(
            f"{num_claims:,} claims in {num_conditions:,} conditions exceed the limit of {MOST_VERDICTS:,} verdicts; "
            "give fewer claims or values"
        )
    if num_extensions > MOST_EXTENSIONS:
        raise UsageError(f"a study of {num_extensions:,} extensions is above the limit of {MOST_EXTENSIONS:,}")


def check_num_values(field: str, count: int) -> None:
    """Reject too many values of a field.

    Raises:
        UsageError: there are more than the limit.
    """
    if count > MOST_CELLS:
        raise UsageError(f"{field}: {count:,} values are above the limit of {MOST_CELLS:,}; give fewer")
