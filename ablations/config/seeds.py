"""Seeds as the command line writes them."""

from __future__ import annotations

from ablations.config.errors import UsageError
from ablations.config.values import parse_values


def parse_seeds(text: str, *, option: str = "--seeds") -> list[int]:
    """Read ``--seeds``, or another option like it: a number is how many, a list or a range says which.

    Raises:
        UsageError: anything else.

    >>> parse_seeds("3"), parse_seeds("0-2,7"), parse_seeds("5,")
    ([0, 1, 2], [0, 1, 2, 7], [5])
    """
    text = text.strip()
    if text.isdecimal():
        if int(text) == 0:
            raise UsageError(f"{option} 0: at least one seed is needed; the seed 0 is {option} 0,")
        text = f"0-{int(text) - 1}"
    try:
        seeds = parse_values("seed", text.removesuffix(","))
    except UsageError as error:
        raise UsageError(f"{option} {text}: give how many (8), or which (0-3,7); {error}") from None
    return sorted(seeds)
