"""The devices of this machine by the names that users give them."""

from __future__ import annotations

import torch

from ablations.config import UsageError


def find_devices(names: tuple[str, ...]) -> tuple[torch.device, ...]:
    """Find the devices to train on, each once.

    Raises:
        UsageError: one that there is not, or that comes twice.
    """
    devices = tuple(find_device(name) for name in names)
    if len(set(devices)) < len(devices):
        raise UsageError(f"--devices: {', '.join(names)}: one is given twice")
    return devices


def find_device(name: str) -> torch.device:
    """Find a device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps") from None
    usable = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in usable:
        raise UsageError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps")
    if not usable[device.type]:
        raise UsageError(f"--device {name}: torch finds no such device here")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
