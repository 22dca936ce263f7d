"""Versions of the numerics: results of another version than the code's are stale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config.types import Task

NUMERICS: Mapping[Task, int] = {"classify": 1, "detect": 1}
"""Version of each task's numerics, raised manually in the commit that changes a golden value."""

UNVERSIONED: Mapping[str, str] = {
    "ce182c879dee5a35": "1",  # norm_digits: the results of the sources up to version 1, byte for byte
    "a28cc1e29d954ad1": "1",  # shapes: the same
    "b005f7868565cd63": "1",  # tuned_cifar10: xnorm-s0, single_l2-s2 and softmax-s4 rerun, byte for byte
    "934f7e9dc999e698": "1",  # norm_tiny_imagenet: xnorm-s0, single_l2-s2 and layernorm-s4 rerun, byte for byte
}
"""Version by source hash, for records without a version. It lists the sources that were compared with version 1 by
training the same cells with both on one machine."""

UNKNOWN = "unversioned"
"""Version of a record whose sources have not been compared."""


def recorded_numerics(outcome: Mapping[str, Any]) -> str:
    """Return the numerics version of a record, in the form of `numerics_text`."""
    numerics: str | None = outcome.get("numerics")
    return UNVERSIONED.get(outcome["source_hash"], UNKNOWN) if numerics is None else numerics


def numerics_text(task: Task, *, plugin_hash: str) -> str:
    """Return the numerics version to record: the task's version, and the hash of a plug-in's normaliser.

    >>> numerics_text("classify", plugin_hash="") == str(NUMERICS["classify"])
    True
    """
    return f"{NUMERICS[task]}{'+' * bool(plugin_hash)}{plugin_hash}"
