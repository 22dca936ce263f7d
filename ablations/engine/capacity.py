"""How many cells go side by side, where, and how much memory each may take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ablations.config.options import EngineOptions

MOST_AUTO_JOBS = 8
"""A worker takes some hundred MB of memory beside its cell's, so a machine of many cores is not filled unasked."""

MOST_AUTO_WORKERS = 16
"""A worker takes some 100 MB of memory."""

CUDA_CONTEXT_MIB = 600.0
"""Device memory that a process takes beside torch's allocator: measured values lie between 300 and 600."""

SPARE = 0.1
"""Share of a device's memory that is left alone."""

CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
"""Limit, use and its parts of a group's memory, in versions 2 and 1 of Linux' control groups."""


@dataclass(frozen=True)
class Slot:
    """A place for one cell at a time.

    Args:
        device: to train on.
        number: from 0, on that device.
    """

    device: torch.device
    number: int


class Capacity:
    """The slots of a run, and the memory of each.

    On a CPU there are as many as jobs. On GPUs there are as many on each as asked for; else there is one alone until
    the first cell has shown how much memory it takes, and then as many as fit.

    Args:
        devices: to train on; all of one kind.
        options: how the study is run.
        threads_per_cell: CPU threads that a cell takes.
    """

    def __init__(self, devices: tuple[torch.device, ...], options: EngineOptions, *, threads_per_cell: int) -> None:
        self._devices, self._options, self._threads_per_cell = devices, options, threads_per_cell
        self._free_mib = {device: free_mib(device) for device in devices}
        self._most = most_by_cores(threads_per_cell, num_devices=len(devices))
        self._is_measuring = devices[0].type == "cuda" and options.jobs_per_gpu is None
        self._each = 1
        if devices[0].type == "cpu":
            self._each = options.jobs or self._most
        elif devices[0].type == "cuda":
            self._each = options.jobs_per_gpu or 1

    @property
    def slots(self) -> list[Slot]:
        """Every place for a cell, one device after the other."""
        if self._is_measuring:
            return [Slot(self._devices[0], 0)]
        return [Slot(device, number) for number in range(self._each) for device in self._devices]

    @property
    def workers(self) -> int:
        """Processes that decode streamed images for each cell: as asked for, or the cores that the cells leave.

        On a CPU the cells may leave none: then each decodes between its own steps. A GPU's cell always gets one.
        """
        if self._options.workers is not None:
            return self._options.workers
        if self._devices[0].type == "cpu":
            return max(0, min(MOST_AUTO_WORKERS, num_cores() // self._each - self._threads_per_cell))
        cells = self._each * len(self._devices)
        return max(1, min(MOST_AUTO_WORKERS, num_cores() // cells))

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Take note of what a finished cell has taken.

        Args:
            fields: of its outcome.json.
        """
        peak_mib = fields["peak_reserved_mib"]
        if self._is_measuring and peak_mib is not None:
            fewest = min(mib for mib in self._free_mib.values() if mib is not None)
            self._each = fitting_on_gpu(peak_mib, free_mib=fewest, most=self._most)
            self._is_measuring = False

    def limit_mib(self, device: torch.device, *, alone: bool) -> float | None:
        """Return the limit of a cell's memory: as asked for, or what was free as the run began, divided by the slots.

        Args:
            device: of its slot.
            alone: it has the machine for itself.
        """
        if self._options.memory_per_cell_mib is not None:
            return self._options.memory_per_cell_mib
        free = self._free_mib[device]
        if free is None:
            return None
        each = free / (1 if alone or self._is_measuring else self._each)
        return max(1.0, each - CUDA_CONTEXT_MIB) if device.type == "cuda" else each


def most_by_cores(threads_per_cell: int, *, num_devices: int = 1) -> int:
    """Return how many cells the cores of this machine can serve, for each of some devices."""
    return max(1, min(MOST_AUTO_JOBS, num_cores() // threads_per_cell // num_devices))


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fitting_on_gpu(peak_reserved_mib: float, *, free_mib: float, most: int) -> int:
    """Return how many cells like the first fit on a GPU side by side.

    Args:
        peak_reserved_mib: what torch's allocator took for the first cell.
        free_mib: memory that is free on the device.
        most: what the cores can serve.

    >>> fitting_on_gpu(2000, free_mib=80_000, most=16)
    16
    >>> fitting_on_gpu(20_000, free_mib=80_000, most=16)
    3
    """
    return max(1, min(most, int((1 - SPARE) * free_mib / (peak_reserved_mib + CUDA_CONTEXT_MIB))))


def device_name(device: torch.device) -> str:
    """Return the name of a device as records have it."""
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def free_mib(device: torch.device) -> float | None:
    """Return the memory that is free for cells on a device; None where it cannot be told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free / 2**20)
    return free_memory_mib() if device.type == "cpu" else None


def free_memory_mib(*, groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the memory that is free on this machine, or within the limit of its container or its batch job.

    Args:
        groups: the file that names the control groups of this process.
        mount: where control groups are.
    """
    free: float = psutil.virtual_memory().available
    for folder in _cgroup_folders(groups, mount):
        for limit, used, parts in CGROUP_FILES:
            try:
                stat = dict(line.split() for line in (folder / parts).read_text().splitlines())
                in_use = int((folder / used).read_text()) - int(stat["inactive_file"])  # cached files give way
                within = int((folder / limit).read_text()) - in_use
            except (OSError, ValueError, KeyError):  # no such control group, or "max"
                continue
            free = min(free, max(0, within))
    return free / 2**20


def _cgroup_folders(groups: Path, mount: Path) -> list[Path]:
    """Return the folders of the control groups whose limits of memory hold here: ours, and all above it."""
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
