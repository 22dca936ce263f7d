"""Who is told what happens in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ablations.config import CellConfig


class Watcher(Protocol):
    """Who is told what happens, in the runner's own thread."""

    def done(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool, remark: str) -> None:
        """Take a cell that has ended here or with another runner, its outcome.json, and what else is to be said."""

    def note(self, line: str) -> None:
        """Take a sentence of the runner's."""

    def tick(self) -> None:
        """Take the passing of time: called a few times a second."""
