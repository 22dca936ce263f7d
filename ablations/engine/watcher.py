"""The interface of an observer of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ablations.config import CellConfig


class Watcher(Protocol):
    """An observer of a run, called in the runner's thread."""

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Handle a finished cell, of this runner or another, with its outcome.json and a remark for the user."""

    def note(self, line: str) -> None:
        """Handle a message of the runner."""

    def tick(self) -> None:
        """Handle a clock tick, a few times a second."""
