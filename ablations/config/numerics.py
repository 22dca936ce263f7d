"""Versions of the numerics: a result of another version than the code's is stale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config.types import Task

NUMERICS: Mapping[Task, int] = {"classify": 1, "detect": 1}
"""Task to the version of its numbers: raised by hand, in the commit in which a golden value changes."""

UNVERSIONED: Mapping[str, str] = {
    "ce182c879dee5a35": "1",  # norm_digits: the numbers of the sources up to version 1, byte for byte
    "a28cc1e29d954ad1": "1",  # shapes: likewise
    "b005f7868565cd63": "1",  # tuned_cifar10: xnorm-s0, single_l2-s2 and softmax-s4 run anew, byte for byte
    "934f7e9dc999e698": "1",  # norm_tiny_imagenet: xnorm-s0, single_l2-s2 and layernorm-s4 run anew, byte for byte
}
"""Hash of the sources, as records had it before there were versions, to the version whose numbers they are: of those
sources that were compared with version 1, by training the same cells with both on one machine."""

UNKNOWN = "unversioned"
"""In place of a version, of a record whose sources nobody has compared."""


def recorded_numerics(outcome: Mapping[str, Any]) -> str:
    """Return the version of the numerics that a record is from, as `numerics_text` has it."""
    numerics: str | None = outcome.get("numerics")
    return UNVERSIONED.get(outcome["source_hash"], UNKNOWN) if numerics is None else numerics


def numerics_text(task: Task, *, plugin_hash: str) -> str:
    """Return what a record holds of the numerics: the task's version and, of a plug-in's normaliser, its hash.

    >>> numerics_text("classify", plugin_hash="") == str(NUMERICS["classify"])
    True
    """
    return f"{NUMERICS[task]}{'+' * bool(plugin_hash)}{plugin_hash}"
