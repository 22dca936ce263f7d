"""Find the devices of this machine by name."""

from __future__ import annotations

import torch

from ablations.config import UsageError


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


def find_device(name: str) -> torch.device:
    """Find a device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
