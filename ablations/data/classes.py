"""Selection of a data set's classes."""

from __future__ import annotations

import re

import torch

from ablations.config import UsageError
from ablations.config.types import JOINT
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator
from ufo.registry import unknown_name

MAX_NAMED = 20
"""Largest number of classes that a message lists."""


def choose_classes(names: list[str], wanted: str | None) -> list[str]:
    """Select classes, in the data set's order.

    Args:
        names: names of all classes, in order.
        wanted: number of classes, drawn with the split's own seed so that a smaller choice lies in a larger one; or
            names, joined by plus signs; None: all of them.

    Raises:
        UsageError: number out of range, or unknown name.

    >>> choose_classes(["a", "b", "c", "d"], "d+b")
    ['b', 'd']
    >>> set(choose_classes(list("abcdef"), "2")) < set(choose_classes(list("abcdef"), "4"))
    True
    """
    if wanted is None:
        return names
    if wanted.isdecimal():
        if not 2 <= int(wanted) <= len(names):
            raise UsageError(f"classes={wanted}: must be from 2 to {len(names):,}, the number of classes")
        drawn = torch.randperm(len(names), generator=keyed_generator(SPLIT_SEED, "classes"))[: int(wanted)]
        return [names[i] for i in sorted(drawn.tolist())]
    chosen = set(wanted.split(JOINT))
    for name in sorted(chosen - set(names)):
        listed = str(unknown_name("class", name, names))
        more = f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED:,} more"
        message = listed if len(names) <= MAX_NAMED else f"{listed.partition(' Valid: ')[0]} Valid: {more}"
        raise UsageError(message + _hint(name, names))
    return [name for name in names if name in chosen]


def _hint(part: str, names: list[str]) -> str:
    """Say how to select a class of whose name an unknown name is a part; empty if there is none."""
    whole = next((name for name in names if part in map(str.strip, re.split(rf"[,{JOINT}]", name))), None)
    if whole is None:
        return ""
    if JOINT in whole:
        return f"; '{whole}' cannot be selected, since {JOINT} joins names: rename the class"
    return f"; for '{whole}', give --classes @FILE with one name on each line, since a comma separates names"
