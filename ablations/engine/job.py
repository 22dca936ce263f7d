"""Cells that run together: one, or several that are trained as one stack."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ablations.config import CellConfig
from ablations.engine.result import Result, failed_result
from ablations.engine.worker import Task
from ablations.store import Lease, LeaseLost


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What an engine gives a job.

    Args:
        device: device to train on.
        device_name: its name, for the record.
        number: index among the jobs on that device, from 0.
        memory_mib: limit of the memory of the job; None: no limit.
        workers: number of decoding processes of each cell.
        mps: whether the GPU is shared through NVIDIA's Multi-Process Service.
        peers: further devices of each cell, each with a process of its own.
        origin: what the record says of where its cells ran, over what it says of this machine.
    """

    device: torch.device
    device_name: str
    number: int
    memory_mib: float | None
    workers: int
    mps: bool
    peers: tuple[torch.device, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


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
    """Claimed cells that an engine runs in one process.

    Args:
        members: the cells.
        placement: what the engine gives them.
        started: time of `time.monotonic` at the start, in seconds.
    """

    members: list[Member]
    placement: Placement
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def fullness(self) -> float:
        """Number of its cells, as a share of the largest number that may be stacked."""
        return len(self.members) / self.members[0].cell.run.stack

    def failures(self, kind: str, detail: str) -> list[Result]:
        """Return the failure of every cell of a process that died or was killed."""
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
