"""The queue of cells to run, which several runners of a study share."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field

from ablations.config import CellConfig, Study
from ablations.config.values import plural
from ablations.engine.failures import Failures
from ablations.engine.watcher import Watcher
from ablations.store import CellRecord, Lease, Store, cell_name

POLL_S = 1.0
"""Seconds between two attempts to claim the cells that other runners hold."""


@dataclass(eq=False)
class Queue:
    """Cells to run. A cell that another runner holds stays here until it has a record or can be claimed.

    Args:
        pending: cells in start order.
        study: study of the cells.
        store: folder of the study.
        records: record of each cell that has one, by cell id; updated with the records of other runners.
        failures: failures of the run.
        watcher: observer of the run.
    """

    pending: deque[CellConfig]
    study: Study
    store: Store
    records: dict[str, CellRecord]
    failures: Failures
    watcher: Watcher
    _held: deque[CellConfig] = field(default_factory=deque)  # by other runners
    _polled: float = 0.0
    _num_announced: int = 0

    def __len__(self) -> int:
        return len(self.pending) + len(self._held)

    def next(self, *, is_idle: bool) -> tuple[CellConfig, Lease] | None:
        """Claim the next cell that no other runner holds.

        Args:
            is_idle: whether this runner runs no cell, so that the user should know what it waits for.
        """
        while self.pending:
            cell = self.pending.popleft()
            if lease := self.claim(cell):
                return cell, lease
        if time.monotonic() - self._polled < POLL_S:
            return None
        self._polled = time.monotonic()
        for _ in range(len(self._held)):
            cell = self._held.popleft()
            if lease := self.claim(cell):
                self.watcher.note(f"{self.study.title_of(cell)}: taken over from a runner that died or released it")
                return cell, lease
        num_held = len(self._held)
        if num_held and is_idle and num_held != self._num_announced:
            self._num_announced = num_held
            self.watcher.note(f"waiting for {plural(num_held, 'cell')} of other runners")
        return None

    def partners(self, cell: CellConfig) -> list[tuple[CellConfig, Lease]]:
        """Claim waiting cells that differ from a cell only in their seeds, as many as its stack still holds."""
        claimed: list[tuple[CellConfig, Lease]] = []
        for other in [each for each in self.pending if _but_for_seed(each) == _but_for_seed(cell)]:
            if len(claimed) + 1 >= cell.run.stack:
                break
            self.pending.remove(other)
            if lease := self.claim(other):
                claimed.append((other, lease))
        return claimed

    def claim(self, cell: CellConfig) -> Lease | None:
        """Claim a cell, unless another runner holds it or has recorded it."""
        if self._is_done_elsewhere(cell):
            return None
        lease = self.store.leases.claim(cell.id)
        if lease is None:
            self._held.append(cell)
            return None
        if self._is_done_elsewhere(cell):  # recorded between the two calls
            lease.release(keep_checkpoint=False)
            return None
        return lease

    def put_back(self, cell: CellConfig, reason: str) -> None:
        """Return a cell that another runner took over, and tell the user why."""
        self.watcher.note(f"{self.study.title_of(cell)}: {reason}; this attempt is discarded")
        self._held.append(cell)

    def _is_done_elsewhere(self, cell: CellConfig) -> bool:
        name, before = cell_name(self.study.arm_of(cell), cell), self.records.get(cell.id)
        record = self.store.find(name)
        if record is None or (before is not None and json.dumps(record.outcome) == json.dumps(before.outcome)):
            return False  # compared as text, since NaN != NaN
        self.records[cell.id] = record
        self.failures.take(cell, record.outcome, ours=False)
        self.watcher.done(cell, record.outcome, ours=False, remark="by another runner")
        return True


def _but_for_seed(cell: CellConfig) -> CellConfig:
    return cell.model_copy(update={"seed": 0})
