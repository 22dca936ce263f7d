"""What follows from a failed cell: another try, or the end of the run. No cell is run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config import CellConfig

TRIED_AGAIN = ("oom", "killed", "timeout")
"""Kinds of failure that another try, alone on the machine, may mend. An error would only come again."""


class Failures:
    """Keeps the score of a run's failures.

    Args:
        cells: those of the run, in the order in which they are started.
        arms: name of each cell's arm, by id.
        second_try: whether a cell may be tried again.
        most: failed cells after which the run ends; None: no limit.
    """

    def __init__(self, cells: list[CellConfig], *, arms: Mapping[str, str], second_try: bool, most: int | None) -> None:
        self._first = {arms[cell.id]: cell.id for cell in reversed(cells)}  # the first of an arm comes last, and stays
        self._num_cells = len(cells)
        self._second_try = second_try
        self._most = most
        self._tried: set[str] = set()
        self._ways: dict[str, tuple[str, str]] = {}
        self._failed: set[str] = set()
        self.again: list[CellConfig] = []
        """Cells to be tried again, alone on the machine."""

    def take(self, cell: CellConfig, outcome: Mapping[str, Any], *, ours: bool = True) -> None:
        """Take note of how a cell has ended, here or with another runner, who then gives it its second try."""
        self._ways.pop(cell.id, None)
        if outcome["outcome"] != "failed":
            return
        kind = outcome["kind"]
        if cell.id in self._first.values():
            self._ways[cell.id] = (kind, outcome["detail"] if kind == "error" else "")
        if ours and self._second_try and kind in TRIED_AGAIN and cell.id not in self._tried:
            self.again.append(cell)
        else:
            self._failed.add(cell.id)

    def next_try(self) -> CellConfig:
        """Return a cell that is to be tried again, and count the try."""
        cell = self.again.pop(0)
        self._tried.add(cell.id)
        return cell

    @property
    def is_doubtful(self) -> bool:
        """Whether the first cell of every arm has failed in one way, which its second try has yet to confirm."""
        return self._all_first_failed_alike() and bool(self.again)

    @property
    def reason_to_stop(self) -> str | None:
        """Why no more cells should be started; None while there is no reason."""
        num_failed = len(self._failed) + len(self.again)
        if self._most is not None and num_failed >= self._most:
            return f"{num_failed} cell{'s' * (num_failed > 1)} failed, and no more than that were allowed for"
        confirmed = any(cell in self._failed for cell in self._ways)
        if self._all_first_failed_alike() and confirmed and self._num_cells > len(self._first):
            (kind, detail), *_ = self._ways.values()
            each = "the first cell of every arm fails" if len(self._first) > 1 else "the first cell fails"
            return f"{each} in the same way: {kind}{': ' * bool(detail)}{detail}"
        return None

    def _all_first_failed_alike(self) -> bool:
        return len(self._ways) == len(self._first) and len(set(self._ways.values())) == 1
