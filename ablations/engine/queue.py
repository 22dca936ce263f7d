"""The queue of cells to run, which several runners of a study share."""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Sequence

from ablations.config import CellConfig, Study
from ablations.config.values import plural
from ablations.engine.failures import Failures
from ablations.engine.watcher import Watcher
from ablations.store import CellRecord, Lease, Store, cell_name

POLL_S = 1.0
"""Seconds between two attempts to claim the cells that other runners hold."""


class Queue:
    """Cells to run. A cell that another runner holds stays here until it has a record or can be claimed.

    Args:
        todo: cells in start order.
        study: study of the cells.
        store: folder of the study.
        records: record of each cell that has one, by cell id; updated with the records of other runners.
        failures: failures of the run.
        watcher: observer of the run.
    """

    def __init__(
        self,
        todo: Sequence[CellConfig],
        *,
        study: Study,
        store: Store,
        records: dict[str, CellRecord],
        failures: Failures,
        watcher: Watcher,
    ) -> None:
        self._study, self._store, self._records = study, store, records
        self._failures, self._watcher = failures, watcher
        self._pending = OrderedDict((cell.id, cell) for cell in todo)
        self._stackable: dict[str, deque[CellConfig]] = {}  # by their id but for the seed
        for cell in todo:
            if cell.run.stack > 1:
                self._stackable.setdefault(_id_but_for_seed(cell), deque()).append(cell)
        self._held: deque[CellConfig] = deque()  # by other runners
        self._polled = 0.0
        self._num_announced = 0

    def __len__(self) -> int:
        return len(self._pending) + len(self._held)

    def next(self, *, is_idle: bool) -> tuple[CellConfig, Lease] | None:
        """Claim the next cell that no other runner holds.

        Args:
            is_idle: whether this runner runs no cell, so that the user should know what it waits for.
        """
        while self._pending:
            _, cell = self._pending.popitem(last=False)
            if lease := self.claim(cell):
                return cell, lease
        if time.monotonic() - self._polled < POLL_S:
            return None
        self._polled = time.monotonic()
        for _ in range(len(self._held)):
            cell = self._held.popleft()
            if lease := self.claim(cell):
                self._watcher.note(f"{self._study.title_of(cell)}: taken over from a runner that died or released it")
                return cell, lease
        num_held = len(self._held)
        if num_held and is_idle and num_held != self._num_announced:
            self._num_announced = num_held
            self._watcher.note(f"waiting for {plural(num_held, 'cell')} of other runners")
        return None

    def partners(self, cell: CellConfig) -> list[tuple[CellConfig, Lease]]:
        """Claim waiting cells that differ from a cell only in their seeds, as many as its stack still holds."""
        claimed: list[tuple[CellConfig, Lease]] = []
        if cell.run.stack == 1:
            return claimed
        alike = self._stackable[_id_but_for_seed(cell)]
        while alike and len(claimed) + 1 < cell.run.stack:
            other = alike.popleft()
            if self._pending.pop(other.id, None) is not None and (lease := self.claim(other)):
                claimed.append((other, lease))
        return claimed

    def claim(self, cell: CellConfig) -> Lease | None:
        """Claim a cell, unless another runner holds it or has recorded it."""
        if self._is_done_elsewhere(cell):
            return None
        lease = self._store.leases.claim(cell.id)
        if lease is None:
            self._held.append(cell)
            return None
        if self._is_done_elsewhere(cell):  # recorded between the two calls
            lease.release(keep_checkpoint=False)
            return None
        return lease

    def put_back(self, cell: CellConfig, reason: str) -> None:
        """Return a cell that another runner took over, and tell the user why."""
        self._watcher.note(f"{self._study.title_of(cell)}: {reason}; this attempt is discarded")
        self._held.append(cell)

    def _is_done_elsewhere(self, cell: CellConfig) -> bool:
        name, before = cell_name(self._study.arm_of(cell), cell), self._records.get(cell.id)
        record = self._store.find(name)
        if record is None or (before is not None and json.dumps(record.outcome) == json.dumps(before.outcome)):
            return False  # compared as text, since NaN != NaN
        self._records[cell.id] = record
        self._failures.take(cell, record.outcome, ours=False)
        self._watcher.done(cell, record.outcome, ours=False, remark="by another runner")
        return True


def _id_but_for_seed(cell: CellConfig) -> str:
    return cell.model_copy(update={"seed": 0}).id
