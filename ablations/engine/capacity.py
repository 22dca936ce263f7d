"""Number of concurrent cells, their devices, and the memory limit of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ablations.config.options import EngineOptions
from ablations.engine.devices import DeviceInfo

MAX_AUTO_JOBS = 8
"""Default maximum of concurrent cells: a worker takes about 100 MB of memory beside its cell's."""

MAX_AUTO_WORKERS = 16
"""Default maximum of decoding processes, of about 100 MB each."""

CUDA_CONTEXT_MIB = 600.0
"""Device memory of a process outside torch's allocator, in MiB: 300 to 600 were measured."""

RESERVED_SHARE = 0.1
"""Share of a device's memory that is left free."""


@dataclass(frozen=True)
class Slot:
    """A place for one cell at a time.

    Args:
        device: device to train on.
        number: index on that device, from 0.
    """

    device: torch.device
    number: int


class Capacity:
    """The slots of a run, and the memory of each.

    A CPU has one slot for each job. A GPU has the requested number; by default one slot is used until the first cell
    has shown its peak memory, and then as many as fit. Where several GPUs share a cell, they are one slot.

    Args:
        devices: devices to train on, all of one kind.
        options: options of the run.
        threads_per_cell: CPU threads of a cell.
        measured: what is known of each device; None: nothing, and cells have no limit but the requested one.

    Attributes:
        measured: what is known of each device.
    """

    def __init__(
        self,
        devices: tuple[torch.device, ...],
        options: EngineOptions,
        *,
        threads_per_cell: int,
        measured: Mapping[torch.device, DeviceInfo] | None = None,
    ) -> None:
        self._every, self._per_cell = devices, options.gpus_per_cell
        self._devices, self._options, self._threads_per_cell = devices[:: self._per_cell], options, threads_per_cell
        self.measured = measured or {}
        self._max_per_device = max(1, min(MAX_AUTO_JOBS, num_cores() // threads_per_cell // len(devices)))
        self._is_measuring = devices[0].type == "cuda" and options.jobs_per_gpu is None and self._per_cell == 1
        self._slots_per_device = 1
        if devices[0].type == "cpu":
            self._slots_per_device = options.jobs or self._max_per_device
        elif devices[0].type == "cuda":
            self._slots_per_device = options.jobs_per_gpu or 1

    @property
    def slots(self) -> list[Slot]:
        """All slots: the first of every device, then the second, and so on."""
        if self._is_measuring:
            return [Slot(self._devices[0], 0)]
        return [Slot(device, number) for number in range(self._slots_per_device) for device in self._devices]

    @property
    def shares_gpus(self) -> bool:
        """Whether several cells may run on a GPU at once."""
        most = self._max_per_device if self._is_measuring else self._slots_per_device
        return self._devices[0].type == "cuda" and most > 1

    @property
    def workers(self) -> int:
        """Decoding processes of each cell's process: the requested number, or its share of the cores.

        On a CPU the cell's own threads are subtracted; with 0 left it decodes between its steps. On a GPU: at least 1.
        """
        if self._options.workers is not None:
            return self._options.workers
        if self._devices[0].type == "cpu":
            return max(0, min(MAX_AUTO_WORKERS, num_cores() // self._slots_per_device - self._threads_per_cell))
        processes = self._slots_per_device * len(self._every)
        return max(1, min(MAX_AUTO_WORKERS, num_cores() // processes))

    def peers(self, device: torch.device) -> tuple[torch.device, ...]:
        """Return the devices that share the cells of a slot's device."""
        first = self._every.index(device)
        return self._every[first + 1 : first + self._per_cell]

    def update(self, fields: Mapping[str, Any], *, fullness: float = 1.0) -> None:
        """Set the slots of a GPU from the peak memory of the first finished cell or stack.

        Args:
            fields: measured fields of the cell.
            fullness: number of cells in its stack, as a share of the largest number.
        """
        peak_mib = fields["peak_reserved_mib"]
        if self._is_measuring and peak_mib is not None:
            fewest = min(info.free_mib for info in self.measured.values() if info.free_mib is not None)
            self._slots_per_device = num_cells_on_gpu(peak_mib / fullness, free_mib=fewest, limit=self._max_per_device)
            self._is_measuring = False

    def limit_mib(self, device: torch.device, *, alone: bool, num_cells: int = 1) -> float | None:
        """Return a worker's memory limit: as requested, or the memory free at the start, shared by the slots.

        Args:
            device: device of its slot.
            alone: whether no other worker runs.
            num_cells: number of its cells: more than one if they are a stack.
        """
        if self._options.memory_per_cell_mib is not None:
            return self._options.memory_per_cell_mib * num_cells
        sharing = [self.measured[each].free_mib for each in (device, *self.peers(device)) if each in self.measured]
        known = [free for free in sharing if free is not None]
        if not known:
            return None
        free = min(known)
        each = free / (1 if alone or self._is_measuring else self._slots_per_device)
        return max(1.0, each - CUDA_CONTEXT_MIB) if device.type == "cuda" else each


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_cells_on_gpu(peak_reserved_mib: float, *, free_mib: float, limit: int) -> int:
    """Return the number of concurrent cells that fit on a GPU, 1 or more.

    Args:
        peak_reserved_mib: peak memory of torch's allocator in the first cell.
        free_mib: free memory of the device.
        limit: number of cells that the cores can serve.

    >>> num_cells_on_gpu(2000, free_mib=80_000, limit=16)
    16
    >>> num_cells_on_gpu(20_000, free_mib=80_000, limit=16)
    3
    """
    return max(1, min(limit, int((1 - RESERVED_SHARE) * free_mib / (peak_reserved_mib + CUDA_CONTEXT_MIB))))
