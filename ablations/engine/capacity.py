"""Number of concurrent cells, their devices, and the memory limit of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ablations.config.options import EngineOptions

MAX_AUTO_JOBS = 8
"""Default maximum of concurrent cells: a worker takes about 100 MB of memory beside its cell's."""

MAX_AUTO_WORKERS = 16
"""Default maximum of decoding processes, of about 100 MB each."""

CUDA_CONTEXT_MIB = 600.0
"""Device memory of a process outside torch's allocator, in MiB: 300 to 600 were measured."""

RESERVED_SHARE = 0.1
"""Share of a device's memory that is left free."""

CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
"""Files with limit, use and statistics of memory, in versions 2 and 1 of Linux control groups."""


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
    has shown its peak memory, and then as many as fit.

    Args:
        devices: devices to train on, all of one kind.
        options: options of the run.
        threads_per_cell: CPU threads of a cell.
    """

    def __init__(self, devices: tuple[torch.device, ...], options: EngineOptions, *, threads_per_cell: int) -> None:
        self._devices, self._options, self._threads_per_cell = devices, options, threads_per_cell
        self._free_mib = {device: free_mib(device) for device in devices}
        self._max_per_device = max(1, min(MAX_AUTO_JOBS, num_cores() // threads_per_cell // len(devices)))
        self._is_measuring = devices[0].type == "cuda" and options.jobs_per_gpu is None
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
    def workers(self) -> int:
        """Decoding processes of each cell: the requested number, or the cell's share of the cores.

        On a CPU the cell's own threads are subtracted; with 0 left it decodes between its steps. On a GPU: at least 1.
        """
        if self._options.workers is not None:
            return self._options.workers
        if self._devices[0].type == "cpu":
            return max(0, min(MAX_AUTO_WORKERS, num_cores() // self._slots_per_device - self._threads_per_cell))
        cells = self._slots_per_device * len(self._devices)
        return max(1, min(MAX_AUTO_WORKERS, num_cores() // cells))

    def update(self, fields: Mapping[str, Any]) -> None:
        """Set the slots of a GPU from the peak memory of the first finished cell.

        Args:
            fields: measured fields of the cell.
        """
        peak_mib = fields["peak_reserved_mib"]
        if self._is_measuring and peak_mib is not None:
            fewest = min(mib for mib in self._free_mib.values() if mib is not None)
            self._slots_per_device = num_cells_on_gpu(peak_mib, free_mib=fewest, limit=self._max_per_device)
            self._is_measuring = False

    def limit_mib(self, device: torch.device, *, alone: bool) -> float | None:
        """Return a cell's memory limit: as requested, or the memory free at the start of the run, shared by the slots.

        Args:
            device: device of its slot.
            alone: whether no other cell runs.
        """
        if self._options.memory_per_cell_mib is not None:
            return self._options.memory_per_cell_mib
        free = self._free_mib[device]
        if free is None:
            return None
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


def device_name(device: torch.device) -> str:
    """Return the name of a device in the records."""
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def free_mib(device: torch.device) -> float | None:
    """Return the free memory of a device; None if it is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free / 2**20)
    return free_memory_mib() if device.type == "cpu" else None


def free_memory_mib(*, groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the free memory of this machine, or less if its container or batch job has a lower limit.

    Args:
        groups: file that names the control groups of this process.
        mount: folder of the control groups.
    """
    free: float = psutil.virtual_memory().available
    for folder in _cgroup_folders(groups, mount):
        for limit, used, parts in CGROUP_FILES:
            try:
                stat = dict(line.split() for line in (folder / parts).read_text().splitlines())
                in_use = int((folder / used).read_text()) - int(stat["inactive_file"])  # file cache is reclaimable
                within = int((folder / limit).read_text()) - in_use
            except (OSError, ValueError, KeyError):  # no such control group, or the limit is "max"
                continue
            free = min(free, max(0, within))
    return free / 2**20


def _cgroup_folders(groups: Path, mount: Path) -> list[Path]:
    """Return the folders of the control groups that limit our memory: our own and its parents."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return []
    folders: list[Path] = []
    for _, controllers, path in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        top = mount / "memory" if controllers else mount
        ours = top / path.strip("/")
        folders += [folder for folder in (ours, *ours.parents) if folder.is_relative_to(top)]
    return folders
