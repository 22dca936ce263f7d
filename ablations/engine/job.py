"""Cells that run in a worker: one, or several that are trained as one stack."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ablations.config import CellConfig
from ablations.engine.capacity import Slot
from ablations.engine.result import Result, failed_result
from ablations.engine.worker import Task, Worker
from ablations.store import Lease, LeaseLost


@dataclass(kw_only=True, eq=False)
class Member:
    """A claimed cell.

    Args:
        cell: configuration of the cell.
        lease: claim on the cell.
        task: its task.
        fields: its measured fields, as far as the runner knows them.
    """

    cell: CellConfig
    lease: Lease
    task: Task
    fields: dict[str, Any]


@dataclass(kw_only=True, eq=False)
class Job:
    """Claimed cells in a worker.

    Args:
        members: the cells.
        worker: worker that runs them.
        slot: place of the worker.
        started: time of `time.monotonic` at the start, in seconds.
    """

    members: list[Member]
    worker: Worker
    slot: Slot
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def failures(self, kind: str, detail: str) -> list[Result]:
        """Return the failure of every cell of a worker that died or was killed."""
        each_s = self.seconds / len(self.members)
        return [
            failed_result(member.lease.folder, kind, detail, member.fields | {"seconds": each_s})
            for member in self.members
        ]

    def beat(self) -> dict[CellConfig, str]:
        """Send a heartbeat for every cell; return the cells that another runner has taken over, and why."""
        lost = {}
        for member in self.members:
            try:
                member.lease.beat()
            except LeaseLost as reason:
                lost[member.cell] = str(reason)
        return lost

    def release(self) -> None:
        """Release every cell with its checkpoint."""
        for member in self.members:
            member.lease.release(keep_checkpoint=True)
