"""Seeds, as options give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ablations.config.errors import UsageError
from ablations.config.limits import check_num_values
from ablations.config.values import MOST_DIGITS, parse_values


def parse_seeds(value: Any) -> list[int]:
    """Read seeds: a number is how many, a list or a range says which.

    Raises:
        ValueError: anything else; the message has neither option nor value.

    >>> parse_seeds("3"), parse_seeds("0-2,7"), parse_seeds("5,"), parse_seeds([4, "0-1"])
    ([0, 1, 2], [0, 1, 2, 7], [5], [0, 1, 4])
    """
    try:
        if isinstance(value, Sequence) and not isinstance(value, str):
            check_num_values("seed", len(value))
            value = ",".join(map(str, value)) + ","
        text = str(value).strip()
        if re.fullmatch("[0-9]+(_[0-9]+)*", text):
            text = text.replace("_", "")
        if re.search("[.:eE]", text):  # 8.0 would be one seed
            raise UsageError("a seed is a whole number")
        if text.isdecimal() and not text.strip("0"):
            raise ValueError("at least one seed is needed; the seed 0 is 0,")
        if text.isdecimal() and len(text) <= MOST_DIGITS:
            text = f"0-{int(text) - 1}"
        return sorted(parse_values("seed", text.removesuffix(",")))
    except UsageError as error:
        raise ValueError(f"give how many (8), or which (0-3,7); {error}") from None


def parse_confirmed(value: Any) -> list[int]:
    """Read the seeds of a tuning's winners; 0: none.

    >>> parse_confirmed("0"), parse_confirmed(2)
    ([], [0, 1])
    """
    return [] if str(value) == "0" or value == [] else parse_seeds(value)


def seed_ranges(seeds: Iterable[int]) -> str:
    """Write seeds as ranges.

    >>> seed_ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    ranges: list[list[int]] = []
    for seed in sorted({int(seed) for seed in seeds}):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
