"""Which classes of a data set are taken."""

from __future__ import annotations

import torch

from ablations.config import UsageError
from ablations.config.types import JOINT
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator
from ufo.registry import unknown_name

MOST_NAMED = 20
"""Classes that a message lists."""


def choose_classes(names: list[str], wanted: str | None) -> list[str]:
    """Return the classes that are taken, in the order that they have.

    Args:
        names: all classes, in their order.
        wanted: how many, drawn with the split's own seed so that a smaller choice lies in a larger one; or names,
            joined by plus signs; None: all of them.

    Raises:
        UsageError: more classes than there are, or a name that is none of them.

    >>> choose_classes(["a", "b", "c", "d"], "d+b")
    ['b', 'd']
    >>> set(choose_classes(list("abcdef"), "2")) < set(choose_classes(list("abcdef"), "4"))
    True
    """
    if wanted is None:
        return names
    if wanted.isdecimal():
        if not 2 <= int(wanted) <= len(names):
            raise UsageError(f"classes {wanted}: there are {len(names):,}; give a number from 2 to that")
        drawn = torch.randperm(len(names), generator=keyed_generator(SPLIT_SEED, "classes"))[: int(wanted)]
        return [names[i] for i in sorted(drawn.tolist())]
    chosen = set(wanted.split(JOINT))
    for name in sorted(chosen - set(names)):
        listed = str(unknown_name("class", name, names))
        more = f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED:,} more"
        raise UsageError(listed if len(names) <= MOST_NAMED else f"{listed.partition(' Valid: ')[0]} Valid: {more}")
    return [name for name in names if name in chosen]
