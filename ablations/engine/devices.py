"""The devices of this machine: found by name, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ablations.config import RunStopped, UsageError
from ablations.engine.server import call

MEASURING_S = 120.0
"""Longest time that CUDA may take to start and be measured, in seconds."""

CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
"""Files with limit, use and statistics of memory, in versions 2 and 1 of Linux control groups."""


@dataclass(frozen=True)
class DeviceInfo:
    """What a runner knows of a device.

    Args:
        name: name in the records.
        free_mib: free memory in MiB, of a GPU beside a process's context; None: unknown.
    """

    name: str
    free_mib: float | None


def find_devices(names: tuple[str, ...]) -> tuple[torch.device, ...]:
    """Find the devices to train on.

    Raises:
        UsageError: a device does not exist or is given twice, or the devices are of several kinds.
    """
    devices = tuple(find_device(name) for name in names)
    if len(set(devices)) < len(devices):
        raise UsageError(f"--devices {','.join(names)}: a device is given twice; give each once")
    if len({device.type for device in devices}) > 1:
        raise UsageError(f"--devices {','.join(names)}: devices of several kinds; give several GPUs, or one device")
    return devices


def cluster_devices(names: tuple[str, ...]) -> tuple[torch.device, ...]:
    """Return the kind of device of a cluster's nodes: ``auto`` is a GPU if this machine has one.

    Raises:
        UsageError: the names choose among devices, which the cluster does.
    """
    if names == ("auto",):
        names = ("cuda",) if torch.cuda.device_count() else ("cpu",)
    if names not in (("cpu",), ("cuda",)):
        raise UsageError(f"--devices {','.join(names)}: a cluster gives each cell its device; give cpu or cuda")
    return (torch.device("cuda", 0) if names == ("cuda",) else torch.device("cpu"),)


def find_device(name: str) -> torch.device:
    """Find a device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.device_count() else "cpu"  # by NVML, without starting CUDA
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name}: unknown; give auto, cpu, cuda, cuda:N or mps")
    is_missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if is_missing:
        raise UsageError(f"device {name}: torch finds no such device on this machine; give cpu or auto")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def measure_devices(devices: Sequence[torch.device]) -> dict[torch.device, DeviceInfo]:
    """Measure devices; GPUs in a process of its own, since CUDA keeps a context in a process that has used a GPU.

    Raises:
        RunStopped: a GPU cannot be used.
    """
    if all(device.type != "cuda" for device in devices):
        return _inspect(devices)
    try:
        return call(_inspect, devices, within_s=MEASURING_S)
    except RuntimeError as error:
        raise RunStopped(f"{', '.join(map(str, devices))} cannot be used: {error}") from error


def device_name(device: torch.device) -> str:
    """Return the name of a device in the records; this starts CUDA for a GPU."""
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def _inspect(devices: Sequence[torch.device]) -> dict[torch.device, DeviceInfo]:
    return {device: DeviceInfo(device_name(device), _free_mib(device)) for device in devices}


def _free_mib(device: torch.device) -> float | None:
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
