"""Decide what follows from a failed cell: a retry, or the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config import CellConfig
from ablations.config.values import plural

RETRIED_KINDS = ("oom", "killed", "timeout")
"""Kinds of failure that are retried with no other cell running; an ``error`` would only recur."""


class Failures:
    """The failures of a run.

    Args:
        cells: cells of the run, in start order.
        arms: name of each cell's arm, by cell id.
        retry: whether a failed cell is retried once.
        limit: number of failed cells at which the run stops; None: no limit.
    """

    def __init__(self, cells: list[CellConfig], *, arms: Mapping[str, str], retry: bool, limit: int | None) -> None:
        self._first_cells = {arms[cell.id]: cell.id for cell in reversed(cells)}  # so that an arm's first cell is kept
        self._num_cells = len(cells)
        self._retry = retry
        self._limit = limit
        self._retried: set[str] = set()
        self._first_failures: dict[str, tuple[str, str]] = {}
        self._failed: set[str] = set()
        self.to_retry: list[CellConfig] = []
        """Cells to be retried with no other cell running."""

    def take(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool = True) -> None:
        """Record the outcome of a cell; one that another runner ran (``ours=False``) is not retried here."""
        self._first_failures.pop(cell.id, None)
        if outcome["outcome"] != "failed":
            return
        kind = outcome["kind"]
        if cell.id in self._first_cells.values():
            self._first_failures[cell.id] = (kind, outcome["detail"] if kind == "error" else "")
        if ours and self._retry and kind in RETRIED_KINDS and cell.id not in self._retried:
            self.to_retry.append(cell)
        else:
            self._failed.add(cell.id)

    def next_retry(self) -> CellConfig:
        """Remove and return the next cell to be retried."""
        cell = self.to_retry.pop(0)
        self._retried.add(cell.id)
        return cell

    @property
    def awaits_retry(self) -> bool:
        """Whether the first cells of all arms failed in the same way, and a retry has yet to confirm it."""
        return self._all_first_failed_alike() and bool(self.to_retry)

    @property
    def reason_to_stop(self) -> str | None:
        """Reason to start no more cells; None if there is none."""
        num_failed = len(self._failed) + len(self.to_retry)
        if self._limit is not None and num_failed >= self._limit:
            return f"{plural(num_failed, 'cell')} failed, and the limit is {self._limit}"
        confirmed = any(cell in self._failed for cell in self._first_failures)
        if self._all_first_failed_alike() and confirmed and self._num_cells > len(self._first_cells):
            (kind, detail), *_ = self._first_failures.values()
            each = "the first cell of every arm fails" if len(self._first_cells) > 1 else "the first cell fails"
            return f"{each} in the same way: {kind}{': ' * bool(detail)}{detail}"
        return None

    def _all_first_failed_alike(self) -> bool:
        return len(self._first_failures) == len(self._first_cells) and len(set(self._first_failures.values())) == 1
